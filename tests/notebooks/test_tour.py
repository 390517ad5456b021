"""The tour runs from top to bottom on a dataset and shows its numbers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.gallery import add_dedup, gallery, items

TOUR = Path(__file__).parents[2] / "notebooks" / "tour.py"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOUR), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tour_runs_as_a_script_and_prints_the_datasets_numbers(tmp_path):
    """Funnel, SQL, distributions with thresholds,
    examples and duplicates of the dataset named on the command line.
    """
    pairs = items()
    data = gallery(tmp_path / "set", pairs)
    kept = sorted(
        r["uid"]
        for p in data.parts("decisions_quality")
        for r in data.read("decisions_quality", p).to_pylist()
        if r["keep"]
    )
    add_dedup(data, [(kept[0], kept[1], 2.0)], {kept[1]: kept[0]})
    done = run("--", "--root", str(tmp_path / "set"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    failed = sum(i.image is None for i in pairs)
    unscored = sum(i.image is not None and i.clip_score is None for i in pairs)
    assert f"download 40 {40 - failed} 0 {failed}" in lines
    assert f"dedup {len(kept)} {len(kept) - 1} 1 0" in lines
    scores = f"scores_clip__clip_score: {40 - failed - unscored} known, {unscored} unknown"
    assert f"{scores}, {len(kept) - 1} kept; low_clip: below 0.28" in lines
    assert f"'reason': 'failed_to_download', 'pairs': {failed}" in done.stdout
    assert any(
        line.startswith("low_clip: ") and f"{unscored} of them unknown" in line for line in lines
    )
    assert "1 groups of duplicates shown, 1 copies in them" in lines


def test_the_tour_says_which_dataset_is_missing(tmp_path):
    """Without a dataset it fails with the folder that it looked for."""
    done = run("--", "--root", str(tmp_path / "nowhere"), cwd=tmp_path)
    assert done.returncode != 0
    assert "nowhere" in done.stderr


def test_the_tour_defines_nothing():
    """Its only functions are marimo's cells: what it shows comes from the packages."""
    tree = ast.parse(TOUR.read_text())
    definitions = [
        n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda)
    ]
    assert {getattr(d, "name", "lambda") for d in definitions} == {"_"}
    assert all(ast.unparse(d.decorator_list[0]).startswith("app.cell") for d in definitions)
