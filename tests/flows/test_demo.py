"""The demo in its smallest form, through the command, judged by what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "notebooks" / "tour.py"
DEAD = ("dead 404", "lying html", "truncated", "forbidden redirect", "500, then fine: here")


def demo(out: Path) -> str:
    command = [sys.executable, "-m", "curate.cli", "demo", "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def share(text: str, fault: str) -> float:
    """The percentage printed for a planted fault."""
    found = re.search(rf"^{re.escape(fault)} +\d+ +\d+ +([\d.]+)%$", text, re.MULTILINE)
    assert found, f"{fault} is not in the demo's table"
    return float(found[1])


@pytest.mark.slow
def test_the_demo_catches_what_was_planted_and_resumes_at_once(tmp_path: Path):
    """Copies, boilerplate and dead links are caught, few clean pairs lost; a rerun does nothing."""
    text = demo(tmp_path)
    assert share(text, "exact copy") >= 95
    assert share(text, "near duplicate") >= 90
    assert share(text, "boilerplate") >= 95
    assert all(share(text, fault) == 100 for fault in DEAD)
    assert "requests that reached the forbidden address: 0" in text
    lost = dict(
        re.findall(r"^(boilerplate|duplicate_\w+) +\d+ +([\d.]+)% +\d+ ", text, re.MULTILINE)
    )
    assert all(float(percent) <= 5 for percent in lost.values())
    auc = re.search(r"AUC ([\d.]+)", text)
    assert auc
    assert float(auc[1]) >= 0.75  # of a quarter of the pool; the whole one gives 0.87
    assert "retrieval/recall@10" in text
    tour = [sys.executable, str(TOUR), "--", "--root", str(tmp_path / "dataset")]
    toured = subprocess.run(tour, capture_output=True, text=True, check=False, timeout=300)
    assert toured.returncode == 0, toured.stderr[-3000:]
    assert "scores_bootstrap__clip_score" in toured.stdout
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "dataset").rglob("*.parquet")}
    began = time.perf_counter()
    again = demo(tmp_path)
    assert again == text
    assert time.perf_counter() - began < 60
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "dataset").rglob("*.parquet")} == before
