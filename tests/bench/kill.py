"""How a run gets over being killed: SIGKILL at random moments of the whole way, then a rerun.

    uv run python tests/bench/kill.py              20 kills, some minutes
    uv run python tests/bench/kill.py --kills 5

A small pool on loopback is curated once without interruption. Then a run is killed when a random
number of its files is there, so that kills spread over the work and not over the time that imports
take, and started again until it is through, with up to three kills on one dataset. All tables,
tars, models and shards are compared byte for byte (`attempts` and stats aside). Prints a small
table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from curate.dataset import Dataset
from tests.flows.contents import contents, different
from tests.flows.killing import finish, kill_when, start, written
from tests.flows.small_web import recipe, run_all, small_web, write_list, write_recipe

AT_MOST = 3  # kills of one dataset


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=0)
    told = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, small_web() as web:
        at = Path(folder)
        listed = write_list(at / "list.csv", web.pairs)
        whole = run_all(recipe(at / "whole", listed, web))
        kills, broken = [], []
        print(f"{'dataset':>8}{'files':>8}{'of':>6}  last table begun   seconds to resume")
        for number in range(told.kills):
            if len(kills) >= told.kills:
                break
            draw = random.Random(f"{told.seed} {number}")
            root = at / str(number)
            made = write_recipe(at / f"{number}.yaml", recipe(root, listed, web))
            some = min(draw.randint(1, AT_MOST), told.kills - len(kills))
            kills += _killed(number, some, draw, made, root, written(Path(whole.path)))
            began = time.perf_counter()
            finish(start(made))
            print(f"{number:>8}{'whole':>8}{'':>27}{time.perf_counter() - began:>18.1f}")
            broken += different(contents(Dataset(str(root))), contents(whole))
    print(f"{len(kills)} kills, {len(broken)} files that differ {broken[:5] or ''}")
    print(json.dumps({"bench": "kill", "kills": len(kills), "different_files": len(broken)}))
    sys.exit(bool(broken))


def _killed(
    number: int, some: int, draw: random.Random, made: Path, root: Path, files: int
) -> list[dict[str, Any]]:
    """Kill up to `some` runs of one dataset, each later than the one before."""
    kills = []
    for moment in sorted(draw.sample(range(1, files), some)):
        if kill_when(start(made), lambda n=moment: written(root) >= n):
            found = written(root)
            kills.append({"dataset": number, "files": found, "table": _newest(root)})
            print(f"{number:>8}{found:>8}{files:>6}  {_newest(root)}", flush=True)
    return kills


def _newest(root: Path) -> str:
    """The folder of the dataset that was written to last."""
    found = max((p for p in root.rglob("*") if p.is_file()), key=lambda p: p.stat().st_mtime_ns)
    return str(found.relative_to(root).parts[0])


if __name__ == "__main__":
    main()
