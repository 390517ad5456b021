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
from types import ModuleType
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))


def ours(values: Any, radius: int) -> int:
    from curate.duplicates.hamming import pairs_in_view, plan

    blocks, views, _ = plan(len(values), radius)
    some = (pairs_in_view(values, values[:0], radius, blocks, view) for view in views)
    return sum(len(left) for pairs in some for left, _ in pairs)


def theirs(values: Any, radius: int, how: str) -> int:
    # importing its package fetches the weights of a network, which is not what is measured here
    without = ModuleType("imagededup.methods.cnn")
    without.CNN = None  # type: ignore[attr-defined]
    sys.modules["imagededup.methods.cnn"] = without
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
