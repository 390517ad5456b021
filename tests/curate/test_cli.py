"""The command: what it prints, and how it says no."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from curate.cli import app
from curate.filter import filter_pairs
from schemas.configs import Rule
from tests.fault_server import fault_server
from tests.scored import pool, uid

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("demo", "run", "download", "filter", "tune", "query", "show", "report", "tables", "drop"),
)
SQL = "SELECT uid, keep, reason FROM decisions ORDER BY reason NULLS FIRST, uid"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five pairs: two kept, one dropped, one that is unknown, one that was not downloaded."""
    folder = str(tmp_path_factory.mktemp("cli"))
    data = pool(folder, {0: 0.5, 1: 0.4, 2: 0.1, 3: None, 4: 0.9}, failed=[4])
    filter_pairs(data, [Rule(name="low", value="scores_s__clip_score", drop_below=0.3)])
    return folder


def said(*arguments: str) -> bytes:
    """What a command that goes well writes to stdout."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout_bytes


def refused(*arguments: str, folder: Path = ROOT) -> str:
    """The one line on stderr of a command that ends with code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "curate.cli", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("curate: ")
    return line


# ------------------------------------------------------------------------------ help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    """`--help` names the command's own arguments."""
    text = said(command, "--help").decode()
    assert f" {command} " in text
    assert "--help" in text


def test_the_help_lists_all_commands():
    """`curate` alone says what there is, each command with what it is for."""
    text = said("--help").decode()
    named = re.findall(r"^│ (\w+) +\w", text, re.MULTILINE)
    assert set(COMMANDS) <= set(named)


# ------------------------------------------------------------------------------ query


def test_query_prints_json(root: str):
    """An object per line, null where there is nothing."""
    lines = said("query", root, SQL, "--format", "json").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(r["keep"], r["reason"]) for r in rows] == [
        (True, None),
        (True, None),
        (False, "failed_to_download"),
        (False, "low"),
        (False, "unknown low"),
    ]
    assert rows[3]["uid"] == uid(2)


def test_query_prints_csv(root: str):
    """A header and a line per row."""
    text = said("query", root, SQL, "--format", "csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["reason"] for row in rows] == ["", "", "failed_to_download", "low", "unknown low"]


def test_query_writes_parquet(root: str):
    """The bytes of a parquet file, types kept."""
    table = pq.read_table(io.BytesIO(said("query", root, SQL, "--format", "parquet")))
    assert table["keep"].to_pylist() == [True, True, False, False, False]


def test_query_draws_a_table_by_default(root: str):
    """Aligned text with the names of the columns."""
    text = said("query", root, "SELECT reason, count(*) AS n FROM decisions GROUP BY 1").decode()
    assert "reason" in text
    assert "failed_to_download" in text


# ------------------------------------------------------------------------------ show, tables, drop


def test_show_takes_the_beginning_of_a_uid(root: str):
    """It says why the pair is out, with the score that it has."""
    text = said("show", root, uid(2)[:10]).decode()
    assert uid(2) in text
    assert "low" in text
    assert "0.1" in text


def test_tables_lists_parts_and_rows(root: str):
    """A line per table under the version."""
    lines = said("tables", root).decode().splitlines()
    assert lines[0].startswith(f"{root}, version ")
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert rows["urls"] == ["1", "parts", "5", "rows"]
    assert rows["decisions_quality"] == ["1", "parts", "4", "rows"]


def test_an_old_version_can_be_asked(root: str):
    """`--version 1` has what was there then."""
    lines = said("tables", root, "--version", "1").decode().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["urls"]


def test_drop_forgets_one_table(tmp_path: Path):
    """The others stay."""
    data = pool(str(tmp_path), {0: 0.5})
    assert b"scores_s is gone" in said("drop", str(tmp_path), "scores_s")
    data.refresh()
    assert data.tables() == ["samples", "urls"]


# ------------------------------------------------------------------------------ filter, tune


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A recipe with one rule, over a dataset of eight scored pairs that nobody has judged."""
    pool(str(tmp_path / "data"), {i: i / 8 for i in range(8)})
    file = tmp_path / "recipe.yaml"
    rule = "{name: low, value: scores_s__clip_score, drop_below: 0.25}"
    file.write_text(f"root: {tmp_path}/data\nrules: [{rule}]\n")
    return str(file)


def test_filter_decides_and_asks_what_if(recipe: str, tmp_path: Path):
    """The decision is told by reason; another threshold is tried and nothing is written."""
    lines = [line.split() for line in said("filter", recipe).decode().splitlines()]
    assert ["(kept)", "6"] in lines
    assert ["low", "2"] in lines
    before = sorted((tmp_path / "data").rglob("*"))
    text = said("filter", recipe, "--what-if", "--set", "low.drop_below=0.5").decode()
    assert ["kept", "then", "4", "50.0", "%"] in [line.split() for line in text.splitlines()]
    assert uid(4)[:12] in text
    assert "http://h/4.jpg" in text
    assert sorted((tmp_path / "data").rglob("*")) == before


def test_an_edited_recipe_is_compared_with_the_decision(recipe: str):
    """`--what-if` without `--set` says what the recipe as it is now would change."""
    said("filter", recipe)
    assert "the rules are those of today" in said("filter", recipe, "--what-if").decode()
    Path(recipe).write_text(Path(recipe).read_text().replace("0.25", "0.75"))
    text = said("filter", recipe, "--what-if").decode()
    assert ["kept", "then", "2", "25.0", "%"] in [line.split() for line in text.splitlines()]


def test_tune_suggests_a_threshold(recipe: str):
    """A line per fraction, with what it keeps."""
    text = said("tune", recipe, "low", "--keep", "0.5", "--keep", "0.25", "--of", "recipe").decode()
    lines = [line.split() for line in text.splitlines()]
    assert ["0.5", "0.5", "4", "50.0", "%", "4"] in lines
    assert ["0.25", "0.7", "2", "25.0", "%", "2"] in lines


def test_a_rule_or_knob_that_is_not_there_is_one_line(recipe: str):
    """It names those that are; `--set` alone does not decide."""
    line = refused("filter", recipe, "--what-if", "--set", "high.drop_below=1")
    assert "the recipe has no rule 'high', only low" in line
    line = refused("filter", recipe, "--what-if", "--set", "low.limit=1")
    assert "a rule has no knob 'limit', only value" in line
    assert "--set is for --what-if" in refused("filter", recipe, "--set", "low.drop_below=1")
    assert "the recipe has no rule 'high', only low" in refused(
        "tune", recipe, "high", "--keep", "1"
    )


# ------------------------------------------------------------------------------ download


def test_a_download_says_what_came_and_what_did_not(tmp_path: Path):
    """Rates, the commonest errors and the slowest hosts; then a retry of some errors alone."""
    root = str(tmp_path / "set")
    with fault_server() as web:
        urls = [web.image(f"/{i}.jpg", seed=i) for i in range(3)]
        urls += [web.url("/status/404"), web.url("/status/503")]
        listed = tmp_path / "list.csv"
        listed.write_text("url,caption\n" + "".join(f"{url},a word\n" for url in urls))
        said("ingest", root, str(listed))
        recipe = tmp_path / "recipe.yaml"
        knobs = f"{{allow_hosts: ['{web.address}'], retries: 0, contact: me@example.org}}"
        recipe.write_text(f"root: {root}\ningest: []\ndownload: {knobs}\n")
        lines = said("download", str(recipe)).decode().splitlines()
        again = said("download", str(recipe), "--retry-failed", "--status", "HTTP Error 5*")
        done = said("download", str(recipe)).decode()
        assert web.hits["/status/503"] == 2
        assert web.hits["/status/404"] == 1
        assert {"curate/0.1 (image-text dataset curation; +me@example.org)"} == web.user_agents
    assert re.fullmatch(r"5 rows in .* rows/s, .* MB/s, 60.0% came", lines[0])
    assert {line.split(maxsplit=2)[2] for line in lines[1:3]} == {
        "HTTP Error 404: Not Found",
        "HTTP Error 503: Service Unavailable",
    }
    assert lines[5].split()[:3] == ["127.0.0.1", "5", "2"]
    assert again.decode().startswith("1 rows in ")
    assert done == "nothing to download\n"


def test_statuses_to_retry_need_a_retry(tmp_path: Path):
    """`--status` alone says what is missing."""
    (tmp_path / "recipe.yaml").write_text("root: there\ningest: []\n")
    line = refused("download", "recipe.yaml", "--status", "timed out", folder=tmp_path)
    assert "add --retry-failed" in line


# ------------------------------------------------------------------------------ plan


def test_a_dry_run_prints_the_plan_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Stages, models, workers and bytes of a real recipe; not even the dataset's folder is made."""
    monkeypatch.chdir(tmp_path)
    text = said("run", str(ROOT / "flows/configs/cc3m.yaml"), "--dry-run").decode()
    stages = [line.split()[0] for line in text.splitlines() if line.strip()]
    for stage in ("ingest", "download", "score", "filter", "dedup", "compress", "export", "train"):
        assert stage in stages
    assert "clip: ViT-B-32 datacomp_xl_s13b_b90k" in text
    assert "4 to 16 Ray actors" in text
    assert "total" in stages
    assert list(tmp_path.rglob("*")) == []


def test_a_dry_run_counts_the_rows_of_a_list_that_is_there(tmp_path: Path):
    """The estimate is of the list's own length, and of the root and workers that were asked for."""
    import pyarrow as pa

    pq.write_table(pa.table({"url": ["http://a/1"] * 1234}), tmp_path / "list.parquet")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"root: there\ningest: [{{path: {tmp_path}/list.parquet}}]\n")
    text = said("run", str(recipe), "--dry-run", "--root", "elsewhere", "--workers", "3").decode()
    assert "1,234 rows" in text
    assert "elsewhere" in text
    assert "3 to 3 Ray actors" in text


# ------------------------------------------------------------------------------ errors


def test_an_unknown_recipe_is_one_line(tmp_path: Path):
    """It names the file and where to find others."""
    line = refused("run", "nowhere.yaml", "--dry-run", folder=tmp_path)
    assert "nowhere.yaml: no such recipe; see flows/configs/" in line


def test_a_misspelt_name_in_a_recipe_is_one_line(tmp_path: Path):
    """It names the file and the field."""
    (tmp_path / "recipe.yaml").write_text("root: there\nscorer: []\n")
    line = refused("run", "recipe.yaml", "--dry-run", folder=tmp_path)
    assert "recipe.yaml: scorer: Extra inputs are not permitted" in line


@pytest.mark.parametrize("command", ["tables", "show", "query", "report", "drop"])
def test_a_folder_without_a_dataset_is_one_line(command: str, tmp_path: Path):
    """It names the folder and what makes a dataset; nothing is written there."""
    more = {"show": ["ab"], "query": ["SELECT 1"], "drop": ["urls"]}.get(command, [])
    line = refused(command, str(tmp_path), *more)
    assert f"{tmp_path} holds no dataset: `curate run` or `curate demo` makes one" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT nothing FROM urls", "nothing"),
        ("SELEKT 1", "syntax error"),
        ("DROP VIEW urls", "runs one SELECT; this is DROP"),
        ("SELECT 1; SELECT 2", "runs one SELECT; this is 2 statements"),
    ],
)
def test_bad_sql_is_one_line(root: str, sql: str, reason: str):
    """DuckDB's own words, or what is allowed."""
    assert reason in refused("query", root, sql)


def test_a_version_or_uid_that_is_not_there_is_one_line(root: str):
    """It says what there is."""
    assert "has no version 99; it has [1, 2" in refused("tables", root, "--version", "99")
    assert "ffff" in refused("show", root, "ffff")
