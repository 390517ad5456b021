"""Captions by any image-to-text checkpoint of transformers, by hub name or path.

Sampling is the same in any batch (see sampling.py). Several captions of an image encode it again:
they are rows of their own, each with its own random stream, so that the third caption is the same
whether there are three or five.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from models.base import Batch
from models.captioners.checkpoint import load, prompt_of
from models.captioners.sampling import GumbelSampling, seed_of
from models.decode import over_white
from schemas.configs import HfCaptioner

if TYPE_CHECKING:
    from torch import Tensor

MAX_ERROR = 200  # characters


class UnpreparedError(ValueError):
    """A processor that cannot take one of these images."""


class Hf:
    """Nucleus sampling where `top_p` is set (BLIP's CapFilt), else beams."""

    def __init__(self, config: HfCaptioner, precision: str = "auto") -> None:
        _check(config)
        self.config = config
        self.model, self.processor, self.tokenizer = load(config, precision)
        self.prompt = prompt_of(self.processor, config.prompt)
        each = config.num_captions if config.top_p is not None else 1
        self.rows = max(1, config.batch_size // each)  # images of one batch

    def __call__(self, batch: Batch) -> tuple[list[list[str] | None], list[str | None]]:
        captions: list[list[str] | None] = [None] * len(batch)
        errors: list[str | None] = [
            (error or "no image") if image is None else None
            for image, error in zip(batch.images, batch.image_errors, strict=True)
        ]
        there = [row for row, error in enumerate(errors) if error is None]
        for start in range(0, len(there), self.rows):
            rows = there[start : start + self.rows]
            for row, found in zip(rows, self._safely(batch, rows), strict=True):
                captions[row] = found if isinstance(found, list) and any(found) else None
                errors[row] = found if isinstance(found, str) else None
                if captions[row] is None and errors[row] is None:
                    errors[row] = "no words generated"
        return captions, errors

    def _safely(self, batch: Batch, rows: Sequence[int]) -> list[list[str] | str]:
        """Captions per row, or an error for the row whose image the processor cannot take."""
        try:
            return list(self._generate(batch, rows))
        except UnpreparedError as error:
            if len(rows) == 1:
                return [f"image not prepared: {' '.join(str(error).split())[:MAX_ERROR]}"]
            return [found for row in rows for found in self._safely(batch, [row])]

    def _generate(self, batch: Batch, rows: Sequence[int]) -> list[list[str]]:
        """`num_captions` captions for each of these rows."""
        import torch
        from PIL.Image import fromarray
        from transformers import LogitsProcessorList

        config, each = self.config, self.config.num_captions
        images = [
            fromarray(over_white(image)) for row in rows if (image := batch.images[row]) is not None
        ]
        copies = 1
        how: dict[str, Any] = {"num_beams": config.num_beams, "num_return_sequences": each}
        if config.top_p is not None:
            copies = each
            seeds = [
                seed_of(config.seed, batch.uids[row], index)
                for row in rows
                for index in range(each)
            ]
            how = {
                "num_beams": 1,
                "logits_processor": LogitsProcessorList([GumbelSampling(seeds, config.top_p)]),
            }
        inputs = self._inputs(images, copies)
        with torch.inference_mode():
            out = self.model.generate(
                **inputs,
                do_sample=False,
                min_new_tokens=config.min_new_tokens or None,
                max_new_tokens=config.max_new_tokens,
                repetition_penalty=config.repetition_penalty,
                **how,
            )
        texts = [self._text(ids) for ids in _without_prompt(out, inputs.get("input_ids"))]
        return [texts[start : start + each] for start in range(0, len(texts), each)]

    def _inputs(self, images: list[Any], copies: int) -> dict[str, Any]:
        """What the model takes, each image `copies` times."""
        inputs = self._prepared(images)
        if copies > 1:
            if all(len(value) == len(images) for value in inputs.values()):  # a row is an image
                inputs = {n: value.repeat_interleave(copies, dim=0) for n, value in inputs.items()}
            else:
                inputs = self._prepared([image for image in images for _ in range(copies)])
        return {name: self._place(value) for name, value in inputs.items()}

    def _prepared(self, images: list[Any]) -> dict[str, Any]:
        text = {"text": [self.prompt] * len(images), "padding": True} if self.prompt else {}
        try:
            return dict(self.processor(images=images, return_tensors="pt", **text))
        except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
            raise UnpreparedError(str(error)) from error

    def _place(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)

    def _text(self, ids: Tensor) -> str:
        """The caption alone: BLIP's decoder repeats its prompt in front."""
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        prompt = self.config.prompt.strip()
        repeated = prompt and text.lower().startswith(prompt.lower())
        return text[len(prompt) :].strip() if repeated else text


def _check(config: HfCaptioner) -> None:
    if config.top_p is not None and config.num_beams > 1:
        raise ValueError(
            f"captioner {config.name}: top_p {config.top_p} samples and num_beams "
            f"{config.num_beams} searches; set `top_p: null` for beams, or `num_beams: 1`"
        )
    if config.top_p is None and config.num_captions > config.num_beams:
        raise ValueError(
            f"captioner {config.name}: {config.num_captions} captions of {config.num_beams} beams; "
            "set num_beams to at least num_captions, or a top_p to sample"
        )


def _without_prompt(out: Tensor, input_ids: Tensor | None) -> Tensor:
    """Generated ids alone, where the model repeats the prompt's ids in front."""
    if input_ids is None or out.shape[1] < input_ids.shape[1]:
        return out
    n = input_ids.shape[1]
    each = out.shape[0] // input_ids.shape[0]
    repeated = bool((out[:, :n] == input_ids.repeat_interleave(each, dim=0)).all())
    return out[:, n:] if repeated else out
