"""Compress: decisions, scores_* -> subset_*, decisions_select.

A selector (curate/selectors) says which pairs, `choose` which of their captions training sees. The
selection is SQL that DuckDB runs out of core into an artifact sorted by part; each part of a
subset is then written from its slice, so nobody holds a row per pair of the pool. Measured on 200
000 pairs (a quarter taken, two busy cores): random 10 s, top 5 s, cluster 44 s (447 clusters, 128
dimensions).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.captions import caption_tables, captions_of, effective
from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts, workers_for
from curate.selectors import SELECTORS
from curate.selectors.pool import STAGES, Pool, contents, pool_sql, tables_of
from schemas.configs import ChooseCaption, SelectorConfig, Workers
from schemas.tables import SUBSET

log = logging.getLogger(__name__)


def compress(
    data: Dataset,
    selectors: Sequence[SelectorConfig],
    choose: ChooseCaption,
    workers: Workers | int = 0,
) -> None:
    """Write subset_<name> of every selector, and decisions_select of the first one.

    choose: for the selectors that have none of their own; its token budget is for all of them.

    Every part of `urls` has a part in each subset, maybe without rows. In decisions_select, a
    survivor that the first selector leaves out is dropped with `not selected by <name>`; a pair
    that is out already gets keep = true. Workers are used from a million pairs on. Raises
    ValueError where there is no `samples`, or for a `like`, `by` or `embeddings` that is not there.
    """
    data.parts("samples")
    if not selectors:
        data.retire("decisions_select")  # of an earlier recipe: now every survivor is in
    workers = workers_for(data.rows("samples"), workers)
    for at, config in enumerate(selectors):
        _check_like(data, selectors, at)
        claim = _subset(data, config, choose, workers)
        data.publish(claim)
        if at == 0:
            data.publish(_decide(data, config, claim.table, workers))


def _check_like(data: Dataset, selectors: Sequence[SelectorConfig], at: int) -> None:
    like, name = getattr(selectors[at], "like", None), selectors[at].name
    if like is None:
        return
    later = [s.name for s in selectors[at:]]
    subsets = [t.removeprefix("subset_") for t in data.tables() if t.startswith("subset_")]
    if like in later or like not in subsets:
        known = ", ".join(s for s in subsets if s not in later) or "none yet"
        raise ValueError(
            f"selector {name!r}: like: {like!r} is no subset made before it; there are {known}; "
            "list it earlier, or give a fraction or count"
        )


# ------------------------------------------------------------------------------------ who


def _subset(
    data: Dataset, config: SelectorConfig, choose: ChooseCaption, workers: Workers | int
) -> Claim:
    name, choose = f"subset_{config.name}", effective(config.choose, choose)
    captions = caption_tables(data, choose)
    made_of = [config.claimed(), data.fingerprint(_inputs(data, config)), *contents(config)]
    state = digest(made_of)
    made_from = digest([state, choose.claimed(), data.fingerprint(captions)])
    claim = data.claim(name, config, of=("urls",), artifact=made_from)
    if missing := data.missing(claim):
        folder = data.artifact(name, state, partial(_select, data, config, state, workers))

        def build() -> Work:
            return partial(_write, data, claim, f"{folder}/selection.parquet", choose, captions)

        run_parts(build, missing, workers, label=f"select {config.name}")
    return claim


def _inputs(data: Dataset, config: SelectorConfig) -> list[str]:
    """The tables that the selection depends on."""
    tables = tables_of(data, _of_survivors(config))
    if config.kind == "balance":
        tables.append("urls")
    for column in (getattr(config, knob, None) for knob in ("by", "itm_by")):
        tables += [t for t in data.tables() if column and column.startswith(f"{t}__")]
    for knob, family in (("embeddings", "scores"), ("codes", "codes"), ("like", "subset")):
        if name := getattr(config, knob, None):
            tables.append(f"{family}_{name}")
    return tables


def _of_survivors(config: SelectorConfig) -> bool:
    return getattr(config, "pool", "survivors") == "survivors"


def _select(
    data: Dataset, config: SelectorConfig, state: str, workers: Workers | int, folder: str
) -> None:
    """Run the selector; its pairs go to selection.parquet: part, uid, cluster, rank, sorted by
    part and uid.
    """
    from curate.query import connect, literal, select

    con = connect(data)
    try:
        con.execute(f"CREATE TEMP VIEW pool AS {pool_sql(data, _of_survivors(config))}")
        rows = select(con, "SELECT count(*) AS n FROM pool")["n"][0].as_py()
        asked = size_of(data, config, rows)
        pool = Pool(data, con, rows, min(asked, rows), state, workers)
        chosen = SELECTORS[config.kind](pool, config)
        body = f"SELECT part, c.* FROM ({chosen}) c JOIN pool USING (uid) ORDER BY part, uid"
        file = f"{folder}/selection.parquet"
        con.execute(f"COPY ({body}) TO {literal(file)} (FORMAT parquet)")
    finally:
        con.close()
    if (found := pq.read_metadata(file).num_rows) < asked:
        log.warning(
            "selector %s: %d pairs were asked for, %d can be had", config.name, asked, found
        )


def size_of(data: Dataset, config: SelectorConfig, rows: int) -> int:
    """How many pairs a selector asks for, of a pool of `rows`. A fraction is read as it is
    written.
    """
    if config.kind == "all":
        return rows
    if config.fraction is not None:
        return math.floor(rows * Fraction(repr(config.fraction)))
    return config.count if config.count is not None else data.rows(f"subset_{config.like}")


# ------------------------------------------------------------------------------------ written


def _write(
    data: Dataset,
    claim: Claim,
    selection: str,
    choose: ChooseCaption,
    tables: Sequence[str],
    part: int,
) -> Stats:
    with data.fs.open(selection, "rb") as stream:
        chosen = pq.read_table(stream, filters=[("part", "=", part)]).to_pylist()
    captions = captions_of(choose, data, part, {row["uid"] for row in chosen}, tables)
    rows = [
        {
            "uid": row["uid"],
            "weight": 1.0,
            "cluster": row["cluster"],
            "rank": row["rank"],
            "captions": captions[row["uid"]],
        }
        for row in chosen
    ]
    data.write(claim, part, pa.Table.from_pylist(rows, SUBSET))
    return {"rows": len(rows)}


def _decide(data: Dataset, config: SelectorConfig, subset: str, workers: Workers | int) -> Claim:
    of = [t for t in ("samples", *STAGES, subset) if t in data.tables()]
    claim = data.claim("decisions_select", config, of=of, revisable=True)
    reason = f"not selected by {config.name}"
    missing = data.missing(claim)
    run_parts(lambda: partial(_decide_part, data, claim, reason), missing, workers, label="decide")
    return claim


def _decide_part(data: Dataset, claim: Claim, reason: str, part: int) -> Stats:
    samples = data.read("samples", part, ["uid", "status"]).to_pylist()
    survivors = {row["uid"] for row in samples if row["status"] == "success"}
    for stage in (t for t in claim.of if t in STAGES):
        decided = data.read(stage, part, ["uid", "keep"]).to_pylist()
        survivors &= {row["uid"] for row in decided if row["keep"]}
    dropped = survivors - set(data.read(claim.of[-1], part, ["uid"])["uid"].to_pylist())
    columns: dict[str, list[Any]] = {
        "uid": [row["uid"] for row in samples],
        "keep": [row["uid"] not in dropped for row in samples],
        "reason": [reason if row["uid"] in dropped else None for row in samples],
    }
    data.write(
        claim, part, pa.table(columns | {"reason": pa.array(columns["reason"], pa.string())})
    )
    return {"rows": len(samples)}
