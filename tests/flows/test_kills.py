"""SIGKILL in the middle of every stage, of the process and of Ray's workers: what is resumed has
the bytes of a run that nobody stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from curate.dataset import Dataset
from curate.download import download
from curate.engine import start as start_ray
from curate.score import score
from schemas.configs import Workers
from tests.flows.conftest import Whole
from tests.flows.contents import ROUNDED, assert_equal_but_for_rounding, contents, different
from tests.flows.killing import finish, kill_when, start, written
from tests.flows.small_web import downloading, run_all, write_list, write_recipe
from tests.flows.small_web import recipe as small_recipe

# two moments in every stage: its folder in the dataset, and how many files it has by then
MOMENTS = {
    "ingest": (("sightings", 1), ("urls", 3)),
    "download": (("images", 3), ("samples", 3)),
    "score": (("scores_image_stats", 2), ("scores_bootstrap", 4)),
    "filter": (("decisions_quality", 2), ("rules_failed", 4)),
    "dedup": (("duplicates_perceptual", 1), ("decisions_dedup", 3)),
    "compress": (("subset_picked", 2), ("decisions_select", 3)),
    "export": (("exports", 1), ("exports", 3)),
}


@pytest.mark.parametrize("nth", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["1st", "2nd"])
def test_a_run_killed_in_every_stage_ends_with_the_same_bytes(
    nth: int, whole: Whole, tmp_path: Path
):
    """Seven times the run is killed, each time in another stage, and started again; then it is left
    alone.
    """
    root = tmp_path / "set"
    recipe = write_recipe(tmp_path / "recipe.yaml", whole.recipe(root))
    stopped = {
        stage: kill_when(start(recipe), lambda m=moments[nth]: written(root / m[0]) >= m[1])
        for stage, moments in MOMENTS.items()
    }
    finish(start(recipe))
    assert different(contents(Dataset(str(root))), contents(whole.data)) == []
    # the last stages take milliseconds: they can be over before this process sees that they began
    assert sum(stopped.values()) >= len(MOMENTS) - 2


def test_a_run_killed_while_fetching_asks_again_for_the_open_part_only(
    whole: Whole, tmp_path: Path
):
    """A part whose images were still coming in is fetched anew, finished ones are not."""
    server, root = whole.web.server, tmp_path / "set"
    silent = (server.url("/silent"), "its part stays open")
    lists = write_list(tmp_path / "list.csv", [*whole.web.pairs, silent])
    config = small_recipe(
        root,
        lists,
        whole.web,
        trained=False,
        download=downloading(whole.web, timeout_s=4, retries=0),
    )
    recipe = write_recipe(tmp_path / "recipe.yaml", config)
    assert kill_when(start(recipe), lambda: written(root / "samples") >= 3)
    finished = {int(path.name.split(".")[0]) for path in (root / "samples").glob("*.parquet")}
    asked = server.hits.copy()
    finish(start(recipe))
    data = Dataset(str(root))
    came = server.hits - asked
    again = {server.url(path) for path, n in came.items() if n and path != "/robots.txt"}
    open_parts = set(data.parts("urls")) - finished
    assert open_parts
    pending = {url for p in open_parts for url in data.read("urls", p)["url"].to_pylist()}
    assert again == pending


# ------------------------------------------------------------------------------ workers of Ray


@contextmanager
def one_worker_killed_when(reached: Callable[[], bool]) -> Iterator[list[int]]:
    """For the time of the block: SIGKILL one of Ray's workers once `reached()`; gives its pid."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            if reached() and (victims := actors()):
                victims[0].kill()
                killed.append(victims[0].pid)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def actors() -> list[psutil.Process]:
    """The processes of this process's Ray that hold a worker of the engine."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "_Worker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_a_worker_of_ray_killed_while_fetching_changes_no_byte(whole: Whole, tmp_path: Path):
    """Its part goes to another one: samples and tars are those of a run without Ray."""
    config = whole.recipe(tmp_path / "set", workers=2)
    data = run_all(config, "ingest")
    start_ray(config.workers)
    asked = whole.web.server.hits.total()
    with one_worker_killed_when(lambda: whole.web.server.hits.total() - asked > 4) as killed:
        download(data, config.download, config.workers)
    assert killed
    tables = ("urls/", "sightings/", "samples/", "images/")
    wanted = {n: b for n, b in contents(whole.data).items() if n.startswith(tables)}
    assert different(contents(data), wanted) == []


@pytest.mark.slow  # a pool of actors for each of a dozen steps takes a minute to start
def test_two_workers_write_what_none_writes_though_one_is_killed(whole: Whole, tmp_path: Path):
    """The whole way on Ray, one worker killed while it scores: all rows and shards are those of a
    run in one process, but for the last bits of a model that runs on another number of threads.
    """
    root = tmp_path / "set"
    data = run_all(whole.recipe(root, workers=2), "download")
    with one_worker_killed_when(lambda: written(root / "scores_image_stats") >= 2) as killed:
        score(data, whole.recipe(root).scorers, Workers(count=2))
    assert killed
    data = run_all(whole.recipe(root, workers=2))
    assert_equal_but_for_rounding(data, whole.data)
    others = different(contents(data), contents(whole.data))
    assert [name for name in others if not name.startswith(ROUNDED)] == []
