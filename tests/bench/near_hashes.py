"""The search for near hashes alone, as a process of its own: ours, or one of imagededup's.

    python tests/bench/near_hashes.py ours|bktree|brute_force|brute_force_cython HASHES.npy RADIUS

The last line says the seconds, imports and the reading of the file aside, and how many pairs there
are.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))


def ours(values: Any, radius: int) -> int:
    from curate.duplicates.hamming import pairs_in_view, plan

    blocks, views = plan(len(values), radius)
    return sum(len(pairs_in_view(values, radius, blocks, view)[0]) for view in views)


def theirs(values: Any, radius: int, how: str) -> int:
    from imagededup.methods import PHash  # type: ignore[import-not-found]

    encodings = {f"{i:07d}.png": f"{int(v):016x}" for i, v in enumerate(values)}
    found = PHash(verbose=False).find_duplicates(
        encoding_map=encodings,
        max_distance_threshold=radius,
        search_method=how,
        num_dist_workers=2,
    )
    return sum(map(len, found.values())) // 2


def main() -> None:
    how, file, radius = sys.argv[1], sys.argv[2], int(sys.argv[3])
    values = np.load(file)
    search = ours if how == "ours" else theirs
    more = () if how == "ours" else (how,)
    search(values[:1000], radius, *more)  # imports and first calls
    began = time.perf_counter()
    pairs = search(values, radius, *more)
    print(json.dumps({"seconds": time.perf_counter() - began, "pairs": pairs}))


if __name__ == "__main__":
    main()
