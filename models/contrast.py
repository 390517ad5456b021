"""What tells a pair from others: its contrastive loss against fixed sets of reference pairs.

Of a pair with cosine s, an image v and a caption t, against a set of B pairs, in nats:

    loss = -s / tau + (log(exp(s / tau) + (B - 1) mean_j exp(v . t_j / tau))
                     + log(exp(s / tau) + (B - 1) mean_j exp(v_j . t / tau))) / 2

where j runs over the set's pairs that share neither the image's bytes nor the caption: those are no
negatives, and the pair itself, a member or not, counts once. For a pair of the set that shares
neither with another this is the symmetric InfoNCE row of CLIP (Radford et al. 2021, figure 3).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
CELLS = 1 << 22  # similarities that are held at once: 16 MB
FILES = ("images", "texts", "codes")
FOLD = "fold_"  # and its number: the folder of its sets


@dataclass(frozen=True)
class Pairs:
    """n pairs by their stored embeddings.

    images, texts: float (n, d), of unit length; scores: float32 (n,), their cosines; codes: int64
    (n, 2), equal where the image's bytes or the caption are.
    """

    images: Array
    texts: Array
    scores: Array
    codes: Array

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class References:
    """Sets of reference pairs: images, texts (sets, size, d) float16, codes (sets, size, 2)."""

    images: Array
    texts: Array
    codes: Array

    @classmethod
    def load(cls, folder: Path) -> References:
        """From a fitted folder, mapped into memory: workers of one machine share the pages."""
        found = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in FILES)
        return cls(*found)

    def save(self, folder: Path) -> None:
        """As the files that `load` reads; makes the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            np.save(folder / f"{name}.npy", getattr(self, name))


def save_spaces(spaces: Mapping[int, References], folder: Path) -> None:
    """Reference sets by fold, each in a folder of its own."""
    for fold, references in spaces.items():
        references.save(folder / f"{FOLD}{fold:02d}")


def load_spaces(folder: Path) -> dict[int, References]:
    """Reference sets by the fold whose pairs they are compared with, in the space of the model that
    held it out; {0: ...} where the folder has one for all, the space being one.
    """
    found = {int(each.name.removeprefix(FOLD)): each for each in folder.glob(f"{FOLD}*")}
    return {fold: References.load(found[fold]) for fold in sorted(found)} or {
        0: References.load(folder)
    }


def codes_of(uids: Sequence[str], hashes: Iterable[Any], captions: Iterable[Any]) -> Array:
    """int64 (n, 2): 64 bits that stand for the image's bytes (without a hash: for the pair) and for
    the caption, case and outer blanks aside.
    """
    images = [_code(hashed or uid) for uid, hashed in zip(uids, hashes, strict=True)]
    texts = [_code((caption or "").strip().casefold()) for caption in captions]
    return np.array([images, texts], np.int64).T.reshape(-1, 2)


def _code(text: str) -> int:
    hashed = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return int.from_bytes(hashed[:8], "big", signed=True)


def contrastive_loss(
    pairs: Pairs, references: References, temperature: float, mismatched: bool = False
) -> Array:
    """The loss of each pair, its mean over the sets: float64 (n,).

    mismatched: the pairs were put together wrongly; an image's own caption and a caption's own
    image are then negatives, as they are for a wrong pair that was found.
    NaN where a set has nothing to compare a pair with. On the GPU where there is one.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    total = np.zeros(len(pairs))
    with torch.inference_mode():
        own = torch.tensor(pairs.scores, dtype=torch.float32, device=device) / temperature
        codes = torch.tensor(pairs.codes, device=device)
        for which in range(len(references.codes)):
            images, texts = (
                torch.tensor(side[which], dtype=torch.float32, device=device) / temperature
                for side in (references.images, references.texts)
            )
            theirs = torch.tensor(references.codes[which], device=device)
            step = max(1, CELLS // len(theirs))
            for start in range(0, len(pairs), step):
                rows = slice(start, start + step)
                image, text = (codes[rows, c, None] == theirs[:, c] for c in (0, 1))
                either = image | text
                sides = (
                    (pairs.images[rows], texts, text if mismatched else either),
                    (pairs.texts[rows], images, image if mismatched else either),
                )
                sums = sum(
                    _log_sum(_floats(mine, device), side, own[rows], same)
                    for mine, side, same in sides
                )
                total[rows] += (sums / 2 - own[rows]).double().cpu().numpy()
    return total / len(references.codes)


def _floats(rows: Array, device: Any) -> Any:
    import torch

    return torch.tensor(np.asarray(rows), dtype=torch.float32, device=device)


def _log_sum(mine: Any, theirs: Any, own: Any, same: Any) -> Any:
    """log(exp(own) + (B - 1) mean_j exp(mine . theirs_j)) over the j that are not the same."""
    import torch

    negatives = (mine @ theirs.T).masked_fill_(same, -math.inf)
    counts = (~same).sum(1)
    mean = torch.logsumexp(negatives, 1) - torch.log(counts)
    weighted = mean + math.log(max(same.shape[1] - 1, 1))
    return torch.where(counts > 0, torch.logaddexp(own, weighted), math.nan)
