"""Show: all tables -> what is known of one pair.

The last line is the verdict: in, out and why, or not decided yet. Every string is printable: what
the web wrote cannot steer the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from curate import query
from curate.dataset import Dataset
from curate.reporting.copies import near_sql, standing_sql
from curate.reporting.text import condition, is_unknown, measured, rule_of, rules_of, shown
from schemas.configs import Rule

if TYPE_CHECKING:
    import duckdb

SHORTEST = 6  # characters of a uid
_CANDIDATES = 5  # named where a prefix is ambiguous
_EDGES = 20  # of one kind of duplicates that are listed
_IMAGE = ("width", "height", "original_width", "original_height", "size", "sha256", "phash")
_STAGES = ("quality", "dedup", "select")
Row = dict[str, Any]


def show(data: Dataset, uid: str) -> str:
    """All that the tables say of one pair, as text that ends with the verdict.

    uid: 32 hex characters, or the first 6 or more of them.
    Raises ValueError where no pair or several have it.
    """
    if "urls" not in data.tables():
        raise ValueError(f"{data.root} has no pairs yet: ingest a list first")
    con = query.connect(data)
    try:
        return _Pair(con, data, _resolve(con, data, uid)).text()
    finally:
        con.close()


def _resolve(con: duckdb.DuckDBPyConnection, data: Dataset, uid: str) -> str:
    prefix = uid.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},32}}", prefix):
        raise ValueError(
            f"{uid!r} is no uid: give its 32 hex characters, or the first {SHORTEST} or more"
        )
    between = "uid >= ? AND uid < ? ORDER BY uid LIMIT ?"
    sql = f"SELECT uid, count(*) OVER () AS n FROM urls WHERE {between}"
    found = query.select(con, sql, [prefix, f"{prefix}g", _CANDIDATES]).to_pylist()
    if not found:
        raise ValueError(f"{data.root}, version {data.at}, has no pair with the uid {prefix!r}")
    if len(found) > 1:
        more = f" and {found[0]['n'] - len(found)} more" if found[0]["n"] > len(found) else ""
        raise ValueError(
            f"{prefix!r} begins {found[0]['n']} uids: {', '.join(r['uid'] for r in found)}{more}; "
            "give more of it"
        )
    return str(found[0]["uid"])


class _Pair:
    """One pair's rows, table by table."""

    def __init__(self, con: duckdb.DuckDBPyConnection, data: Dataset, uid: str) -> None:
        self.con, self.data, self.uid, self.tables = con, data, uid, query.views(data)
        self.deduped = "decisions_dedup" in self.tables
        self.rules = {rule.name: rule for rule in rules_of(data)}

    def text(self) -> str:
        sections = (
            self.identity(),
            self.sample(),
            self.captions(),
            *(self.scores(t) for t in self.family("scores_")),
            *(self.listed(t, t) for t in self.family("codes_")),
            self.failures(),
            *(self.duplicates(t) for t in self.family("duplicates_")),
            self.decisions(),
            *(self.subset(t) for t in self.family("subset_")),
            [self.verdict()],
        )
        return "\n\n".join("\n".join(lines) for lines in sections if lines)

    def family(self, prefix: str) -> list[str]:
        return [t for t in self.tables if t.startswith(prefix)]

    def rows(self, table: str, order: str = "uid") -> list[Row]:
        """The pair's rows of a table, [] where it is not there; of a list its type and length."""
        if table not in self.tables:
            return []
        described = self.con.execute(f"DESCRIBE {query.quote(table)}").fetchall()
        columns = ", ".join(_column(table, row[0], row[1]) for row in described)
        sql = f"SELECT {columns} FROM {query.quote(table)} WHERE uid = ? ORDER BY {order}"
        rows: list[Row] = query.select(self.con, sql, [self.uid]).to_pylist()
        return rows

    def first(self, table: str) -> Row | None:
        return next(iter(self.rows(table)), None)

    def identity(self) -> list[str]:
        row = self.first("urls") or {}
        facts = {k: v for k, v in row.items() if k != "caption" and (v is not None or k == "url")}
        seen = [f"{shown(s['batch'])} ({shown(s['n'])}×)" for s in self.rows("sightings", "batch")]
        return _facts("pair", facts | ({"sightings": ", ".join(seen)} if seen else {}))

    def sample(self) -> list[str]:
        row = self.first("samples")
        if row is None:
            return ["image", "  not downloaded yet"]
        wanted = ("status", "error_message", "attempts", *_IMAGE)
        return _facts("image", {k: row[k] for k in wanted if row[k] is not None})

    def captions(self) -> list[str]:
        lines = ["captions", f"  original  {_quoted((self.first('urls') or {}).get('caption'))}"]
        for table in self.family("captions_"):
            for row in self.rows(table, "caption_id"):
                text = (
                    _quoted(row["caption"])
                    if row["error"] is None
                    else f"error: {shown(row['error'])}"
                )
                lines.append(f"  {shown(row['origin'])}  {text}")
                lines.append(
                    f"    by {shown(row['generator'])}, caption_id {shown(row['caption_id'])}, "
                    f"seed {shown(row['seed'])}"
                )
        return lines

    def scores(self, table: str) -> list[str]:
        lines: list[str] = []
        for row in self.rows(table, f"caption_id <> {query.literal(self.uid)}, caption_id"):
            of = "" if row["caption_id"] == self.uid else f" of caption {row['caption_id']}"
            lines += _facts(
                table + of,
                {k: v for k, v in row.items() if k not in ("uid", "caption_id")},
                drop_null=("error",),
            )
        return lines

    def listed(self, table: str, title: str) -> list[str]:
        row = self.first(table)
        return _facts(title, {k: v for k, v in row.items() if k != "uid"}) if row else []

    def failures(self) -> list[str]:
        rows = self.rows("rules_failed", "rule")
        return (
            [
                "rules failed",
                *(
                    f"  {shown(r['rule'])}: {self.why(rule_of(r['rule']), r['value'])}"
                    for r in rows
                ),
            ]
            if rows
            else []
        )

    def why(self, name: str, value: str | None) -> str:
        """What a rule saw: `scores_clip__clip_score = 0.21; drops below 0.28`."""
        rule: Rule | None = self.rules.get(name)
        if rule is None or rule.drop_if is not None:
            seen = "" if value is None else f"value = {measured(value)}"
        else:
            seen = f"{rule.subject} = {measured(value) or 'unknown'}"
        return "; ".join(t for t in (seen, f"drops {condition(rule)}" if rule else "") if t)

    def edges(self, table: str) -> list[Row]:
        """Duplicates of the pair: those that stay first, then the nearest; `n` is how many."""
        near = near_sql(table, self.uid)
        keep = f"LEFT JOIN ({standing_sql(self.data)}) d ON d.uid = other" if self.deduped else ""
        sql = f"""SELECT other, distance, kind, {"d.keep" if keep else "NULL"} AS keep,
                count(*) OVER () AS n
            FROM ({near}) {keep} ORDER BY keep DESC NULLS LAST, distance, other LIMIT {_EDGES}"""
        rows: list[Row] = query.select(self.con, sql).to_pylist()
        return rows

    def duplicates(self, table: str) -> list[str]:
        edges = self.edges(table)
        lines = [
            f"  {e['other']}  distance {shown(e['distance'])}{_stays(e['keep'])}" for e in edges
        ]
        more = (
            [f"  and {edges[0]['n'] - len(edges)} more"]
            if edges and edges[0]["n"] > len(edges)
            else []
        )
        return [table, *lines, *more] if edges else []

    def decisions(self) -> list[str]:
        lines = []
        for stage in _STAGES:
            if f"decisions_{stage}" in self.tables:
                row = self.first(f"decisions_{stage}")
                said = (
                    "not decided"
                    if row is None
                    else "keep"
                    if row["keep"]
                    else f"drop: {shown(row['reason'])}"
                )
                lines.append(f"  {stage:<8}  {said}")
        return ["decisions", *lines] if lines else []

    def subset(self, table: str) -> list[str]:
        row = self.first(table)
        if row is None:
            return []
        seen = self.seen_in_training(table)
        return (
            _facts(
                table, {k: row[k] for k in ("rank", "weight", "cluster") if row.get(k) is not None}
            )
            + seen
        )

    def seen_in_training(self, table: str) -> list[str]:
        captions = f"SELECT unnest(captions) AS c FROM {query.quote(table)} WHERE uid = ?"
        sql = f"SELECT c.text AS text, c.weight AS weight FROM ({captions})"
        return [
            f"  trains with {_quoted(r['text'])}, weight {shown(r['weight'])}"
            for r in query.select(self.con, sql, [self.uid]).to_pylist()
        ]

    def verdict(self) -> str:
        sample = self.first("samples")
        if sample is None:
            return "undecided: not downloaded yet"
        if sample["status"] != "success":
            error = f": {shown(sample['error_message'])}" if sample["error_message"] else ""
            return f"out: {shown(sample['status'])}{error}"
        decided = [stage for stage in _STAGES if f"decisions_{stage}" in self.tables]
        for stage in decided:
            row = self.first(f"decisions_{stage}")
            if row is None:
                return f"undecided: {stage} not decided yet"
            if not row["keep"]:
                return f"out: {self.dropped(stage, str(row['reason']))}"
        subsets = [t.removeprefix("subset_") for t in self.family("subset_") if self.first(t)]
        return (
            "in: kept by "
            + _and(["download", *decided])
            + (f"; in {_and(['subset ' + s for s in subsets])}" if subsets else "")
        )

    def instead(self, reason: str) -> str:
        """Which pair stays for it, or which item of an evaluation set it shows."""
        kind, _, name = reason.partition("_")
        if kind == "evaluation":
            items = self.rows(f"matches_{name}")
            return "".join(f"; {i['method']} of {shown(i['item'])}" for i in items[:1])
        row = self.first("decisions_dedup")
        other = row["duplicate_of"] if row else None
        edges = [e for e in self.edges(f"duplicates_{name}") if e["other"] == other]
        return "".join(f"; {name} copy of {other} (distance {shown(e['distance'])})" for e in edges)

    def dropped(self, stage: str, reason: str) -> str:
        if stage == "dedup":
            return f"dropped by dedup: {shown(reason)}" + self.instead(reason)
        if stage == "select":
            return f"dropped by select: {shown(reason)}"
        name = rule_of(reason)
        rule = self.rules.get(name)
        value = next(
            (measured(r["value"]) for r in self.rows("rules_failed") if r["rule"] == reason), None
        )
        column = rule.subject if rule else "value"
        if is_unknown(reason):
            return f"quality rule {shown(name)} could not be judged ({column} is unknown)"
        said = column if rule and rule.drop_if is not None else f"{column} = {value}"
        return f"dropped by quality rule {shown(name)} ({said})"


def _column(table: str, name: str, kind: str) -> str:
    """SQL of a column; of a list its type and length, of bytes their number. Embeddings are
    float16; DuckDB widens.
    """
    if kind == "BLOB":
        return f"octet_length({query.quote(name)}) || ' bytes' AS {query.quote(name)}"
    if not kind.endswith("]"):
        return query.quote(name)
    element = "float16" if table.startswith("scores_") else kind.split("[", maxsplit=1)[0].lower()
    if kind.startswith("STRUCT"):
        element = "list"
    return f"'{element}[' || len({query.quote(name)}) || ']' AS {query.quote(name)}"


def _facts(title: str, facts: Mapping[str, Any], drop_null: Iterable[str] = ()) -> list[str]:
    rows = {k: v for k, v in facts.items() if v is not None or k not in drop_null}
    width = max((len(k) for k in rows), default=0)
    return [title, *(f"  {shown(k):<{width}}  {shown(v)}" for k, v in rows.items())]


def _quoted(text: object) -> str:
    return "(none)" if text is None else f'"{shown(text)}"'


def _stays(keep: bool | None) -> str:
    return {True: ", stays", False: ", dropped", None: ""}[keep]


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
