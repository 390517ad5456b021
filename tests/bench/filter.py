"""How fast a new threshold is tried, and decisions are written, on a long list of scores.

    uv run python tests/bench/filter.py            10 million pairs
    uv run python tests/bench/filter.py --quick    1 million pairs

Makes a dataset of synthetic urls, samples and four score tables in parts of 10 000 pairs, as a run
would leave it (2 % failed downloads, 1 % unknown scores), then asks what another threshold of one
table keeps, tunes it, decides by it, and decides by rules over all four. Prints a small table, then
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset
from curate.filter import filter_pairs
from curate.tune import tune
from curate.what_if import changed, what_if
from schemas.configs import Rule, Rules
from schemas.tables import SAMPLES, SCORES, URLS, scores

PART_ROWS = 10_000
KINDS = ("clip", "image_stats", "text_stats", "noise")
ONE = [Rule(name="low_clip", value="scores_clip__clip_score", drop_below=0.25)]
FOUR = [
    Rule(name="small", drop_if="least(scores_image_stats__width, scores_image_stats__height) < 50"),
    Rule(name="few_words", value="scores_text_stats__words", drop_below=3),
    Rule(name="noisy", value="scores_noise__noise_prob", drop_above=0.9),
    Rule(name="low_clip", value="scores_clip__clip_score", keep_top=0.3),
]


def texts(rng: np.random.Generator, n: int) -> pa.Array:
    """Sorted hexadecimal texts of 32 characters."""
    data = rng.bytes(16 * n).hex().encode()
    offsets = pa.py_buffer(np.arange(0, 32 * n + 1, 32, dtype=np.int32))
    made = pa.Array.from_buffers(pa.string(), n, [None, offsets, pa.py_buffer(data)])
    return made.take(pc.sort_indices(made))


def score_table(rng: np.random.Generator, kind: str, uids: pa.Array) -> pa.Table:
    """Random scores of a kind; one in a hundred is unknown."""
    n, columns = len(uids), {"uid": uids, "caption_id": uids}
    for field in SCORES[kind]:
        if pa.types.is_floating(field.type):
            values: Any = rng.normal(0.22, 0.06, n) if kind == "clip" else rng.random(n)
        elif pa.types.is_boolean(field.type):
            values = rng.random(n) < 0.05
        else:
            values = rng.integers(0, 1000, n)
        made = pa.array(values, mask=rng.random(n) < 0.01)
        columns[field.name] = made.cast(field.type)
    schema = scores(kind)
    return pa.table(columns | {"error": pa.nulls(n, pa.string())}).select(schema.names)


def pairs_of(part: int) -> tuple[pa.Array, np.ndarray[Any, Any]]:
    """The uids of a part, and which of them failed to download."""
    rng = np.random.default_rng(part)
    return texts(rng, PART_ROWS), rng.random(PART_ROWS) < 0.02


def urls_table(part: int) -> dict[str, pa.Table]:
    """urls of one part."""
    uids, _ = pairs_of(part)
    url = pc.binary_join_element_wise("https://images.example.org", uids, "photo.jpg", "/")
    caption = pc.binary_join_element_wise("a photo of something red", uids, " ")
    known = {"uid": uids, "url": url, "caption": caption}
    columns = [known.get(f.name, pa.nulls(PART_ROWS, f.type)) for f in URLS]
    return {"urls": pa.table(columns, schema=URLS)}


def samples_table(part: int) -> dict[str, pa.Table]:
    """samples of one part, without thumbnails."""
    uids, failed = pairs_of(part)
    rng = np.random.default_rng([1, part])
    size = pa.array(rng.integers(1, 2000, PART_ROWS), pa.int32())
    known = {
        "uid": uids,
        "key": uids,
        "status": pc.if_else(pa.array(failed), "failed_to_download", "success"),
        "original_width": size,
        "original_height": size,
        "sha256": pc.binary_join_element_wise(uids, uids, ""),
        "phash": pa.array(rng.integers(0, 2**63, PART_ROWS), pa.uint64()),
    }
    columns = [known.get(f.name, pa.nulls(PART_ROWS, f.type)) for f in SAMPLES]
    return {"samples": pa.table(columns, schema=SAMPLES)}


def score_tables(part: int) -> dict[str, pa.Table]:
    """The scores of one part, of what was downloaded."""
    uids, failed = pairs_of(part)
    had, rng = uids.filter(pa.array(~failed)), np.random.default_rng([2, part])
    return {f"scores_{kind}": score_table(rng, kind, had) for kind in KINDS}


def make(root: str, parts: int) -> None:
    """Write and publish the dataset."""
    data = Dataset(root)
    scored = [f"scores_{kind}" for kind in KINDS]
    write(data, ["urls"], (), urls_table, parts)
    write(data, ["samples"], ("urls",), samples_table, parts)
    write(data, scored, ("urls", "samples"), score_tables, parts)


def write(
    data: Dataset,
    tables: Sequence[str],
    of: Sequence[str],
    rows_of: Callable[[int], dict[str, pa.Table]],
    parts: int,
) -> None:
    """Write some tables part by part, and publish them."""
    claims = [data.claim(table, Rules(), of=of) for table in tables]

    def one(part: int) -> None:
        made = rows_of(part)
        for claim in claims:
            data.write(claim, part, made[claim.table])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(parts)))
    data.publish(*claims)


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, processor seconds of this process, and what came of it."""
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    return round(time.perf_counter() - began, 2), round(time.process_time() - cpu, 2), result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    total = 1_000_000 if parser.parse_args().quick else 10_000_000
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as root:
        maker = multiprocessing.get_context("spawn").Process(
            target=make, args=(root, total // PART_ROWS)
        )
        maker.start()
        maker.join()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data = Dataset(root)
        other = changed(ONE, ["low_clip.drop_below=0.3"])
        steps = {
            "first_decision": lambda: filter_pairs(data, ONE),
            "what_if_one_table": lambda: what_if(data, other),
            "tune_one_table": lambda: tune(data, ONE, "low_clip", [0.3]),
            "one_table_written": lambda: filter_pairs(data, other),
            "four_tables_written": lambda: filter_pairs(data, FOUR),
        }
        took = {name: timed(step) for name, step in steps.items()}
        found = took["what_if_one_table"][2]
        result = {
            "bench": "filter",
            "pairs": total,
            **{f"{name}_s": wall for name, (wall, _, _) in took.items()},
            **{f"{name}_cpu_s": cpu for name, (_, cpu, _) in took.items()},
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "rss_before_mb": round(before / 1024),
            "kept_today": found.today,
            "kept_then": found.then,
            "failing_rows": data.rows("rules_failed"),
            "parts": len(data.parts("samples")),
        }
    for name, value in result.items():
        print(f"{name:>28}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
