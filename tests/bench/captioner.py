"""The codebook captioner on the demo's pool: does it look at the image, and does it use its codes?

    uv run python tests/bench/captioner.py [--quick] [--demo DIR]

Trains on the survivors and prints, of pairs that are held out, the loss beside that of words by
their frequency and of the same decoder shown the mean of all images or another one; of the whole
pool's images the codes in use; and of held-out drawings of other families how often a caption finds
its own image among the first 5 by the bootstrap scorer, which has seen neither. DIR: of an earlier
demo (`curate demo --out DIR`), to which artifacts are added; else a pool is made, downloaded,
scored and filtered first. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from curate.claims import digest
from curate.codes import write_codes
from curate.dataset import Dataset
from curate.demo.pool import make_pool
from curate.demo.web import serve
from curate.download import download
from curate.filter import filter_pairs
from curate.fits import codebook
from curate.ingest import ingest
from curate.metrics.sets import captioned, pixels
from curate.metrics.ties import expected_hits
from curate.score import score
from models.base import Batch
from models.bootstrap import embed_images, embed_tokens, load_folds, to_small
from models.captioners.codebook import Codebook
from models.quantiser import usage
from schemas.configs import BootstrapScorer, CodebookCaptioner, load_config

RECIPE = Path(__file__).parents[2] / "flows" / "configs" / "demo.yaml"
HOST, PORT = "127.0.0.1", 8765
ASKED, K = 200, 5  # held-out images, places
BARS = {"codes_in_use": 0.6, "times_chance": 5.0}
BASELINES = ("unigram", "mean_image", "other_image")


def main() -> None:
    """Print the figures, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--demo", type=Path, default=None)
    parser.add_argument("--knobs", type=json.loads, default={})
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out = (args.demo or Path(tempfile.mkdtemp(prefix="curate-bench-"))).resolve()
    config = CodebookCaptioner(**({"steps": 100} if args.quick else {}) | args.knobs)
    data = Dataset(str(out / "dataset"))
    if args.demo is None:
        data = pool(out, args.quick)
    began = time.process_time()
    key = codebook.fit(data, config)
    seconds = time.process_time() - began
    folder = Path(data.path, "_artifacts", config.name, key)
    write_codes(data, config, key)
    figures = judged(data, folder, config) | retrieved(data, folder, config, out)
    print(
        json.dumps({"bench": "captioner", "quick": args.quick, "cpu_s": round(seconds), **figures})
    )


def pool(out: Path, quick: bool) -> Dataset:
    """The demo's pool as far as its rules."""
    url, raw = f"http://{HOST}:{PORT}", load_config(RECIPE).model_dump(mode="json")
    made = make_pool(
        out / "pool",
        drawings=1000 if quick else None,
        held_out=ASKED if quick else 400,
        seed=0,
        base_url=url,
    )
    raw["ingest"][0]["path"] = str(made.urls)
    raw["download"]["allow_hosts"] = [f"{HOST}:{PORT}"]
    for scorer in raw["scorers"]:
        if quick and scorer["kind"] == "bootstrap":
            scorer["steps"] = 50
    recipe = type(load_config(RECIPE)).model_validate(raw)
    data = Dataset(str(out / "dataset"))
    with serve(out / "pool", host=HOST, port=PORT):
        ingest(data, recipe.ingest[0])
        download(data, recipe.download)
    score(data, recipe.scorers)
    filter_pairs(data, recipe.rules)
    return data


def judged(data: Dataset, folder: Path, config: CodebookCaptioner) -> dict[str, Any]:
    """Losses of what is held out, in nats per word, and what the pool's images use."""
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    found = [data.read(f"codes_{config.name}", p)["codes"] for p in data.parts("samples")]
    codes = np.array([own for part in found for own in part.to_pylist() if own is not None])
    perplexity, used = usage(torch.from_numpy(codes.astype(np.int64)), config.codes)
    print(f"held-out loss {last['validation']:.3f} nats per word")
    for name in BASELINES:
        print(f"  {name:>12} {last[name]:.3f}")
    print(f"codes in use {used:.1%} of {config.codes}, perplexity {perplexity:.0f}")
    return {
        **{n: last[n] for n in ("train", "validation", *BASELINES)},
        "images": len(codes),
        "codes": config.codes,
        "codes_in_use": used,
        "perplexity": perplexity,
        "beats_baselines": all(last["validation"] < last[name] for name in BASELINES),
        "uses_its_codes": used >= BARS["codes_in_use"],
    }


def retrieved(data: Dataset, folder: Path, config: CodebookCaptioner, out: Path) -> dict[str, Any]:
    """Recall at 5 of an image by its generated caption, beside that of its own caption."""
    sources, owned = captioned(str(out / "pool" / "held_out.parquet"))
    images, original = list(pixels(sources[:ASKED])), [own[0] for own in owned[:ASKED]]
    n = len(images)
    uids = [digest(caption) for caption in original]
    batch = Batch(uids, uids, list(original), list(images), [None] * n)
    told = [found[0] if found else "" for found in Codebook(config, folder)(batch)[0]]
    scorer = BootstrapScorer()
    fitted = Path(data.path, "_artifacts", "bootstrap", data.artifact_in_use("scores_bootstrap"))
    clips, words = load_folds(fitted, scorer)
    small = np.stack([to_small(image, scorer.image_size) for image in images])

    def recall(captions: list[str]) -> float:
        hits = []
        for clip in clips:
            seen = embed_images(clip, small, 256)
            said = embed_tokens(clip, words.encode(captions, scorer.context_length), 256)
            hits.append(expected_hits(said @ seen.T, np.eye(n, dtype=bool), K).mean())
        return float(np.mean(hits))

    found, chance = recall(told), K / n
    shuffled = recall(told[1:] + told[:1])
    for caption, said in list(zip(original, told, strict=True))[:8]:
        print(f"  {caption}\n    -> {said}")
    print(
        f"recall@{K} of {n} images by generated captions {found:.1%}, {found / chance:.1f} times "
        f"chance; by their own captions {recall(original):.1%}, by another's {shuffled:.1%}"
    )
    return {
        "recall_at_5": found,
        "times_chance": found / chance,
        "recall_of_originals": recall(original),
        "recall_of_shuffled": shuffled,
        "distinct_captions": len(set(told)),
        "finds_its_image": found / chance >= BARS["times_chance"],
    }


if __name__ == "__main__":
    main()
