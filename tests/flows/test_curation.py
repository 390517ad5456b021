"""The flow: without a server, with a real one, and where a stage fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.dataset import Dataset
from curate.funnel import funnel, funnel_markdown, funnel_table
from tests.flows.conftest import Whole
from tests.flows.contents import contents, different
from tests.flows.killing import ROOT
from tests.flows.prefect_server import ask, prefect_server, run_flow
from tests.flows.small_web import write_recipe

FLOW = ROOT / "flows" / "curation.py"
STAGES = ["ingest", "download", "score", "filter_pairs", "dedup", "compress", "export"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


def test_the_flow_is_short_and_holds_no_logic():
    """The file that a newcomer reads first fits on a screen, and names every stage once."""
    text = FLOW.read_text()
    assert len(text.splitlines()) <= 60
    calls = re.findall(r"step\((\w+)\)", text)
    recaptioned = [*STAGES[:4], "recaption", "score_captions", *STAGES[4:]]
    assert calls == [*recaptioned, "ablate"]


@pytest.mark.slow  # Prefect's temporary server takes its time
def test_the_flow_runs_without_a_server(whole: Whole, untrained: Dataset, tmp_path: Path):
    """`curate run` starts what it needs, prints the funnel, and makes what the stages make."""
    root = tmp_path / "set"
    recipe = write_recipe(tmp_path / "recipe.yaml", whole.recipe(root, trained=False))
    done = run_flow(recipe, tmp_path)
    assert done.returncode == 0, done.stderr
    data = Dataset(str(root))
    assert different(contents(data), contents(untrained)) == []
    assert done.stdout.strip() == funnel_table(funnel(data))
    for bar in (
        "download: 5 parts",
        "score: 5 parts",
        r"filter: \d+ \w+",
        "export picked: 3 parts",
    ):
        assert re.search(rf"{bar} in .* rows/s", done.stderr)


def test_the_run_shows_up_in_a_server(whole: Whole, server: str, tmp_path: Path):
    """The flow and a task per stage, all completed; the download's traffic and the funnel are
    artifacts of the run.
    """
    root = tmp_path / "set"
    recipe = write_recipe(tmp_path / "recipe.yaml", whole.recipe(root, trained=False))
    done = run_flow(recipe, tmp_path, server)
    assert done.returncode == 0, done.stderr
    (run,) = [r for r in ask(server, "flow_runs") if r["state_type"] == "COMPLETED"]
    assert [f["name"] for f in ask(server, "flows")] == ["curation"]
    tasks = ask(server, "task_runs", flow_runs={"id": {"any_": [run["id"]]}})
    tasks.sort(key=lambda task: task["start_time"])
    assert [task["name"].rsplit("-", 1)[0] for task in tasks] == STAGES
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    shown = {a["key"]: a for a in ask(server, "artifacts", flow_runs={"id": {"any_": [run["id"]]}})}
    assert {a["type"] for a in shown.values()} == {"markdown"}
    assert shown["funnel"]["data"] == funnel_markdown(funnel(Dataset(str(root))))
    assert re.match(r"\d+ rows in .* rows/s, .* MB/s, .*% came\n", shown["download"]["data"])
    assert "| `127.0.0.1` |" in shown["download"]["data"]


def test_a_stage_that_fails_says_why_in_a_line(whole: Whole, server: str, tmp_path: Path):
    """A list that is not there: the run is failed with that reason, the command ends with 2, and
    a mistake of the user's is not tried again.
    """
    config = whole.recipe(tmp_path / "set")
    gone = config.ingest[0].model_copy(update={"path": "/nowhere/list.csv"})
    config = config.model_copy(update={"ingest": (gone,)})
    done = run_flow(write_recipe(tmp_path / "recipe.yaml", config), tmp_path, server)
    assert done.returncode == 2
    reason = "no file matches '/nowhere/list.csv': it is no file, no folder and no glob"
    assert f"curate: {reason}" in done.stderr
    (run,) = [r for r in ask(server, "flow_runs") if r["state_type"] == "FAILED"]
    assert reason in run["state"]["message"]
    assert "\n" not in run["state"]["message"]
    (task,) = ask(server, "task_runs", flow_runs={"id": {"any_": [run["id"]]}})
    assert (task["state_type"], task["run_count"]) == ("FAILED", 1)
