"""One download as a process of its own: ours, or img2dataset's, on the same list.

    python tests/bench/downloaders.py ours|img2dataset SPEC.json

The spec says what both are told: the list (a parquet of url and caption), where to write, rows per
shard, workers, open requests of each, and further knobs of each by name.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
OURS, THEIRS = "ours", "img2dataset"


@dataclass(frozen=True)
class Spec:
    """One download. ours, theirs: knobs that only one of the two has."""

    urls: str
    out: str
    part_rows: int
    workers: int = 2
    open_requests: int = 64  # of each worker
    timeout_s: float = 10
    image_size: int = 256
    ours: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)

    def command(self, which: str) -> list[str]:
        """The command line that downloads so; the spec is written beside what it will write."""
        written = Path(f"{self.out}.json")
        written.write_text(json.dumps(asdict(self)))
        return [sys.executable, str(Path(__file__)), which, str(written)]


def environment() -> dict[str, str]:
    """Ours plus what keeps every package from calling home, as the `curate` command sets it."""
    from curate.cli import ENVIRONMENT

    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
    return {**ENVIRONMENT, **quiet, **os.environ, "PYTHONPATH": str(ROOT)}


def ours(spec: Spec) -> None:
    """Two stages on Ray workers: ingest, download."""
    from curate.dataset import Dataset
    from curate.download import download
    from curate.ingest import ingest
    from schemas.configs import DownloadConfig, IngestConfig, Workers

    data = Dataset(spec.out)
    ingest(data, IngestConfig(path=spec.urls, part_rows=spec.part_rows, batch="bench"))
    told: dict[str, Any] = {
        "image_size": spec.image_size,
        "concurrency": spec.open_requests,
        "timeout_s": spec.timeout_s,
        "retries": 0,
        "reencode": "always",
        "per_host": spec.workers * spec.open_requests,  # img2dataset has no limit per host
        "allow_hosts": ("127.0.0.0/8",),
    }
    download(data, DownloadConfig(**told | dict(spec.ours)), Workers(count=spec.workers))


def img2dataset(spec: Spec) -> None:
    """Its multiprocessing distributor."""
    from img2dataset import download

    download(
        url_list=spec.urls,
        input_format="parquet",
        url_col="url",
        caption_col="caption",
        output_folder=spec.out,
        output_format="webdataset",
        distributor="multiprocessing",
        processes_count=spec.workers,
        thread_count=spec.open_requests,
        number_sample_per_shard=spec.part_rows,
        image_size=spec.image_size,
        timeout=spec.timeout_s,
        retries=0,
        **spec.theirs,
    )


if __name__ == "__main__":
    which, written = sys.argv[1:]
    import logging

    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("curate").setLevel(logging.INFO)
    told = Spec(**json.loads(Path(written).read_text()))
    began = time.perf_counter()
    (ours if which == OURS else img2dataset)(told)
    print(f"{which} took {time.perf_counter() - began:.1f} s")
