"""One scoring as a process of its own: the bare model, our stage, or a peer, on the same pairs.

    PYTHON tests/bench/scorers.py bare|ours|three|clip-retrieval|data-juicer SPEC.json

The spec says where the dataset is, where its pairs lie as files and as JSON lines, the weights in
open_clip's and in Hugging Face's format, the batch size, and where to write. Loading the model is
not measured; a few pairs go through it first. The last line is JSON: seconds, rows, and more.
The peers are run by their own Python: nothing of ours is imported for them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Spec = dict[str, Any]


def bare(spec: Spec) -> dict[str, float]:
    """Forward passes alone, on tensors that are ready, in the batches of the stage; the text tower
    on the tokens that matter, and on all 77.
    """
    import torch

    import models
    from curate.dataset import Dataset
    from curate.shards import batches
    from schemas.configs import ClipScorer

    unit: Any = models.scorer(ClipScorer(model=spec["model"], batch_size=spec["batch_size"]))
    ready = []
    for batch in batches(Dataset(spec["dataset"]), 0, size=spec["batch_size"]):
        pixels = [unit.prepare(image) for image in batch.images]
        floats = unit.prepare.floats(pixels, unit.device, unit.dtype)
        tokens = unit.tokenizer([caption or "" for caption in batch.captions])
        ready.append((floats, tokens, unit.tower.batches(tokens, unit.texts.rows)))
    spent = dict.fromkeys(("image_s", "text_s", "text_77_s"), 0.0)
    with torch.inference_mode():
        unit.model.encode_image(ready[0][0][:8])
        unit.tower(ready[0][1][:8])
        for floats, tokens, groups in ready:
            began = time.perf_counter()
            for some in floats.split(unit.images.rows):
                unit.model.encode_image(some)
            spent["image_s"] += time.perf_counter() - began
            began = time.perf_counter()
            for places in groups:
                unit.tower(tokens[places])
            spent["text_s"] += time.perf_counter() - began
            began = time.perf_counter()
            for some in tokens.split(unit.texts.rows):
                unit.model.encode_text(some.to(unit.device))
            spent["text_77_s"] += time.perf_counter() - began
    rows = sum(len(tokens) for _, tokens, _ in ready)
    return {"seconds": spent["image_s"] + spent["text_s"], "rows": rows, **spent}


def ours(spec: Spec, kinds: tuple[str, ...] = ("clip",)) -> dict[str, float]:
    """The whole stage without loading: read, decode, preprocess, model, write."""
    import models
    from curate.dataset import Dataset
    from curate.score import score
    from schemas.configs import ClipScorer, ImageStatsScorer, TextStatsScorer

    build, loading = models.scorer, []

    def timed(*args: Any) -> Any:
        began = time.perf_counter()
        unit: Any = build(*args)
        if isinstance(args[0], ClipScorer):  # its first call chooses kernels and buffers
            unit.model.encode_image(unit.prepare.floats([_grey()] * 8, unit.device, unit.dtype))
        loading.append(time.perf_counter() - began)
        return unit

    models.scorer = timed
    clip = ClipScorer(model=spec["model"], batch_size=spec["batch_size"])
    every = {"clip": clip, "image_stats": ImageStatsScorer(), "text_stats": TextStatsScorer()}
    data = Dataset(spec["dataset"])
    began, cpu = time.perf_counter(), time.process_time()
    score(data, [every[kind] for kind in kinds])
    seconds = time.perf_counter() - began - sum(loading)
    return {
        "seconds": seconds,
        "rows": data.rows("scores_clip"),
        "load_s": sum(loading),
        "cpu_s": time.process_time() - cpu,
    }


def _grey() -> Any:
    import numpy as np

    return np.full((224, 224, 3), 128, np.uint8)


def three(spec: Spec) -> dict[str, float]:
    """clip, image_stats and text_stats in one pass."""
    return ours(spec, ("clip", "image_stats", "text_stats"))


def clip_retrieval(spec: Spec) -> dict[str, float]:
    """Its inference over WebDataset shards of images and texts, to .npy files and metadata."""
    from clip_retrieval.clip_inference import mapper
    from clip_retrieval.clip_inference.main import main

    load, loaded = mapper.load_clip, []

    def timed(*args: Any, **more: Any) -> Any:
        model = load(*args, **more)
        loaded.append(time.perf_counter())
        return model

    mapper.load_clip = timed
    main(
        input_dataset=spec["tars"],
        output_folder=spec["out"],
        input_format="webdataset",
        batch_size=spec["batch_size"],
        num_prepro_workers=spec["threads"],
        enable_metadata=False,
        clip_model=f"open_clip:ViT-B-32/{spec['model']}/open_clip_model.safetensors",
        use_jit=False,
        write_batch_size=1 << 20,
    )
    return {"seconds": time.perf_counter() - loaded[0], "rows": spec["rows"]}


def data_juicer(spec: Spec) -> dict[str, float]:
    """Its filter's similarities of all pairs, in this process, to JSON lines."""
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops.filter.image_text_similarity_filter import ImageTextSimilarityFilter
    from datasets import load_dataset

    def run(lines: str) -> Any:
        rows = NestedDataset(load_dataset("json", data_files=lines, split="train"))
        rows = rows.add_column("__dj__stats__", [{}] * len(rows))
        return rows.map(filtered.compute_stats, num_proc=None, load_from_cache_file=False)

    filtered = ImageTextSimilarityFilter(hf_clip=spec["hf_model"], min_score=-1.0, max_score=1.0)
    run(spec["few_lines"])
    began = time.perf_counter()
    found = run(spec["lines"])
    found.to_json(f"{spec['out']}.jsonl")
    return {"seconds": time.perf_counter() - began, "rows": len(found)}


WAYS = {
    "bare": bare,
    "ours": ours,
    "three": three,
    "clip-retrieval": clip_retrieval,
    "data-juicer": data_juicer,
}

if __name__ == "__main__":
    which, told = sys.argv[1:]
    if which in ("bare", "ours", "three"):
        sys.path.insert(0, str(ROOT))
    answer = json.dumps(WAYS[which](json.loads(Path(told).read_text())))
    print(f"\n{answer}", flush=True)
    for child in multiprocessing.active_children():  # clip-retrieval's do not end by themselves
        child.terminate()
    os._exit(0)
