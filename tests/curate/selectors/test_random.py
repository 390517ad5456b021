"""The draw in SQL is the draw of the contract."""

from __future__ import annotations

import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from curate.query import connect, draw_sql, literal
from schemas.tables import draw
from tests.tiny import Row, tiny_dataset


@settings(max_examples=30, deadline=None)
@given(st.integers(-3, 2**40), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_sql_and_python_draw_the_same_number(seed, uid):
    """The text that SQL sorts by is the number's 56 bits in hex."""
    found = CON.execute(f"SELECT {draw_sql(seed, literal(uid))}").fetchone()
    assert found is not None
    assert int(found[0], 16) / 2**56 == draw(seed, uid)


CON = connect(tiny_dataset(f"memory://{uuid.uuid4().hex}", [Row("x")]))
