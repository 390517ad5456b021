"""The demo's pool on disk: the list of URLs, the truth about it, and what the web serves.

    urls.parquet      url, caption, page_title: all that the curation may see
    truth.parquet     what was planted (see plan.py)
    held_out.parquet  clean drawings of other families, for validation
    web.json          path -> file, and how web.py answers
    files/            the pictures
    pool.json         the arguments and counts, written last: what makes the pool whole

The same seed and base URL give the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.demo.drawings import Drawing, all_drawings, caption, take_families
from curate.demo.pictures import clean, make, write_beside
from curate.demo.plan import DEAD_KINDS, Pair, plan
from schemas.tables import draw

POOL_VERSION = 1  # raise by hand when the same arguments give another pool
URLS = pa.schema([("url", pa.string()), ("caption", pa.string()), ("page_title", pa.string())])
TRUTH = pa.schema(
    [
        ("url", pa.string()),
        ("caption", pa.string()),
        ("drawing", pa.string()),  # code of what the image shows
        ("family", pa.string()),  # of that drawing
        ("kind", pa.string()),  # as plan.py names them
        ("of", pa.string()),  # URL that a copy copies
        ("natural_group", pa.string()),  # family with several members in the pool
    ]
)
HELD_OUT = pa.schema(
    [
        ("image", pa.binary()),
        ("caption", pa.string()),
        ("label", pa.string()),
        ("name", pa.string()),
    ]
)


@dataclass(frozen=True)
class PoolSummary:
    """What a pool holds and where: pairs by kind, drawings, files."""

    counts: dict[str, int]  # pairs by kind
    pairs: int
    drawings: int  # in the pool, without the held-out ones
    held_out_drawings: int
    natural: int  # pairs that have natural near-duplicates in the pool
    base_url: str
    urls: Path
    truth: Path
    held_out: Path
    web: Path


def make_pool(
    out: Path, *, drawings: int | None, held_out: int, seed: int, base_url: str
) -> PoolSummary:
    """Write a pool into `out`; what is there already stays.

    `drawings` limits how many are used altogether, the `held_out` ones included (None: all, 3 932);
    whole families are taken, natural near-duplicates in the proportion of the whole. Cost: about
    7 ms of one core per picture, in two processes. Raises ValueError where there are fewer drawings
    than asked for, or too few to swap captions between families.
    """
    arguments = {
        "version": POOL_VERSION,
        "drawings": drawings,
        "held_out": held_out,
        "seed": seed,
        "base_url": base_url,
    }
    made = _made(out, arguments)
    if made is not None:
        return made
    (out / "pool.json").unlink(missing_ok=True)  # another pool's, if any: this one is not whole yet
    known = all_drawings()
    used = known if drawings is None else take_families(known, drawings, seed, "drawings")
    validation = take_families(used, held_out, seed, "held_out")
    names = {d.code for d in validation}
    pairs = plan([d for d in used if d.code not in names], seed, base_url)
    pictures = [p.picture for p in pairs] + [clean(d.code, seed) for d in validation]
    make(pictures, out / "files", processes=2)
    _write_tables(out, pairs, validation, seed)
    return _finish(out, arguments, pairs, validation)


def base_url_of(out: Path) -> str | None:
    """Where the pool in `out` expects to be served: a second run must use the same port."""
    if not (out / "pool.json").is_file():
        return None
    found = json.loads((out / "pool.json").read_text(encoding="utf-8"))
    return str(found["arguments"]["base_url"])


def _write_tables(
    out: Path, pairs: Sequence[Pair], validation: Sequence[Drawing], seed: int
) -> None:
    members = Counter(d.family for d in {p.drawing for p in pairs})
    titles = [
        {"page_title": f"Pictures, page {1 + int(draw(seed, f'{p.drawing.code}/page') * 500)}"}
        for p in pairs
    ]
    _write(
        out / "urls.parquet", [_columns(p) | t for p, t in zip(pairs, titles, strict=True)], URLS
    )
    truth = [
        _columns(p) | {"natural_group": p.drawing.family if members[p.drawing.family] > 1 else None}
        for p in pairs
    ]
    _write(out / "truth.parquet", truth, TRUTH)
    held = [
        {
            "image": (out / "files" / clean(d.code, seed).file).read_bytes(),
            "caption": caption(d, seed),
            "label": d.category,
            "name": d.name,
        }
        for d in sorted(validation, key=lambda d: draw(seed, f"{d.code}/row"))
    ]
    _write(out / "held_out.parquet", held, HELD_OUT)
    write_beside(out / "web.json", _json(_web(pairs)))


def _columns(pair: Pair) -> dict[str, Any]:
    return {
        "url": pair.url,
        "caption": pair.caption,
        "drawing": pair.drawing.code,
        "family": pair.drawing.family,
        "kind": pair.kind,
        "of": pair.of,
    }


def _web(pairs: Sequence[Pair]) -> dict[str, dict[str, str]]:
    """Path -> file and how it is answered."""
    return {
        "/" + p.url.split("/", 3)[3]: {
            "file": p.picture.file,
            "how": p.kind if p.kind in DEAD_KINDS else "ok",
        }
        for p in sorted(pairs, key=lambda p: p.url)
    }


def _finish(
    out: Path, arguments: dict[str, Any], pairs: Sequence[Pair], validation: Sequence[Drawing]
) -> PoolSummary:
    members = Counter(d.family for d in {p.drawing for p in pairs})
    facts = {
        "counts": dict(sorted(Counter(p.kind for p in pairs).items())),
        "pairs": len(pairs),
        "drawings": sum(members.values()),
        "held_out_drawings": len(validation),
        "natural": sum(members[p.drawing.family] > 1 for p in pairs),
    }
    write_beside(out / "pool.json", _json({"arguments": arguments, "facts": facts}))
    return _summary(out, arguments, facts)


def _made(out: Path, arguments: dict[str, Any]) -> PoolSummary | None:
    """The pool that is there, if these arguments made it and no file is gone."""
    if not (out / "pool.json").is_file():
        return None
    found = json.loads((out / "pool.json").read_text(encoding="utf-8"))
    if found["arguments"] != arguments:
        return None
    summary = _summary(out, arguments, found["facts"])
    tables = (summary.urls, summary.truth, summary.held_out, summary.web)
    if not all(path.is_file() for path in tables):
        return None
    there = {path.name for path in (out / "files").glob("*")}
    plan_of_web = json.loads(summary.web.read_text(encoding="utf-8"))
    return summary if all(page["file"] in there for page in plan_of_web.values()) else None


def _summary(out: Path, arguments: dict[str, Any], facts: dict[str, Any]) -> PoolSummary:
    return PoolSummary(
        **facts,
        base_url=arguments["base_url"],
        urls=out / "urls.parquet",
        truth=out / "truth.parquet",
        held_out=out / "held_out.parquet",
        web=out / "web.json",
    )


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    write_beside(path, buffer.getvalue())


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
