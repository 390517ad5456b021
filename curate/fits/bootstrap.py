"""Bootstrap: train the small models of the bootstrap scorer on the pool, so that none of them saw
what it scores.

1. Take at most `max_pairs` downloaded pairs, those with the lowest hash(seed, uid).
2. Join pairs with equal bytes or equal captions into groups (connected components): a group is in
one fold.
3. Fold of a group = another hash(seed, its lowest uid) modulo `folds`; train one model per fold on
all other folds.
4. A pair that is not in the sample belongs to the fold of the sampled pair with its image, else
with its caption, else
   to a fold by its own hash.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.claims import digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.progress import progress
from curate.query import connect, select
from curate.shards import batches
from curate.storage import as_local, writing
from models.bootstrap import fold_of, vocabulary_of
from schemas.configs import BootstrapScorer, Workers
from schemas.tables import draw

_SAMPLED = r"""
SELECT s.uid, s.sha256, u.caption
FROM samples s JOIN urls u ON u.uid = s.uid
WHERE s.status = 'success' AND regexp_matches(u.caption, '[^\s\p{Z}]')
ORDER BY sha256(concat(?::VARCHAR, chr(0), s.uid)) LIMIT ?
"""


def fit(data: Dataset, config: BootstrapScorer, workers: Workers | int = 0) -> str:
    """Train the folds' models on the pool at this version; returns the artifact's key. Finished
    folds are kept.
    """
    key = digest([config.claimed(), data.fingerprint(["urls", "samples"])])
    folder = data.artifact(config.name, key, lambda scratch: _plan(data, config, Path(scratch)))
    todo = [f for f in range(config.folds) if not data.fs.exists(str(fold_of(Path(folder), f)))]

    def build() -> Work:
        return lambda fold: _train(data, config, folder, fold)

    run_parts(build, todo, workers, label="bootstrap", model=True)
    return key


def _plan(data: Dataset, config: BootstrapScorer, folder: Path) -> None:
    from models.vocabulary import Vocabulary

    con = connect(data)
    rows = select(con, _SAMPLED, [str(config.seed), config.max_pairs]).sort_by("uid")
    con.close()
    if rows.num_rows < 2 * config.folds:
        raise ValueError(
            f"scorer {config.name!r} trains on the pool; {data.root} has {rows.num_rows} downloaded"
            f" pairs with a caption and {2 * config.folds} are the least: use a pretrained `clip`"
        )
    uids, hashes, captions = (rows[c].to_pylist() for c in ("uid", "sha256", "caption"))
    folds = folds_of(uids, hashes, captions, config.folds, config.seed)
    _refuse_one_group(folds, config.name, data.root)
    pq.write_table(
        rows.append_column("fold", pa.array(folds, pa.int16())), folder / "folds.parquet"
    )
    Vocabulary.learn(rows["caption"].to_pylist(), config.vocabulary).save(vocabulary_of(folder))


def _refuse_one_group(folds: list[int], name: str, root: str) -> None:
    """Raise ValueError where the others of a fold are too few to train its model on."""
    fold, held_out = max(Counter(folds).items(), key=lambda item: item[1])
    if len(folds) - held_out < 2:  # noqa: PLR2004  a pair needs a negative
        raise ValueError(
            f"scorer {name!r} trains on the pool; of the {len(folds)} pairs of {root}, {held_out}"
            f" are in fold {fold}, joined by equal captions or images: drop such captions from the"
            " list, give the scorer another `seed`, or use a pretrained `clip`"
        )


def folds_of(
    uids: list[str], hashes: list[str], captions: list[str], folds: int, seed: int
) -> list[int]:
    """Fold of each pair, such that pairs joined by equal hashes or equal captions (case and outer
    blanks aside) share theirs.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    def codes(values: list[str]) -> np.ndarray[Any, Any]:
        return np.unique(np.array(values, dtype=object).astype(str), return_inverse=True)[1]

    n = len(uids)
    image, text = codes(hashes), codes([_plain(c) for c in captions])
    ends = np.concatenate([n + image, n + image.max(initial=0) + 1 + text])
    size = int(ends.max(initial=n)) + 1
    edges = coo_matrix((np.ones(2 * n), (np.tile(np.arange(n), 2), ends)), shape=(size, size))
    groups = connected_components(edges, directed=False)[1][:n]
    lowest: dict[int, str] = {}
    for group, uid in sorted(zip(groups.tolist(), uids, strict=True), key=lambda pair: pair[1]):
        lowest.setdefault(group, uid)
    return [drawn_fold(seed, lowest[g], folds) for g in groups.tolist()]


def drawn_fold(seed: int, uid: str, folds: int) -> int:
    """A fold by the hash of (seed, uid); by another one than the sample, whose pairs have low
    ones.
    """
    return int(draw(seed, f"fold {uid}") * folds)


def _plain(caption: str) -> str:
    return caption.strip().casefold()


def _train(data: Dataset, config: BootstrapScorer, folder: str, fold: int) -> Stats:
    from safetensors.torch import save

    from models.bootstrap import train_fold
    from models.vocabulary import Vocabulary

    plan = _read(data, f"{folder}/folds.parquet")
    chosen = [i for i, f in enumerate(plan["fold"]) if f != fold]
    images = _small_images(
        data, {plan["uid"][i]: j for j, i in enumerate(chosen)}, config.image_size
    )
    copies = np.unique([plan["sha256"][i] for i in chosen], return_inverse=True)[1]
    with as_local(data.fs, folder) as local:
        vocabulary = Vocabulary.load(vocabulary_of(local))
    captions = [plan["caption"][i] for i in chosen]
    with progress(f"bootstrap {fold}", config.steps, "steps") as advance:
        state = train_fold(
            images,
            captions,
            config,
            vocabulary,
            config.seed + fold,
            copies,
            lambda step, loss: advance(config.train_batch_size),
        )
    with writing(data.fs, str(fold_of(Path(folder), fold))) as stream:
        stream.write(save(state))
    return {"rows": len(chosen)}


def _read(data: Dataset, path: str) -> dict[str, list[Any]]:
    with data.fs.open(path, "rb") as stream:
        rows: dict[str, list[Any]] = pq.read_table(stream).to_pydict()
    return rows


def _small_images(data: Dataset, rows: dict[str, int], size: int) -> np.ndarray[Any, Any]:
    """The sampled pairs' images at the model's size: uint8 (len(rows), size, size, 3)."""
    from models.bootstrap import to_small

    images = np.full((len(rows), size, size, 3), 255, np.uint8)
    for part in sorted(data.parts("samples")):
        uids = data.read("samples", part, ["uid"])["uid"].to_pylist()
        for batch in batches(data, part, keep=[u in rows for u in uids]):
            for uid, image in zip(batch.uids, batch.images, strict=True):
                if image is not None:
                    images[rows[uid]] = to_small(image, size)
    return images


def columns(data: Dataset, config: BootstrapScorer, key: str, part: int) -> dict[str, list[Any]]:
    """The fold of each pair of a part, in the order of its `samples`."""
    plan = _read(data, f"{data.path}/_artifacts/{config.name}/{key}/folds.parquet")
    by_uid = dict(zip(plan["uid"], plan["fold"], strict=True))
    by_hash = dict(zip(plan["sha256"], plan["fold"], strict=True))
    by_caption = dict(zip(map(_plain, plan["caption"]), plan["fold"], strict=True))
    samples = data.read("samples", part, ["uid", "sha256"]).to_pydict()
    captions = _captions(data, part)
    folds = []
    for uid, sha256 in zip(samples["uid"], samples["sha256"], strict=True):
        alike = by_hash.get(sha256, by_caption.get(_plain(captions[uid] or "")))
        known = by_uid.get(uid, alike)
        folds.append(drawn_fold(config.seed, uid, config.folds) if known is None else known)
    return {f"{config.name}__fold": folds}


def _captions(data: Dataset, part: int) -> dict[str, str | None]:
    urls = data.read("urls", part, ["uid", "caption"]).to_pydict()
    return dict(zip(urls["uid"], urls["caption"], strict=True))
