"""What the codebook captioner is trained on: the pool's survivors and clean captions, as arrays.

Images are files mapped into memory, so that neither pool nor clean set have to fit into it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.fits.bootstrap import folds_of
from curate.metrics.sets import captioned, pixels
from curate.query import connect, select
from curate.shards import batches
from curate.wds import Folder
from schemas.configs import CodebookCaptioner

if TYPE_CHECKING:
    from models.codebook_training import Pairs

TABLES = ("urls", "samples", "decisions_quality")
GRAINS = 1000  # in which the share that is held out is counted

_SAMPLED = r"""
SELECT s.uid, s.sha256, u.caption
FROM samples s JOIN urls u ON u.uid = s.uid {survivors}
WHERE s.status = 'success' AND regexp_matches(u.caption, '[^\s\p{{Z}}]')
ORDER BY sha256(concat(?::VARCHAR, chr(0), s.uid)) LIMIT ?
"""
_SURVIVORS = "JOIN decisions_quality d ON d.uid = s.uid AND d.keep"


def plan(data: Dataset, config: CodebookCaptioner) -> pa.Table:
    """uid, sha256, caption and whether the pair is held out, by uid.

    At most `max_pairs` downloaded pairs with a caption that the rules let pass, those with the
    lowest hash(seed, uid). Pairs with equal bytes or captions are all held out or none, by the hash
    of their lowest uid. Raises ValueError where that leaves nothing to train on.
    """
    survivors = _SURVIVORS if "decisions_quality" in data.tables() else ""
    con = connect(data)
    rows = select(
        con, _SAMPLED.format(survivors=survivors), [str(config.seed), config.max_pairs]
    ).sort_by("uid")
    con.close()
    uids, hashes, captions = (rows[c].to_pylist() for c in ("uid", "sha256", "caption"))
    folds = np.array(folds_of(uids, hashes, captions, GRAINS, config.seed), np.int64)
    least = int(folds.min(initial=GRAINS)) + 1  # one group at least
    held_out = folds < max(round(config.validation * GRAINS), least)
    if not len(folds) or held_out.all():
        raise ValueError(
            f"captioner {config.name!r} trains on the pool; of the {len(folds)} surviving pairs of "
            f"{data.root} with a caption {held_out.sum()} are held out, with all that share their "
            "caption or image: nothing is left; use more pairs, or `kind: hf`"
        )
    return rows.append_column("held_out", pa.array(held_out, pa.bool_()))


def pool_pairs(
    data: Dataset, rows: list[dict[str, Any]], side: int, file: Path
) -> tuple[Pairs, list[str]]:
    """These rows of a plan with their images, uint8 (n, side, side, 3), in `file`; their uids.

    An image that cannot be decoded leaves its pair out.
    """
    from models.bootstrap import to_small
    from models.codebook_training import Pairs

    place = {row["uid"]: at for at, row in enumerate(rows)}
    images, there = _file(file, len(rows), side), np.zeros(len(rows), bool)
    for part in sorted(data.parts("samples")):
        uids = data.read("samples", part, ["uid"])["uid"].to_pylist()
        for batch in batches(data, part, keep=[u in place for u in uids]):
            for uid, image in zip(batch.uids, batch.images, strict=True):
                if image is not None:
                    images[place[uid]] = to_small(image, side)
                    there[place[uid]] = True
    kept = [row for row, found in zip(rows, there, strict=True) if found]
    whole = images if there.all() else images[there]
    return Pairs(whole, [row["caption"] for row in kept]), [row["uid"] for row in kept]


def clean_pairs(path: str, side: int, file: Path) -> Pairs:
    """A clean set, an image once per caption that it has."""
    from models.bootstrap import to_small
    from models.codebook_training import Pairs

    sources, captions = captioned(path)
    images, at = _file(file, sum(map(len, captions)), side), 0
    try:
        for image, own in zip(pixels(sources), captions, strict=True):
            images[at : at + len(own)] = to_small(image, side)
            at += len(own)
    except ValueError as error:
        raise ValueError(f"clean {path}: {error}") from error
    return Pairs(images, [text for own in captions for text in own])


def clean_captions(path: str | None) -> list[str]:
    """All captions of a clean set; [] where there is none."""
    return [] if path is None else [text for own in captioned(path)[1] for text in own]


def clean_state(path: str | None) -> str:
    """A hash that changes with a clean set's file or shards; "" where there is none."""
    if path is None:
        return ""
    if path.endswith(".parquet"):
        if not Path(path).is_file():
            raise ValueError(f"clean {path}: no such file; give a parquet or a WebDataset folder")
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    inner = Path(path, "test")
    return Folder(str(inner) if any(inner.glob("*.tar")) else path).state()


def read_plan(data: Dataset, folder: str) -> list[dict[str, Any]]:
    """The rows of the plan in an artifact."""
    with data.fs.open(f"{folder}/pairs.parquet", "rb") as stream:
        rows: list[dict[str, Any]] = pq.read_table(stream).to_pylist()
    return rows


def _file(path: Path, count: int, side: int) -> Any:
    """uint8 (count, side, side, 3) in a file; in memory where there is nothing to map."""
    if not count:
        return np.empty((0, side, side, 3), np.uint8)
    return np.lib.format.open_memmap(path, "w+", np.uint8, (count, side, side, 3))
