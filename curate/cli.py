"""The `curate` command. Heavy imports are local: `curate --help` answers at once.

The one file here that may import flows: it is the door, and both lie behind it.
"""

from __future__ import annotations

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

# No calls home, and no start-up that a small machine cannot make in time; a value that is set
# already is kept.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

app = typer.Typer(
    name="curate",
    help="Turn a list of image-text URLs into a small, aligned, deduplicated training set.\n\n"
    "Start with `curate demo`, which needs no data, GPU or model of yours; then write a recipe "
    "(YAML, see flows/configs/) and `curate run` it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Root = Annotated[str, typer.Argument(help="Dataset: a folder or any fsspec URL.")]
Recipe = Annotated[Path, typer.Argument(help="Recipe: a YAML file, see flows/configs/.")]
Version = Annotated[int | None, typer.Option(help="Read this version instead of the newest.")]


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Of(StrEnum):
    pool = "pool"
    survivors = "survivors"
    recipe = "recipe"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path(
        "curate-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the planted faults and all draws.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer drawings, shorter training.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Ray workers; 0 runs in this process.")] = 2,
) -> None:
    """Curate a real pool with planted faults, train on the result, and say what was caught."""
    from flows.demo import run_demo

    print(run_demo(out, seed=seed, quick=quick, workers=workers))


@app.command()
def run(
    recipe: Recipe,
    root: Annotated[str | None, typer.Option(help="Dataset, instead of the recipe's.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray workers, instead of the recipe's; 0: none.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")
    ] = False,
) -> None:
    """Run a recipe: every stage that it names, from where the last run stopped."""
    config = _recipe(recipe, root, workers)
    if dry_run:
        from flows.plan import plan

        print(plan(config))
        return
    from curate.dataset import Dataset
    from curate.funnel import funnel, funnel_table
    from flows.curation import curation

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    metrics = curation(config)
    print(funnel_table(funnel(Dataset(config.root))))
    if metrics is not None:
        from curate.ablate import summary

        print(f"\n{summary(metrics)}")


@app.command()
def ingest(
    root: Root,
    path: Annotated[list[str], typer.Argument(help="Files, folders or globs; any fsspec URL.")],
    format: Annotated[str, typer.Option(help="Of the list; auto looks at the names.")] = "auto",
    url_column: Annotated[str | None, typer.Option(help="Else url, URL, image_url ...")] = None,
    caption_column: Annotated[str | None, typer.Option(help="Else caption, TEXT, alt ...")] = None,
    sample: Annotated[float, typer.Option(help="Share of the URLs, by their hash.")] = 1.0,
    batch: Annotated[str | None, typer.Option(help="Its name; else from the files.")] = None,
) -> None:
    """Take a list of URLs, or folders of shards, into a dataset."""
    from curate.dataset import Dataset
    from curate.ingest import ingest as stage
    from schemas.configs import IngestConfig

    given = {"url_column": url_column, "caption_column": caption_column, "batch": batch}
    config = IngestConfig.model_validate({"path": path, "format": format, "sample": sample} | given)
    data = Dataset(root)
    name = stage(data, config)
    print(f"{root}: batch {name}, {data.rows('urls'):,} pairs in all")


@app.command()
def download(
    recipe: Recipe,
    root: Annotated[str | None, typer.Option(help="Dataset, instead of the recipe's.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try the failed rows again.")
    ] = False,
    status: Annotated[
        list[str] | None,
        typer.Option(
            help="Retry only these: failed_to_download, failed_to_resize, or an error message, "
            "with * for any text: 'timed out', 'HTTP Error 5*'. May be given several times."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray workers, instead of the recipe's.")
    ] = None,
) -> None:
    """Download what is missing, or only what failed before, and say what came and what did not."""
    from curate.dataset import Dataset
    from curate.download import download as stage
    from curate.traffic import traffic_table

    if status and not retry_failed:
        raise ValueError("--status says which failed rows to try again: add --retry-failed")
    config = _recipe(recipe, root, workers)
    came = stage(
        Dataset(config.root),
        config.download,
        config.workers,
        retry_failed=retry_failed,
        statuses=status or [],
    )
    print(traffic_table(came))


@app.command("filter")
def decide(
    recipe: Recipe,
    root: Annotated[str | None, typer.Option(help="Dataset, instead of the recipe's.")] = None,
    what_if: Annotated[
        bool, typer.Option("--what-if", help="Say what would be kept, and change nothing.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="With --what-if: RULE.KNOB=VALUE. May be given several times."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray workers, instead of the recipe's.")
    ] = None,
) -> None:
    """Decide by the recipe's rules; or ask, in seconds, what others would keep."""
    from curate.dataset import existing
    from curate.filter import filter_pairs
    from curate.what_if import changed, decided, told
    from curate.what_if import what_if as ask

    config = _recipe(recipe, root, workers)
    if changes and not what_if:
        raise ValueError("--set is for --what-if; to decide so, write it in the recipe")
    rules = changed(config.rules, changes or [])
    data = existing(config.root)
    if what_if:
        print(told(ask(data, rules)))
        return
    filter_pairs(data, rules, config.workers)
    print(decided(data))


@app.command()
def tune(
    recipe: Recipe,
    rule: Annotated[str, typer.Argument(help="Rule of the recipe, with a threshold or fraction.")],
    keep: Annotated[
        list[float], typer.Option(help="Fraction to keep. May be given several times.")
    ],
    of: Annotated[
        Of | None, typer.Option(help="What it is a fraction of; else as the rule has it.")
    ] = None,
    root: Annotated[str | None, typer.Option(help="Dataset, instead of the recipe's.")] = None,
) -> None:
    """Suggest the threshold of a rule that keeps a given fraction."""
    from curate.dataset import existing
    from curate.tune import told
    from curate.tune import tune as suggest

    config = _recipe(recipe, root, None)
    basis: Any = None if of is None else of.value
    print(told(suggest(existing(config.root), config.rules, rule, keep, basis)))


@app.command()
def query(
    root: Root,
    sql: Annotated[str, typer.Argument(help="One SELECT over the tables, or over `pairs`.")],
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.table,
    version: Version = None,
) -> None:
    """Ask the dataset in SQL, read-only."""
    from curate.dataset import existing
    from curate.query import query as ask
    from curate.render import render

    sys.stdout.buffer.write(render(ask(existing(root, version), sql), format.value))


@app.command()
def show(
    root: Root,
    uid: Annotated[str, typer.Argument(help="uid, or its beginning.")],
    version: Version = None,
) -> None:
    """Explain one pair: what is known of it and why it is in or out."""
    from curate.dataset import existing
    from curate.show import show as explain

    print(explain(existing(root, version), uid))


@app.command()
def report(
    root: Root,
    out: Annotated[
        Path | None, typer.Option(help="HTML file; else report.html in the dataset.")
    ] = None,
    subset: Annotated[
        str | None, typer.Option(help="What is compared with the pool; else the first selection.")
    ] = None,
    version: Version = None,
) -> None:
    """Write one HTML page: funnel, scores, what a selection loses, examples, captions."""
    from curate.dataset import existing
    from curate.report import report as write

    if out is None and "://" in root:
        raise ValueError(f"{root} is no local folder: say where the page goes with --out")
    data = existing(root, version)
    print(write(data, out or Path(root) / "report.html", subset=subset))


@app.command()
def tables(root: Root, version: Version = None) -> None:
    """List the tables of a dataset: parts, rows, and what made them."""
    from curate.dataset import existing

    data = existing(root, version)
    print(f"{root}, version {data.at} of {len(data.versions())}")
    for table in data.tables():
        print(f"{table:32} {len(data.parts(table)):>8} parts {data.rows(table):>14,} rows")


@app.command()
def drop(root: Root, table: Annotated[str, typer.Argument(help="Table to make anew.")]) -> None:
    """Delete one derived table, so that it can be made with another config."""
    from curate.dataset import existing

    existing(root).drop(table)
    print(f"{table} is gone from {root}; the next run makes it anew")


def _recipe(path: Path, root: str | None, workers: int | None) -> Any:
    from schemas.configs import Workers, load_config

    config = load_config(path, {} if root is None else {"root": root})
    if workers is None:
        return config
    changed = Workers.model_validate(config.workers.model_dump() | {"count": workers})
    return config.model_copy(update={"workers": changed})


def main() -> None:
    """Entry point: a mistake of the user's is one line on stderr and exit code 2."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for package in ("curate", "models", "flows"):
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        app(standalone_mode=True)
    except ValueError as error:
        print(f"curate: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _without_traceback(record: logging.LogRecord) -> bool:
    """A mistake of the user's needs no traceback: its words say what to do."""
    if record.exc_info and isinstance(record.exc_info[1], ValueError):
        record.exc_info = None
    return True


def _one_line(error: ValueError) -> str:
    from pydantic import ValidationError

    from schemas.base import explain

    text = explain(error) if isinstance(error, ValidationError) else str(error)
    return " ".join(text.split())


if __name__ == "__main__":
    main()
