"""One way of finding copies as a process of its own, from image files to groups: ours, or a peer's.

    PYTHON tests/bench/dedupers.py ours|fastdup|data-juicer SPEC.json

The spec names a folder of images, called by their numbers, captions in their order, and a folder to
write to. The last line is JSON: the groups, lists of numbers of which the first one stays. Each
peer runs as it comes: fastdup's bundled model and thresholds, Data-Juicer's perceptual hash. The
peers are run by their own Python: nothing of ours is imported for them.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PER_TAR = 5000
Spec = dict[str, Any]
Groups = list[list[int]]


def ours(spec: Spec) -> Groups:
    """Into tars, then ingest, download and dedup as they are configured by default; the dataset
    stays.
    """
    from curate.dataset import Dataset
    from curate.dedup import dedup
    from curate.download import download
    from curate.ingest import ingest
    from schemas.configs import DedupConfig, DownloadConfig, IngestConfig

    out = Path(spec["out"])
    _pack(files_of(spec), spec["captions"], out / "tars")
    data = Dataset(str(out / "dataset"))
    ingest(data, IngestConfig(path=str(out / "tars"), format="webdataset"))
    download(data, DownloadConfig())
    dedup(data, DedupConfig())
    return decided(data, spec["captions"])


def url_of(number: int) -> str:
    """The address that a file is said to come from."""
    return f"https://images.example/{number}"


def decided(data: Any, captions: list[str]) -> Groups:
    """The groups of `decisions_dedup`, of pairs that were made of these captions."""
    from schemas.tables import uid_of

    numbers = {uid_of(url_of(n), caption): n for n, caption in enumerate(captions)}
    found: dict[int, list[int]] = defaultdict(list)
    for part in data.parts("decisions_dedup"):
        for row in data.read("decisions_dedup", part, ["uid", "duplicate_of"]).to_pylist():
            if row["duplicate_of"] is not None:
                found[numbers[row["duplicate_of"]]].append(numbers[row["uid"]])
    return [[kept, *sorted(removed)] for kept, removed in sorted(found.items())]


def fastdup(spec: Spec) -> Groups:
    """Its components, whose images are linked by a cosine of 0.96."""
    import fastdup as peer  # type: ignore[import-not-found]

    found = peer.create(work_dir=str(Path(spec["out"]) / "fastdup"), input_dir=spec["folder"])
    found.run()
    table = found.connected_components()[0]
    groups: dict[int, list[int]] = defaultdict(list)
    for component, name in zip(table["component_id"], table["filename"], strict=True):
        groups[component].append(int(Path(name).stem))
    return [sorted(group) for group in groups.values() if len(group) > 1]


def data_juicer(spec: Spec) -> Groups:
    """Its image_deduplicator: of images with one hash the first stays.

    The package that hashes for it builds a network as it is imported, and would fetch weights that
    no hash needs: it gets one without.
    """
    from torchvision import models  # type: ignore[import-not-found,unused-ignore]

    network = models.mobilenet_v3_small
    models.mobilenet_v3_small = lambda weights: network()
    from data_juicer.core.data import NestedDataset  # type: ignore[import-not-found]
    from data_juicer.ops.deduplicator.image_deduplicator import (  # type: ignore[import-not-found]
        ImageDeduplicator,
    )
    from datasets import Dataset as Rows  # type: ignore[import-not-found,unused-ignore]

    paths = files_of(spec)
    rows = NestedDataset(
        Rows.from_dict({"text": [""] * len(paths), "images": [[p] for p in paths]})
    )
    unit = ImageDeduplicator()
    hashed = rows.map(unit.compute_hash, num_proc=spec["processes"], load_from_cache_file=False)
    kept = {row[0] for row in unit.process(hashed)[0]["images"]}
    groups: dict[str, list[int]] = defaultdict(list)
    for row in hashed:
        groups[row["__dj__imagehash"]].append(int(Path(row["images"][0]).stem))
    found = [sorted(group) for group in groups.values()]
    if len(kept) != len(found):
        raise ValueError(f"{len(kept)} images stay of {len(found)} hashes")
    return [group for group in found if len(group) > 1]


def files_of(spec: Spec) -> list[str]:
    """The images, in the order of their numbers."""
    return sorted(map(str, Path(spec["folder"]).iterdir()))


def _pack(files: list[str], captions: list[str], folder: Path) -> None:
    from curate import tars

    folder.mkdir(parents=True)
    for first in range(0, len(files), PER_TAR):
        with (folder / f"{first:06d}.tar").open("wb") as stream, tars.new(stream) as tar:
            for number in range(first, min(first + PER_TAR, len(files))):
                path = Path(files[number])
                meta = {"url": url_of(number), "caption": captions[number]}
                tars.add(tar, path.name, path.read_bytes())
                tars.add(tar, f"{path.stem}.json", tars.dumps(meta))


WAYS = {"ours": ours, "fastdup": fastdup, "data-juicer": data_juicer}

if __name__ == "__main__":
    which, told = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    if which == "ours":
        sys.path.insert(0, str(ROOT))
    print("\n" + json.dumps(WAYS[which](told)))
