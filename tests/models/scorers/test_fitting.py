"""fitting: fewer rows at once where memory is short."""

import pytest
import torch

from models.scorers.fitting import Fitting


class Device:
    """Doubles numbers; has memory for so many at once."""

    def __init__(self, room: int) -> None:
        self.room, self.calls = room, []

    def __call__(self, rows: list[int]) -> torch.Tensor:
        self.calls.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return torch.tensor(rows) * 2


@pytest.mark.parametrize("room", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("count", [0, 1, 9, 32])
def test_all_rows_come_in_order_whatever_fits(room: int, count: int):
    """Out of memory halves the batch and goes on: nothing is lost, nothing is done twice."""
    device = Device(room)
    found = Fitting(8)(device, list(range(count)))
    assert [n for part in found for n in part.tolist()] == [2 * n for n in range(count)]
    assert sum(n for n in device.calls if n <= room) == count


def test_what_did_not_fit_is_not_tried_again():
    """Later calls begin with the size that was found."""
    device, fitting = Device(2), Fitting(8)
    fitting(device, list(range(8)))
    assert device.calls[:3] == [8, 4, 2]
    device.calls.clear()
    fitting(device, list(range(8)))
    assert device.calls == [2, 2, 2, 2]


def test_one_row_that_does_not_fit_is_an_error():
    """There is no half of one row."""
    with pytest.raises(torch.OutOfMemoryError):
        Fitting(8)(Device(0), [1, 2, 3])


def test_other_errors_are_not_caught():
    """A model that is wrong is not called again with less."""

    def broken(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Fitting(8)(broken, [1, 2])
