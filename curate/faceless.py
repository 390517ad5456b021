"""Faceless: the images of an export without what a scorer of kind `faces` has found in them.

An image that nobody has looked at must not be written as if it had no faces: unless the config
allows it, a pair without boxes ends the export before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curate.pictures.blur import Box, boxes_of, hidden
from curate.query import quote, select
from schemas.configs import ExportConfig

BLURRED = pa.field("faces_blurred", pa.int32())  # how many; null: the faces are not known
OF_BLURRING = frozenset({"blur_faces", "unknown_faces", "blur_quality"})
REASONS = 5  # named in an error
_JOIN = "LEFT JOIN {table} f ON f.uid = s.uid AND f.caption_id = f.uid"
_UNKNOWN = """
SELECT coalesce(f.error, 'not scored') AS reason, count(*) AS pairs
FROM {subset} s {join} WHERE f.face_boxes IS NULL GROUP BY 1 ORDER BY 2 DESC, 1
"""


def faces_sql(config: ExportConfig) -> str:
    """The join of pairs `s` with their boxes `f`; "" where none are to be blurred."""
    if config.blur_faces is None:
        return ""
    return _JOIN.format(table=quote(f"scores_{config.blur_faces}"))


def refuse_unknown(con: Any, config: ExportConfig) -> None:
    """Raises ValueError where pairs of the subset have no boxes, with how many and why."""
    subset = quote(f"subset_{config.subset}")
    found = select(con, _UNKNOWN.format(subset=subset, join=faces_sql(config))).to_pylist()
    if found:
        why = ", ".join(f"{row['pairs']} {row['reason']}" for row in found[:REASONS])
        raise ValueError(
            f"subset {config.subset!r}: {sum(row['pairs'] for row in found)} of its pairs have no "
            f"face boxes in scores_{config.blur_faces} ({why}); score them, drop them by a rule, "
            "or write them as they are with `unknown_faces: keep`"
        )


def faceless(uid: str, image: bytes, boxes: Sequence[Box] | None, kind: str, quality: int) -> bytes:
    """A stored image encoded anew with its faces blurred; its own bytes where it has none."""
    if not boxes:
        return image
    try:
        return hidden(image, boxes_of(boxes), kind, quality)
    except ValueError as error:
        raise ValueError(f"pair {uid}: its faces cannot be blurred: {error}") from error
