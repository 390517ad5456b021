"""CLIP on exported shards: InfoNCE, AdamW, warm-up and cosine, as in open_clip's trainer.

Pairs of a batch with the same caption or the same uid are no negatives of each other. A step's
randomness (order, captions, augmentation, dropout) comes from (seed, step) alone, so that a resumed
run needs no generator's state: on one machine and with one thread count it gives the same bits.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from curate.encoder import create
from curate.trainers.pool import Pool, Stream
from models.bootstrap import shifted
from models.clip import info_nce
from models.vocabulary import Vocabulary
from schemas.configs import ClipTrainer

CACHE_BYTES = 2 << 30  # of prepared pixels; a pool above that decodes each image each time
MAX_SCALE = math.log(100)  # CLIP, section 2.5


class ClipTraining:
    """A training at some step: call it with a step's number to take that step."""

    def __init__(
        self, config: ClipTrainer, pool: Pool, seed: int, vocabulary: Vocabulary | None
    ) -> None:
        import torch

        self.config, self.pool, self.seed = config, pool, seed
        self.steps = math.ceil(config.samples_seen / config.batch_size)
        self.encoder = create(config, vocabulary, seed)
        self.stream = Stream(len(pool), config.batch_size, seed)
        self.cache = _cache(len(pool), self.encoder)
        self.optimizer = torch.optim.AdamW(
            _groups(self.encoder.model, config.weight_decay),
            lr=config.lr,
            betas=(0.9, config.beta2),
            eps=1e-6,
        )

    def __call__(self, step: int) -> dict[str, float]:
        """Take a step; returns its loss and the learning rate."""
        import torch

        model, lr = self.encoder.model.train(), learning_rate(self.config, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence([self.seed, step]).generate_state(1)[0]))
            pixels, tokens, same = self._batch(step)
            with torch.autocast(
                self.encoder.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
            ):
                images, texts = (
                    model.encode_image(pixels, normalize=True),
                    model.encode_text(tokens, normalize=True),
                )
            loss = info_nce(images.float(), texts.float(), model.logit_scale.exp(), same)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_SCALE)
        return {"loss": float(loss.detach()), "lr": lr}

    def _batch(self, step: int) -> tuple[Any, Any, Any]:
        """Pixels, tokens, and which pairs are the same.

        Undecodable images leave their batch smaller.
        """
        import torch

        uniform = np.random.default_rng([self.seed, step, 1]).random(self.config.batch_size)
        drawn = [
            (row, u, self._prepared(row))
            for row, u in zip(self.stream.batch(step), uniform, strict=True)
        ]
        whole = [(row, u, image) for row, u, image in drawn if image is not None]
        if not whole:
            raise ValueError(
                f"{self.pool.folder.url}: none of the {len(drawn)} images of step {step} can be "
                "decoded"
            )
        texts = [self.pool.caption(row, u) for row, u, _ in whole]
        uids = [self.pool.pairs[row].uid for row, _, _ in whole]
        same = torch.from_numpy(equal(texts) | equal(uids)).to(self.encoder.device)
        return (
            self.encoder.pixels(self._moved([image for _, _, image in whole], step)),
            self.encoder.tokens(texts),
            same,
        )

    def _moved(self, images: list[Any], step: int) -> Any:
        """The only augmentation of small models; named ones have open_clip's."""
        if self.encoder.augments or not self.config.shift:
            return images
        return shifted(
            np.stack(images), self.config.shift, np.random.default_rng([self.seed, step, 2])
        )

    def _prepared(self, row: int) -> Any:
        if self.cache is not None and row in self.cache:
            return self.cache[row]
        image = self.pool.image(row)
        prepared = None if image is None else self.encoder.prepare(image, train=True)
        if self.cache is not None:
            self.cache[row] = prepared
        return prepared

    def save(self, folder: Path) -> None:
        """Write the encoder and optimizer.safetensors."""
        from safetensors.torch import save_file

        self.encoder.save(folder)
        state = self.optimizer.state_dict()["state"]
        flat = {
            f"{i}.{name}": value.detach().cpu().contiguous()
            for i, values in state.items()
            for name, value in values.items()
        }
        save_file(flat, folder / "optimizer.safetensors")

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        from safetensors.torch import load_file

        self.encoder.restore(folder)
        whole = self.optimizer.state_dict()
        whole["state"] = {}
        for key, value in load_file(folder / "optimizer.safetensors").items():
            index, name = key.split(".")
            whole["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(whole)


def learning_rate(config: ClipTrainer, step: int, steps: int) -> float:
    """Linear over `warmup` steps, then half a cosine to 0 (open_clip's cosine_lr)."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def equal(items: list[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(n, n): which items are equal."""
    ids = {item: i for i, item in enumerate(dict.fromkeys(items))}
    codes = np.array([ids[item] for item in items])
    return np.asarray(codes[:, None] == codes[None, :])


def _cache(n: int, encoder: Any) -> dict[int, Any] | None:
    """Prepared pixels by row, for models without augmentation, where all of them fit."""
    fits = n * encoder.image_size**2 * 3 <= CACHE_BYTES
    return {} if fits and not encoder.augments else None


def _groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """No decay for gains, biases and the scale."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [
        p for name, p in named if p.ndim <= 1 or "bn" in name or "ln" in name or "bias" in name
    ]
    chosen = {id(p) for p in plain}
    return [
        {"params": plain, "weight_decay": 0.0},
        {"params": [p for _, p in named if id(p) not in chosen], "weight_decay": weight_decay},
    ]
