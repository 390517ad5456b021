"""A real Prefect server on loopback, what it says, and runs of the flow as a user starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate.cli import ENVIRONMENT
from tests.flows.killing import ROOT

UP_WITHIN_S = 120
POLL_S = 0.1


def environment(home: Path, url: str | None = None) -> dict[str, str]:
    """This process's variables without Prefect's, a home of its own and, perhaps, a server."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    server = {} if url is None else {"PREFECT_API_URL": f"{url}/api"}
    return plain | ENVIRONMENT | {"PREFECT_HOME": str(home)} | server


def run_flow(recipe: Path, home: Path, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """`curate run RECIPE`."""
    return subprocess.run(
        [sys.executable, "-m", "curate.cli", "run", str(recipe)],
        env=environment(home, url),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The address of a running server; ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = ["prefect", "server", "start", "--no-ui", "--host", "127.0.0.1", "--port"]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, str(port)],
            env=environment(home),
            stdout=log,
            stderr=log,
        )
    try:
        _wait(server, f"{url}/api/health", home)
        yield url
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes], health: str, home: Path) -> None:
    give_up = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < give_up and server.poll() is None:
        try:
            urllib.request.urlopen(health).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(POLL_S)
        else:
            return
    raise RuntimeError(f"no server: {(home / 'server.log').read_text()[-2000:]}")


def ask(url: str, what: str, **filters: Any) -> list[dict[str, Any]]:
    """Everything of a kind (flow_runs, task_runs, artifacts) that the server knows."""
    request = urllib.request.Request(
        f"{url}/api/{what}/filter",
        json.dumps(filters).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found
