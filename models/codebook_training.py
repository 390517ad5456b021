"""Training of the codebook captioner, step by step: on the pool, then on clean captions.

All that a step draws (rows, shift, dropout, revived codes) comes from (seed, step), so that a run
that goes on from a state ends with the same bits, on one kind of CPU with one number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.bootstrap import BETAS, shifted
from models.codebook import Array, CodebookModel, likeliest, word_loss
from models.phrases import Phrase
from models.quantiser import usage
from models.vocabulary import PADDING, UNKNOWN, Vocabulary
from schemas.configs import CodebookCaptioner

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, Any]  # name -> tensor on the CPU
EVALUATED = 64  # images at once
MAX_NORM = 1.0  # of the gradient


@dataclass(frozen=True)
class Pairs:
    """images: uint8 (n, side, side, 3), an np.memmap will do; captions: n texts."""

    images: Array
    captions: Sequence[str]


class CodebookTraining:
    """A training at some step: call it with a step's number, from 0, to take that step.

    Raises ValueError where there is no pair to train on, or images are of another size.
    """

    def __init__(
        self,
        config: CodebookCaptioner,
        vocabulary: Vocabulary,
        phrases: Sequence[Phrase],
        pool: Pairs,
        clean: Pairs | None = None,
    ) -> None:
        self.config, self.vocabulary = config, vocabulary
        self.phases = [pool] if clean is None else [pool, clean]
        self.tokens = [self._encoded(pairs) for pairs in self.phases]
        self.steps = config.steps + (config.clean_steps if clean is not None else 0)
        with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
            torch.manual_seed(config.seed)
            model = CodebookModel(config, vocabulary)
            self._check(model)
            self._start(model, phrases)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.optimizer = _optimizer(self.model, config)

    def __call__(self, step: int) -> dict[str, float]:
        """Take a step; returns its losses in nats and how the batch used the codebook."""
        model, lr = self.model.train(), learning_rate(step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images, tokens = self._batch(step)
        tokens = tokens[:, : int((tokens != PADDING).sum(1).max())]  # no longer than its longest
        with torch.random.fork_rng():
            torch.manual_seed(
                int(np.random.SeedSequence([self.config.seed, step]).generate_state(1)[0])
            )
            told = model(images, tokens)
            loss = told.words + told.quantised.loss
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        self.optimizer.step()
        codes = told.quantised.codes.flatten()
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        model.quantiser.follow(told.patches.detach().flatten(0, 1), codes, draw)
        perplexity, used = usage(codes, self.config.codes)
        return {
            "loss": float(loss.detach()),
            "train": float(told.words.detach()),
            "quantiser": float(told.quantised.loss.detach()),
            "perplexity": perplexity,
            "codes_in_use": used,
            "lr": lr,
        }

    def _encoded(self, pairs: Pairs) -> Array:
        return self.vocabulary.encode(pairs.captions, self.config.context_length)

    def _check(self, model: CodebookModel) -> None:
        side = model.encoder.side
        for pairs in self.phases:
            shape = (len(pairs.captions), side, side, 3)
            if not pairs.captions or pairs.images.shape != shape:
                raise ValueError(
                    f"captioner {self.config.name}: images are {pairs.images.shape}, needed "
                    f"{shape} with at least one pair"
                )

    def _start(self, model: CodebookModel, phrases: Sequence[Phrase]) -> None:
        if self.config.init == "uniform":
            return
        codes = _first_patches(model, self.phases[0].images, self.config)
        if self.config.init == "keywords":
            words = phrase_vectors(model, phrases)[: len(codes)]
            codes[: len(words)] = words
        model.quantiser.start(codes)

    def _batch(self, step: int) -> tuple[Array, Array]:
        """Images and tokens of a step: a new permutation per epoch, cut off at its end."""
        phase = int(step >= self.config.steps)
        local = step - phase * self.config.steps
        images, tokens = self.phases[phase].images, self.tokens[phase]
        size = min(self.config.train_batch_size, len(tokens))
        epoch, place = divmod(local, len(tokens) // size)
        order = np.random.default_rng([self.config.seed, phase, epoch]).permutation(len(tokens))
        rows = order[place * size : (place + 1) * size]
        draw = np.random.default_rng([self.config.seed, step, 1])
        return shifted(images[rows], self.config.shift, draw), tokens[rows]

    def state(self) -> State:
        """Weights as model.<name>, the optimizer's state as optimizer.<parameter>.<name>."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for at, values in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{at}.{name}": value for name, value in values.items()}
        return {name: value.detach().cpu().contiguous() for name, value in found.items()}

    def load(self, state: State) -> None:
        """Go on from what `state` gave."""
        named = {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}
        self.model.load_state_dict(named)
        whole = self.optimizer.state_dict()
        whole["state"] = {}
        for key, value in state.items():
            if key.startswith("optimizer."):
                _, at, name = key.split(".")
                whole["state"].setdefault(int(at), {})[name] = value
        self.optimizer.load_state_dict(whole)

    def weights(self) -> State:
        """The model's alone."""
        return {n: v.detach().cpu().contiguous() for n, v in self.model.state_dict().items()}

    def evaluate(self, held_out: Pairs) -> dict[str, float]:
        """Nats per word of held-out captions, given their image (`validation`), given the mean
        patch vectors of all of them (`mean_image`), given another one's (`other_image`); and how
        they use the codebook.
        """
        return evaluate(self.model.eval(), held_out.images, self._encoded(held_out))

    def say(self, images: Array) -> list[str]:
        """The likeliest captions of a few images."""
        return self.model.eval().captions(self.model.codes(images), likeliest)


@torch.inference_mode()
def evaluate(model: CodebookModel, images: Array, tokens: Array) -> dict[str, float]:
    """See CodebookTraining.evaluate. The other image is the one before, in the order given."""
    codes = np.concatenate(
        [model.codes(images[at : at + EVALUATED]) for at in range(0, len(images), EVALUATED)]
    )
    ids = torch.from_numpy(codes.astype(np.int64)).to(model.device)
    mean = model.quantiser.weight[ids].mean(0, keepdim=True)
    totals = dict.fromkeys(("validation", "mean_image", "other_image"), 0.0)
    for at in range(0, len(ids), EVALUATED):
        words = torch.from_numpy(tokens[at : at + EVALUATED]).to(model.device)
        shown = {
            "validation": model.quantiser.weight[ids[at : at + EVALUATED]],
            "mean_image": mean.expand(len(words), -1, -1),
            "other_image": model.quantiser.weight[ids.roll(1, 0)[at : at + EVALUATED]],
        }
        for name, vectors in shown.items():
            totals[name] += float(word_loss(model.decoder, words, vectors, "sum"))
    perplexity, used = usage(ids, model.config.codes)
    found = {name: total / _said(tokens).size for name, total in totals.items()}
    return found | {"validation_perplexity": perplexity, "validation_codes_in_use": used}


def unigram_loss(train: Array, held_out: Array, size: int) -> float:
    """Nats per word of held-out tokens by how often each of `size` words occurs in training, each
    counted once more: what can be said without image and context.
    """
    counts = np.bincount(_said(train), minlength=size) + 1.0
    return float(-np.log(counts / counts.sum())[_said(held_out)].mean())


def _said(tokens: Array) -> Array:
    """The ids that are to be told, of int64 (n, context)."""
    targets = tokens[:, 1:]
    found: Array = targets[(targets != PADDING) & (targets != UNKNOWN)]
    return found


def learning_rate(step: int, config: CodebookCaptioner) -> float:
    """Linear warm-up, then a cosine to 0; once more, from `clean_lr`, on the clean captions."""
    peak, steps = config.lr, config.steps
    if step >= steps:
        step, peak, steps = step - steps, config.clean_lr, config.clean_steps
    if step < config.warmup:
        return peak * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return peak / 2 * (1 + math.cos(math.pi * done))


def phrase_vectors(model: CodebookModel, phrases: Sequence[Phrase]) -> Tensor:
    """The mean word vector of each phrase that has known words, as long as patch vectors are."""
    known = [[i for i in map(model.vocabulary.id_of, phrase) if i != UNKNOWN] for phrase in phrases]
    vectors = [model.decoder.words.weight[ids].mean(0) for ids in known if ids]
    if not vectors:
        return torch.empty(0, model.config.dim)
    means = torch.stack(vectors).detach()
    found: Tensor = means / means.norm(dim=1, keepdim=True) * math.sqrt(model.config.dim)
    return found


def _first_patches(model: CodebookModel, images: Array, config: CodebookCaptioner) -> Tensor:
    """As many patch vectors of some images as there are codes."""
    draw = np.random.default_rng([config.seed, 2])
    needed = math.ceil(config.codes / model.encoder.length)
    rows = np.sort(draw.permutation(len(images))[: max(EVALUATED, needed)])
    with torch.inference_mode():  # in training mode, as no mean of the pool's patches is known yet
        found = [
            model.train().patches(images[rows[at : at + EVALUATED]])
            for at in range(0, len(rows), EVALUATED)
        ]
    vectors = torch.cat(found).flatten(0, 1).clone()
    return vectors[torch.from_numpy(draw.integers(0, len(vectors), config.codes))]


def _optimizer(model: CodebookModel, config: CodebookCaptioner) -> Any:
    """AdamW; gains, biases, places and the codebook are not decayed."""
    kept = ("quantiser.", "decoder.places", "decoder.patch_places")
    named = list(model.named_parameters())
    plain = {n for n, p in named if p.ndim <= 1 or n.startswith(kept)}
    groups = [
        {"params": [p for n, p in named if n not in plain], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if n in plain], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=BETAS)
