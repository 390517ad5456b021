"""The draw in SQL is the draw of the contract, and its subset is spread evenly over the list."""

from __future__ import annotations

import math
import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from curate.compress import compress
from curate.query import connect, draw_sql, literal
from schemas.configs import ChooseCaption, RandomSelector
from schemas.tables import draw
from tests.tiny import Row, tiny_dataset, whole


@settings(max_examples=30, deadline=None)
@given(st.integers(-3, 2**40), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_sql_and_python_draw_the_same_number(seed, uid):
    """The text that SQL sorts by is the number's 56 bits in hex."""
    found = CON.execute(f"SELECT {draw_sql(seed, literal(uid))}").fetchone()
    assert found is not None
    assert int(found[0], 16) / 2**56 == draw(seed, uid)


CON = connect(tiny_dataset(f"memory://{uuid.uuid4().hex}", [Row("x")]))


def test_the_subset_is_uniform_in_the_order_of_the_list():
    """Kolmogorov and Smirnov: places in the list of a quarter of 4000 pairs are as far from even
    as one uniform sample in a thousand at most, for each of three seeds."""
    rows = [Row(f"http://a/{i}") for i in range(4000)]
    place = {row.uid: (i + 0.5) / len(rows) for i, row in enumerate(rows)}
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows)
    configs = [RandomSelector(name=f"r{seed}", fraction=0.25, seed=seed) for seed in range(3)]
    compress(data, configs, ChooseCaption())
    for config in configs:
        places = sorted(place[row["uid"]] for row in whole(data, f"subset_{config.name}"))
        n = len(places)
        assert n == 1000
        apart = max(max((i + 1) / n - p, p - i / n) for i, p in enumerate(places))
        assert apart < math.sqrt(-math.log(0.001 / 2) / 2 / n)
