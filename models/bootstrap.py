"""The bootstrap scorer's model: a small CLIP trained on the pool itself, one per fold, pure and
seeded.

Cross-fitting: the model of fold k is trained on all pairs but those of fold k, and scores those.
Who is in which fold is the caller's: copies of an image and equal captions belong together, so that
no model has seen what it judges. Training at the default sizes sees 110 pairs per CPU second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.base import Image
from models.clip import Model, info_nce, small_clip
from models.decode import over_white
from models.vocabulary import Vocabulary
from schemas.configs import BootstrapScorer

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, Any]  # name -> tensor on the CPU
Array = np.ndarray[Any, np.dtype[Any]]
Progress = Callable[[int, float], None]

MAX_LOGIT_SCALE = math.log(100)  # CLIP, section 2.5
BETAS = (0.9, 0.98)  # CLIP, table 19, for its ViTs
EPSILON = 1e-6


def to_small(image: Image, size: int) -> Image:
    """The whole image at (size, size, 3) uint8, alpha over white, by area.

    Squashed rather than padded: at 64 pixels a border would cost what the model sees, and how long
    an image is says something about its content too.
    """
    import cv2

    small: Image = np.asarray(
        cv2.resize(over_white(image), (size, size), interpolation=cv2.INTER_AREA), np.uint8
    )
    return small


def train_fold(
    images: Array,
    captions: Sequence[str],
    config: BootstrapScorer,
    vocabulary: Vocabulary,
    seed: int,
    image_ids: Array | None = None,
    progress: Progress | None = None,
) -> State:
    """Train one model and return its weights; equal arguments give equal bits on the same kind of
    CPU.

    images: uint8 (n, s, s, 3) of `to_small`, s = config.image_size; an np.memmap will do. captions:
    n texts. Give rows in an order that says nothing, such as by uid: batches are drawn by position
    from `seed`. image_ids: int (n,), equal for copies of an image. Pairs of a batch that share an
    image or a caption (as the vocabulary sees it) are no negatives of each other. progress: called
    with step (from 1) and loss. Runs on the GPU where there is one, else on `config.threads`
    threads, which are restored afterwards. Raises ValueError with fewer than two pairs, or images
    of another shape.
    """
    import torch

    shape = (len(captions), config.image_size, config.image_size, 3)
    if len(captions) <= 1 or images.shape != shape:
        raise ValueError(
            f"bootstrap: images are {images.shape}, needed {shape} with at least 2 pairs"
        )
    tokens = vocabulary.encode(captions, config.context_length)
    caption_ids = np.unique(tokens, axis=0, return_inverse=True)[1].reshape(-1)
    ids = [caption_ids] if image_ids is None else [caption_ids, image_ids]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _seeded(seed, config.threads):
        model = build(config, vocabulary.size).to(device).train()
        optimizer = _optimizer(model, config)
        for step, rows in enumerate(_batches(len(captions), config, seed)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            same = np.logical_or.reduce([of[rows, None] == of[None, rows] for of in ids])
            seen = shifted(images[rows], config.shift, np.random.default_rng([seed, step, 1]))
            loss = _step(model, optimizer, seen, tokens[rows], same)
            if progress is not None:
                progress(step + 1, float(loss))
    return {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}


def shifted(images: Array, most: int, draw: np.random.Generator) -> Array:
    """A batch of images moved around by up to `most` pixels each way, all by the same: what little
    augmentation keeps a small model from memorising its pool.
    """
    return np.roll(images, draw.integers(-most, most, 2, endpoint=True), axis=(1, 2))


def _step(model: Model, optimizer: Any, images: Array, tokens: Array, same: Array) -> Tensor:
    import torch

    scale = model.logit_scale
    image_emb = model.encode_image(pixels(images).to(scale.device), normalize=True)
    text_emb = model.encode_text(torch.from_numpy(tokens).to(scale.device), normalize=True)
    loss = info_nce(image_emb, text_emb, scale.exp(), torch.from_numpy(same).to(scale.device))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        scale.clamp_(0, MAX_LOGIT_SCALE)
    return loss.detach()


def build(config: BootstrapScorer, vocab_size: int) -> Model:
    """The untrained model of a config."""
    return small_clip(
        vocab_size=vocab_size,
        context_length=config.context_length,
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        layers=config.layers,
        text_width=config.text_width,
        text_layers=config.text_layers,
        embed_dim=config.embed_dim,
    )


def learning_rate(step: int, config: BootstrapScorer) -> float:
    """Linear warm-up over `warmup` steps, then a cosine to 0 at `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def _batches(n: int, config: BootstrapScorer, seed: int) -> Iterator[Array]:
    """`config.steps` batches of rows: a new permutation per epoch, its incomplete last batch left
    out."""
    size = min(config.train_batch_size, n)
    for step in range(config.steps):
        epoch, place = divmod(step, n // size)
        if place == 0:
            order = np.random.default_rng([seed, epoch]).permutation(n)
        yield order[place * size : (place + 1) * size]


def _optimizer(model: Model, config: BootstrapScorer) -> Any:
    """AdamW; gains, biases and the temperature are not decayed (CLIP, section 2.5)."""
    import torch

    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, eps=EPSILON)


@contextmanager
def _seeded(seed: int, threads: int) -> Iterator[None]:
    """Torch seeded and on so many threads within; both as they were afterwards."""
    import torch

    with on_threads(threads), torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        torch.manual_seed(seed)
        yield


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """Torch on so many CPU threads: a result's last bits depend on their number. None: as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pixels(images: Array) -> Tensor:
    """uint8 (n, s, s, 3) as float32 (n, 3, s, s) in -1..1."""
    import torch

    return (
        torch.from_numpy(np.ascontiguousarray(images))
        .permute(0, 3, 1, 2)
        .float()
        .div_(127.5)
        .sub_(1.0)
    )


def embed_images(model: Model, images: Array, batch_size: int) -> Array:
    """L2-normalised float32 (n, d) of uint8 (n, s, s, 3)."""
    return _embed(
        model, lambda part: model.encode_image(part, normalize=True), images, batch_size, pixels
    )


def embed_tokens(model: Model, tokens: Array, batch_size: int) -> Array:
    """L2-normalised float32 (n, d) of int64 (n, context_length)."""
    import torch

    return _embed(
        model,
        lambda part: model.encode_text(part, normalize=True),
        tokens,
        batch_size,
        torch.from_numpy,
    )


def _embed(
    model: Model, encode: Any, items: Array, batch_size: int, tensor: Callable[[Array], Tensor]
) -> Array:
    import torch

    parts = [np.empty((0, model.visual.output_dim), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(items), batch_size):
            part = tensor(items[start : start + batch_size]).to(model.logit_scale.device)
            parts.append(encode(part).float().cpu().numpy())
    return np.concatenate(parts)


def load_folds(folder: Path, config: BootstrapScorer) -> tuple[list[Model], Vocabulary]:
    """The models of all folds in eval mode, on the GPU where there is one, and their vocabulary.

    Raises ValueError with the file that is missing or does not fit the config.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    vocabulary = Vocabulary.load(vocabulary_of(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = []
    for fold in range(config.folds):
        path = fold_of(folder, fold)
        with torch.random.fork_rng(devices=[]):
            model = build(config, vocabulary.size)
        try:
            model.load_state_dict(load_file(path))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{path}: no model of this config ({type(error).__name__}); "
                f"fit scorer {config.name} again"
            ) from error
        models.append(model.eval().to(device))
    return models, vocabulary


def fold_of(folder: Path, fold: int) -> Path:
    """Where the model that did not see a fold lies in an artifact."""
    return folder / f"fold_{fold:02d}.safetensors"


def vocabulary_of(folder: Path) -> Path:
    """Where the vocabulary lies in an artifact."""
    return folder / "vocabulary.json"
