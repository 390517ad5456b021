"""Dedup: samples -> duplicates_*, matches_*, captions_copies, decisions_dedup.

Each finder writes its edges by bucket; see curate/duplicates. Then the pairs that have edges are
walked, the best one first: a pair stays unless it is a duplicate of one that stays already. So
every removed pair has a kept duplicate (what that promises is the finder's word), no chain removes
more, and no order of the input matters. Pairs that match an item of an evaluation set go before
all others (curate/contamination).

A later run searches what is new among all that is there and decides on the union of all edges. The
driver holds one small row per pair that has an edge, never one per pair of the pool.

Measured on a million pairs of which a tenth are copies, the whole stage in one process on 2 cores:
exact 8 s, url 6 s, perceptual 11 s (radius 6), text 68 s, each under 0.9 GB; semantic of 512
numbers 102 s, 3.5 GB (tests/bench/dedup.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import pyarrow as pa

from curate.claims import Claim, digest
from curate.contamination.match import decontaminate
from curate.dataset import Dataset
from curate.duplicates import KINDS, finder
from curate.duplicates.removed import NOBODY_SQL, rated, removed_pairs
from curate.duplicates.search import Search
from curate.duplicates.steps import next_step, note
from curate.engine import Stats, Work, run_parts, workers_for
from curate.extra_captions import COPIES, extra_captions
from curate.progress import progress
from schemas.configs import DedupConfig, DuplicatesConfig, Workers

SAME_IMAGE = ("exact", "perceptual")  # kinds whose copies lend their captions


def dedup(data: Dataset, config: DedupConfig | None, workers: Workers | int = 0) -> None:
    """Find duplicates among the downloaded pairs and decide which of them stay.

    config: None takes back what dedup decided in earlier versions.

    decisions_dedup has a row for every pair of `samples`. A pair that takes no part (not
    downloaded, or dropped by quality with `among: survivors`) gets keep = true: it is out for an
    earlier reason already. Reasons are evaluation_<name>, then duplicate_<name> of the finders in
    the order of their kinds, the first of these that holds. Workers are used from a million pairs
    on. Raises ValueError where there is no `samples`, where `keep_by` is no number over one row of
    `pairs`, or where a finder or an evaluation set misses what it reads.
    """
    data.parts("samples")
    if config is None:
        made = ("duplicates_", "codes_duplicates_", "matches_", "decisions_dedup", COPIES)
        data.retire(*(t for t in data.tables() if t.startswith(made)))
        return
    workers = workers_for(data.rows("samples"), workers)
    finders = sorted(config.finders, key=lambda f: KINDS.index(f.kind))
    _check(data, config)
    for one in finders:
        _find(data, one, workers)
    matches = decontaminate(data, config.evaluations, workers)
    deciding = [f for f in finders if f.name not in config.only_find]
    _decide(data, config, deciding, matches, workers)


def _check(data: Dataset, config: DedupConfig) -> None:
    """Fail before the search for edges rather than after it."""
    from curate.query import connect

    con = connect(data)
    try:
        rated(data, con, config, NOBODY_SQL, "LIMIT 0")
    finally:
        con.close()


# ------------------------------------------------------------------------------------ edges


def _find(data: Dataset, config: DuplicatesConfig, workers: Workers | int) -> None:
    name, kind = f"duplicates_{config.name}", finder(config)
    data.claim(name, config)  # a changed config is refused before anything is read
    step = next_step(data, name, kind.tables(config), workers)
    if step.scope is None:
        return
    search = kind.find(step.scope, config)
    key = note(data, name, step, config, search.buckets)
    claim = data.claim(name, config, artifact=key, append=step.number > 0)
    numbers = range(step.first, step.first + search.buckets)
    missing = data.missing(claim, numbers)
    run_parts(
        lambda: _worker(data, claim, search, step.first), missing, workers, label=f"find {name}"
    )
    data.publish(claim)


def _worker(data: Dataset, claim: Claim, search: Search, first: int) -> Work:
    def work(part: int) -> Stats:
        edges = search.edges(part - first)
        method = pa.repeat(search.method, edges.num_rows)
        data.write(claim, part, edges.append_column("method", method))
        return {"edges": edges.num_rows}

    return work


# ------------------------------------------------------------------------------------ decisions


def _decide(
    data: Dataset,
    config: DedupConfig,
    finders: Sequence[DuplicatesConfig],
    matches: Sequence[str],
    workers: Workers | int,
) -> None:
    of = [t for t in ("samples", "decisions_quality") if t in data.tables()]
    made = [*(f"duplicates_{f.name}" for f in finders), *matches]
    read = [t for t in data.tables() if f"{t}__" in config.keep_by]
    state = digest(data.fingerprint(sorted({*of, *made, *read})))
    removed = cache(partial(removed_pairs, data, config, finders, matches))
    claim = data.claim("decisions_dedup", config, of=of, artifact=state, revisable=True)
    if missing := data.missing(claim):
        with progress("dedup", len(missing)) as advance:
            for part in missing:
                rows = removed().decide(data.read("samples", part, ["uid"]))
                data.write(claim, part, rows)
                advance(rows.num_rows)
    if not config.extra_captions:
        data.publish(claim)
        data.retire(COPIES)
        return
    lending = [f"duplicate_{f.name}" for f in finders if f.kind in SAME_IMAGE]
    copies = data.claim(COPIES, config, of=("urls",), artifact=state, revisable=True)
    if data.missing(copies):
        extra_captions(data, removed().copies(lending), copies, workers)
    data.publish(claim, copies)
