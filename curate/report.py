"""Report: all tables -> one self-contained HTML page.

Funnel, distributions with the rules' thresholds, what the selection does to concepts, languages,
hosts and sizes, examples of what each rule dropped and only just kept, groups of duplicates,
generated captions beside the originals, training results, tables. Counted by DuckDB; only examples
come into this process. The page has no script and may load nothing; whatever the web wrote is text
in it.
Cost per million pairs: 3 CPU seconds with one rule (measured with no duplicates), 8 for what a
selection does, 3 for a captioner.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from fsspec.implementations.local import LocalFileSystem

from curate import query, storage
from curate.dataset import Dataset
from curate.funnel import funnel
from curate.reporting.balance import balance
from curate.reporting.captions import captions
from curate.reporting.charts import compared_svg, funnel_svg, histogram_svg
from curate.reporting.examples import duplicate_groups, rule_examples
from curate.reporting.histograms import histograms
from curate.reporting.text import condition, number, printable, rules_of
from schemas.configs import CurationConfig

if TYPE_CHECKING:
    import duckdb

_MEASURED = """
SELECT metric, subset, avg(value) AS mean, stddev_samp(value) AS std, count(*) AS n FROM (
  SELECT run, metric, subset, seed, arg_max(value, coalesce(step, 0)) AS value
  FROM metrics WHERE isfinite(value) GROUP BY ALL
) GROUP BY metric, subset ORDER BY metric, subset
"""


def report(
    data: Dataset,
    out: str | Path,
    recipe: CurationConfig | None = None,
    examples: int = 8,
    subset: str | None = None,
) -> Path:
    """Write the page to `out`, whole or not at all, and return its path.

    Equal versions give equal bytes.
    recipe: shown on the page. examples: pairs per rule and side, and groups of duplicates. subset:
    the one that is compared with the pool; else that of `decisions_select`, else the first.
    Raises ValueError where nothing has been ingested, or for a subset that is not there.
    """
    rows = funnel(data)
    con = query.connect(data)
    try:
        tables = query.views(data)
        compared = balance(con, data, subset)
        rules = rules_of(data)
        page = _page().render(
            root=str(data.root),
            version=data.at,
            rows=rows,
            funnel=funnel_svg(rows),
            histograms=[(h, histogram_svg(h)) for h in histograms(con, rules, tables)],
            balance=compared,
            plots=[(p, compared_svg(p.drawing)) for p in (compared.plots if compared else ())],
            rules=rule_examples(con, data, rules, examples),
            groups=duplicate_groups(con, data, examples),
            captions=captions(con, data),
            metrics=metrics_table(con) if "metrics" in tables else None,
            tables=list(_tables(data)),
            recipe=_yaml(recipe),
        )
    finally:
        con.close()
    path = Path(out)
    storage.replace(LocalFileSystem(), str(path), page.encode())
    return path


def _page() -> Any:
    """The template. What it prints is made printable, then escaped; SVGs of ours are markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("curate"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters.update(condition=condition, number=number, bytes=_bytes)
    return page.get_template("report.html.j2")


def metrics_table(con: duckdb.DuckDBPyConnection) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """(subsets, [(metric, "mean ± std (n)" per subset)]) of runs and seeds at their last steps."""
    found = query.select(con, _MEASURED).to_pylist()
    subsets = sorted({row["subset"] or "-" for row in found})
    cells: dict[str, dict[str, str]] = {}
    for row in found:
        spread = "" if row["std"] is None else f" ± {_digits(row['std'])}"
        said = f"{_digits(row['mean'])}{spread} ({row['n']})"
        cells.setdefault(row["metric"], {})[row["subset"] or "-"] = said
    return subsets, [(metric, [of.get(s, "") for s in subsets]) for metric, of in cells.items()]


def _digits(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else number(value)  # noqa: PLR2004 - shares, or percent


def _tables(data: Dataset) -> Iterator[tuple[str, int, int, int]]:
    """(table, rows, parts, bytes) of this version."""
    for table in data.tables():
        parts = data.parts(table)
        names = {part.file for part in parts.values()}
        listed = data.fs.ls(f"{data.path}/{table}", detail=True)
        size = sum(f["size"] for f in listed if str(f["name"]).rsplit("/", 1)[-1] in names)
        yield table, data.rows(table), len(parts), size


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004 - SI prefixes
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _yaml(recipe: CurationConfig | None) -> list[str]:
    if recipe is None:
        return []
    return yaml.safe_dump(
        recipe.model_dump(mode="json", exclude_defaults=True), sort_keys=False
    ).splitlines()
