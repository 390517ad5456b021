"""Bags of codes equal a plain count, for any vocabulary, batch and numbering."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.selectors.bags import MOST_DIMS, fit
from tests.planted import planted

LISTS = st.lists(st.none() | st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=8)


def column(rows) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(rows, pa.list_(pa.int16()))])


def plain(rows, feature: str) -> list[list[float]]:
    """By the definition, the codes in the order in which they come."""
    order = list(dict.fromkeys(code for row in rows for code in row or []))
    found = []
    for row in rows:
        counts = [(row or []).count(code) for code in order]
        having = [sum(code in (other or []) for other in rows) for code in order]
        idf = [math.log((1 + len(rows)) / (1 + n)) + 1 for n in having]
        weighed = (
            [math.sqrt(c) for c in counts]
            if feature == "sqrt"
            else [c * w for c, w in zip(counts, idf, strict=True)]
        )
        length = math.sqrt(sum(w * w for w in weighed)) or 1
        found.append([w / length for w in weighed])
    return found


@settings(max_examples=60, deadline=None)
@given(LISTS, st.sampled_from(["sqrt", "tfidf"]))
def test_rows_equal_the_definition(rows, feature):
    """Counts, their weights and unit length, for lists with repeats, empty ones and nulls."""
    found, known = fit(column(rows), feature, 0)(column(rows))
    assert known.tolist() == [bool(row) for row in rows]
    np.testing.assert_allclose(
        found, np.array(plain(rows, feature)).reshape(found.shape), atol=1e-6
    )


def test_codes_that_the_sample_lacks_count_for_nothing():
    """A row of new codes alone is unknown; beside others they change nothing."""
    bags = fit(column([[1, 1, 2], [2, 3]]), "sqrt", 0)
    rows, known = bags(column([[1, 2, 9, -1], [1, 2], [9]]))
    assert known.tolist() == [True, True, False]
    assert rows[0].tolist() == rows[1].tolist()


@pytest.mark.parametrize("feature", ["sqrt", "tfidf"])
def test_many_codes_are_projected_and_cosines_stay(feature):
    """2000 codes become 256 dimensions; cosines move by less than five standard errors, and
    another numbering gives the same bits."""
    codes, _ = planted(400, topics=8, codes=2000)
    bags = fit(column(codes.tolist()), feature, 7)
    rows, _ = bags(column(codes.tolist()))
    assert rows.shape == (400, MOST_DIMS)
    if feature == "sqrt":
        whole = np.sqrt([np.bincount(row, minlength=2000) / len(row) for row in codes])
        assert np.abs(rows @ rows.T - whole @ whole.T).max() < 5 / math.sqrt(MOST_DIMS)
    other = column(np.random.default_rng(0).permutation(2000)[codes].tolist())
    assert np.array_equal(fit(other, feature, 7)(other)[0], rows)


def test_a_row_does_not_depend_on_its_batch():
    """The same bits alone and among 3000."""
    codes = column(planted(3000, codes=700, patches=20)[0].tolist())
    bags = fit(codes, "sqrt", 0)
    rows, _ = bags(codes)
    for place in (0, 1023, 1024, 2999):
        assert np.array_equal(bags(codes.slice(place, 1))[0][0], rows[place])
