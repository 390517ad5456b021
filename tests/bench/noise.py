"""The noise rate of pools with planted mismatches, and what it costs.

    uv run python tests/bench/noise.py [--quick] [--demo DIR]

Prints, by signal level and planted share: AUC of the loss and of the cosine, mean probability, the
noise rate with its interval, and beside it the share above the mismatches' median, doubled. Then
the same of a demo's pool (`curate demo --out DIR`), whose mismatches are known, of all folds and of
each. Last comes one JSON line. Synthetic pairs are Gaussian: a common vector and noise of its own
on either side.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.demo.verdict import auc
from curate.fits.noise import fitted, losses_of
from curate.fits.references import captions_of, embeddings, hashes_of
from models.contrast import Array, Pairs, References, codes_of
from models.mixture import Mixture
from schemas.configs import NoiseScorer
from tests.embedded import LEVELS, embedded, reference_sets

PLANTED = (0.0, 0.02, 0.1, 0.3, 0.5)
WEAK = {"0.78": 0.4, "0.87": 0.5}  # signal by AUC: scorers that cannot tell
CONFIG = NoiseScorer()
HEAD = (
    f"{'level':>9}{'planted':>9}{'AUC loss':>10}{'cosine':>8}{'mean prob':>11}"
    f"{'rate':>8}{'interval':>18}{'median form':>13}{'seconds':>9}"
)
Row = dict[str, Any]
Fold = tuple[Pairs, References, Array]  # and which pairs are planted mismatches


def main() -> None:
    """Print the tables, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--demo", type=Path, default=None)
    args = parser.parse_args()
    print(HEAD)
    rows = []
    for level, signal in (WEAK | LEVELS).items():
        for planted in PLANTED[::2] if args.quick else PLANTED:
            pool = embedded(2000 if args.quick else 4096, signal, planted)
            fold = (pool.pairs(), reference_sets(pool), pool.planted)
            rows.append(measured(level, [fold]))
    if args.demo:
        rows += of_demo(args.demo)
    print(json.dumps({"bench": "noise", "rows": rows}))


def measured(level: str, folds: Sequence[Fold]) -> Row:
    """One pool, fitted and scored; printed."""
    began = time.perf_counter()
    found = fitted([fold[:2] for fold in folds], CONFIG)
    seconds = time.perf_counter() - began
    losses = (losses_of(*fold[:2], CONFIG.temperature) for fold in folds)
    true, wrong = map(np.concatenate, zip(*losses, strict=True))
    scores = np.concatenate([pairs.scores for pairs, _, _ in folds])
    bad = np.concatenate([planted for _, _, planted in folds])
    tells = 0 < bad.sum() < len(bad)
    row = {
        "level": level,
        "planted": float(bad.mean()),
        "auc_loss": auc(true[bad], true[~bad]) if tells else None,
        "auc_cosine": auc(-scores[bad], -scores[~bad]) if tells else None,
        "mean_prob": float(Mixture(**found["mixture"]).noise_prob(true).mean()),
        **{name: found[name] for name in ("noise_rate", "lower", "upper")},
        "median_form": float((true > np.median(wrong)).mean() / 0.5),
        "seconds": seconds,
    }
    print(_line(row), flush=True)
    return row


def _line(row: Row) -> str:
    told = [
        f"{row[name]:.3f}" if row[name] is not None else "-" for name in ("auc_loss", "auc_cosine")
    ]
    interval = f"{row['lower']:.3f} to {row['upper']:.3f}"
    return (
        f"{row['level']:>9}{row['planted']:9.1%}{told[0]:>10}{told[1]:>8}{row['mean_prob']:11.3f}"
        f"{row['noise_rate']:8.3f}{interval:>18}{row['median_form']:13.3f}{row['seconds']:9.2f}"
    )


def of_demo(folder: Path) -> list[Row]:
    """The bootstrap's embeddings of a demo, each by the model that held the pair out: with every
    planted fault, with swapped captions alone, and without any.
    """
    pairs, kinds, folds = _stored(folder)
    swapped, clean = kinds == "swapped", np.isin(kinds, ("clean", "flaky_500"))
    chosen = {"all": clean | True, "swapped": clean | swapped, "clean": clean}
    rows = []
    for name, mask in chosen.items():
        each = [_fold(pairs, folds == f, mask, swapped) for f in np.unique(folds)]
        rows.append(measured(name, each))
        rows += [measured(f"{name} {f}", [one]) for f, one in enumerate(each)]
    return rows


def _fold(pairs: Pairs, held_out: Array, mask: Array, swapped: Array) -> Fold:
    """The masked pairs of a fold, against random sets of all of it."""
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(held_out))[:1024]
    rows = drawn[: len(drawn) // 4 * 4].reshape(4, -1)
    references = References(pairs.images[rows], pairs.texts[rows], pairs.codes[rows])
    return _at(pairs, mask & held_out), references, swapped[mask & held_out]


def _at(pairs: Pairs, mask: Array) -> Pairs:
    return replace(pairs, **{name: array[mask] for name, array in vars(pairs).items()})


def _stored(folder: Path) -> tuple[Pairs, Array, Array]:
    """All scored pairs of a demo, what was planted in each, and their folds."""
    data = Dataset(str(folder.resolve() / "dataset"))
    planted = pq.read_table(folder / "pool" / "truth.parquet").to_pylist()
    kind_of = {(row["url"], row["caption"]): row["kind"] for row in planted}
    found, kinds = [], []
    for part in sorted(data.parts("scores_bootstrap")):
        rows = data.read("scores_bootstrap", part)
        rows = rows.filter(rows["error"].is_null())
        uids, hashes, captions = (
            rows["uid"].to_pylist(),
            hashes_of(data, part),
            captions_of(data, part),
        )
        urls = data.read("urls", part, ["uid", "url"]).to_pydict()
        url_of = dict(zip(urls["uid"], urls["url"], strict=True))
        codes = codes_of(uids, [hashes[u] for u in uids], [captions[u] for u in uids])
        emb = (embeddings(rows[name]) for name in ("own_image_emb", "own_text_emb"))
        found.append((*emb, rows["clip_score"].to_numpy(), codes, rows["fold"].to_numpy()))
        kinds += [kind_of[url_of[u], captions[u]] for u in uids]
    *arrays, folds = (np.concatenate(a) for a in zip(*found, strict=True))
    return Pairs(*arrays), np.array(kinds), folds


if __name__ == "__main__":
    main()
