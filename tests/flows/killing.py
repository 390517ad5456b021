"""Runs in processes of their own, and ways to kill them in the middle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
POLL_S = 0.002
RUN = (
    "import sys; from schemas.configs import load_config; "
    "from tests.flows.small_web import run_all; run_all(load_config(sys.argv[1]))"
)


def start(recipe: Path) -> subprocess.Popen[str]:
    """A process that runs all stages of a recipe."""
    return child(RUN, recipe)


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs some lines of Python with our packages and tests at hand."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def kill_when(child: subprocess.Popen[str], reached: Callable[[], bool]) -> bool:
    """SIGKILL the process as soon as `reached()`; False where it ended before."""
    while child.poll() is None:
        if reached():
            child.kill()
            child.communicate()
            return True
        time.sleep(POLL_S)
    finish(child)
    return False


def finish(child: subprocess.Popen[str]) -> None:
    """Wait for the end. Raises RuntimeError with what the process said where it failed."""
    _, said = child.communicate()
    if child.returncode:
        raise RuntimeError(f"the run ended with {child.returncode}: {said[-2000:]}")


def written(folder: Path) -> int:
    """Files in a folder and below it that are whole."""
    return sum(p.is_file() and p.suffix != ".tmp" for p in folder.rglob("*"))
