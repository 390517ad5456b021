"""How much of a model's own speed the score stage keeps, and how fast its peers are.

    uv run python tests/bench/score.py            512 pairs, three rounds, with both peers
    uv run python tests/bench/score.py --quick    128 pairs, one round
    uv run python tests/bench/score.py --without data-juicer --without clip-retrieval

Random ViT-B/32 weights, photos stored at 256 x 256 and captions as long as the web's, all made once
in a cache folder. Each round runs in turn, each as a process of its own (scorers.py):

    bare            forward passes alone, tensors ready, in the stage's batches (and at 77 tokens)
    ours            the whole stage with `clip`: read, decode, preprocess, model, write
    three           with `image_stats` and `text_stats` in the same pass
    clip-retrieval  its inference over the same images, texts and weights, in tars
    data-juicer     its image_text_similarity_filter over the same

Loading is left out everywhere. Peers are installed by uv into environments of their own in the
cache; without a GPU all run on the CPU, ours with torch's default threads. clip-retrieval has as
many preprocessing workers as there are cores. Data-Juicer runs in one process with torch's default
threads; it writes similarities only, we write embeddings too. Prints a table of medians, then one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa

from curate import tars
from tests.bench.clip_weights import hugging_face_folder, open_clip_folder
from tests.bench.pictures import CACHE, small_photos
from tests.stored import Stored, stored
from tests.tiny import add_table

SIDE = 256
BATCH = 256
READERS = os.cpu_count() or 1
LAZY = ("transformers", "ray", "msgpack")
PEERS = {
    "clip-retrieval": ["clip-retrieval==2.45.0", "setuptools<81"],
    # beside aiohttp, what it would else install by itself while it runs
    "data-juicer": ["py-data-juicer==1.6.1", *("aiohttp", "torch", "torchvision"), *LAZY],
}
WORDS = [
    *("red", "blue", "small", "old", "wooden", "vintage", "modern", "portrait", "beautiful"),
    *("house", "garden", "river", "street", "kitchen", "dress", "shoes", "car", "beach"),
    *(
        "mountain",
        "photography",
        "illustration",
        "background",
        "vector",
        "stock",
        "photo",
        "image",
        "with",
    ),
    *("and", "of", "the", "in", "for", "on", "by", "from", "new"),
    *("free", "best", "women", "men", "kids", "2019", "London", "wedding", "design"),
    *(
        "interior",
        "decoration",
        "handmade",
        "waterproof",
        "Christmas",
        "watercolour",
        "kingfisher",
        "Volkswagen",
    ),
]


def captions(count: int) -> list[str]:
    """Of 3 to 60 words, 9 in the median: as long as alt-texts of the web, nearly all distinct."""
    draw = random.Random(0)
    lengths = [max(3, min(60, round(draw.lognormvariate(2.2, 0.55)))) for _ in range(count)]
    return [" ".join(draw.choices(WORDS, k=words)) for words in lengths]


def make(folder: Path, pairs: Sequence[Stored]) -> None:
    """The pairs as a dataset of one part."""
    shutil.rmtree(folder, ignore_errors=True)
    data = stored(folder, pairs, parts=1)
    samples = data.read("samples", 0)
    for name in ("width", "height"):
        at = samples.schema.get_field_index(name)
        sides = pa.array([SIDE] * samples.num_rows, pa.int32())
        samples = samples.set_column(at, samples.schema.field(at), sides)
    add_table(data, "samples", {0: samples}, ("urls",))


def make_files(folder: Path, pairs: Sequence[Stored], few: int = 16) -> dict[str, str]:
    """The pairs as the peers read them: a WebDataset shard for each of clip-retrieval's readers,
    which fails where one has none, and JSON lines beside JPEG files.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    lines = []
    for at, pair in enumerate(pairs):
        image = folder / "files" / f"{at:06d}.jpg"
        image.write_bytes(pair.image or b"")
        text = f"<__dj__image> {pair.caption} <|__dj__eoc|>"
        lines.append(json.dumps({"text": text, "images": [str(image)]}))
    for shard in range(READERS):
        with (folder / f"{shard:05d}.tar").open("wb") as stream, tars.new(stream) as tar:
            for at, pair in list(enumerate(pairs))[shard::READERS]:
                tars.add(tar, f"{at:06d}.jpg", pair.image or b"")
                tars.add(tar, f"{at:06d}.txt", (pair.caption or "").encode())
    (folder / "all.jsonl").write_text("\n".join(lines))
    (folder / "few.jsonl").write_text("\n".join(lines[:few]))
    return {
        "tars": f"{folder}/{{00000..{READERS - 1:05d}}}.tar",
        "lines": str(folder / "all.jsonl"),
        "few_lines": str(folder / "few.jsonl"),
    }


def python_of(peer: str, cache: Path) -> str:
    """The Python of an environment that has the peer, installed once."""
    folder = cache / f"venv-{peer}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"installing {peer} in {folder}", flush=True)
        subprocess.run(["uv", "venv", "--quiet", "--clear", str(folder)], check=True)
        command = ["uv", "pip", "install", "--quiet", "--python", str(python), *PEERS[peer]]
        subprocess.run(command, check=True)
        (folder / "ready").touch()
    return str(python)


def run(which: str, python: str, spec: dict[str, Any], scratch: Path) -> dict[str, float]:
    """One way of scoring, as a process of its own."""
    written = scratch / f"{which}.json"
    written.write_text(json.dumps(spec))
    quiet = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    quiet |= {"WANDB_MODE": "disabled", "WANDB_DIR": str(scratch), "HF_DATASETS_OFFLINE": "1"}
    command = [python, str(Path(__file__).with_name("scorers.py")), which, str(written)]
    done = subprocess.run(
        command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{which} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{which:>16}  {found['rows'] / found['seconds']:8.2f} pairs/s", flush=True)
    return found


def one_round(
    ways: dict[str, str], pairs: Sequence[Stored], told: dict[str, Any], cache: Path
) -> dict[str, dict[str, float]]:
    """Each way once; a dataset of ours is made anew for each."""
    found: dict[str, dict[str, float]] = {}
    for which, python in ways.items():
        if which in ("bare", "ours", "three"):
            make(Path(told["dataset"]), pairs)
        shutil.rmtree(told["out"], ignore_errors=True)
        found[which] = run(which, python, told, cache / "score")
    return found


def report(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Medians over the rounds: pairs per second, and the ratios that were promised."""

    def rate(which: str) -> float:
        return statistics.median(r[which]["rows"] / r[which]["seconds"] for r in rounds)

    def ratio(one: str, other: str) -> float:
        return round(
            statistics.median(
                r[one]["rows"] * r[other]["seconds"] / (r[one]["seconds"] * r[other]["rows"])
                for r in rounds
            ),
            3,
        )

    full = [r["bare"]["rows"] / (r["bare"]["image_s"] + r["bare"]["text_77_s"]) for r in rounds]
    result = {f"{which}_per_s": round(rate(which), 2) for which in rounds[0]}
    result["bare_77_tokens_per_s"] = round(statistics.median(full), 2)
    result["of_bare"] = ratio("ours", "bare")
    result["three_cost_times_one"] = ratio("ours", "three")
    return result | {f"times_{peer}": ratio("ours", peer) for peer in PEERS if peer in rounds[0]}


def main() -> None:
    """Make, run in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--without", action="append", default=[], choices=[*PEERS, "three"])
    parser.add_argument("--cache", type=Path, default=CACHE)
    told = parser.parse_args()
    rows = told.rows or (128 if told.quick else 512)
    model = open_clip_folder(told.cache / "vit-b-32")
    photos = small_photos(told.cache, rows, SIDE, SIDE, 90)
    pairs = [
        Stored(f"http://a/{at}.jpg", caption, photo.read_bytes())
        for at, (caption, photo) in enumerate(zip(captions(rows), photos, strict=True))
    ]
    spec: dict[str, Any] = {
        "dataset": str(told.cache / "score" / "dataset"),
        "out": str(told.cache / "score" / "out"),
        "model": str(model),
        "hf_model": str(hugging_face_folder(told.cache / "vit-b-32-hf", model)),
        "batch_size": BATCH,
        "threads": READERS,
        "rows": rows,
        **make_files(told.cache / "score" / "pairs", pairs),
    }
    ways = dict.fromkeys(("bare", "ours", "three"), sys.executable)
    ways |= {peer: python_of(peer, told.cache) for peer in PEERS if peer not in told.without}
    ways = {which: python for which, python in ways.items() if which not in told.without}
    count = told.rounds or (1 if told.quick else 3)
    rounds = [one_round(ways, pairs, spec, told.cache) for _ in range(count)]
    result = {"bench": "score", "rows": rows, "rounds": count, **report(rounds)}
    for name, value in result.items():
        print(f"{name:>24}  {value}")
    print(json.dumps(result | {"load": os.getloadavg()}))


if __name__ == "__main__":
    main()
