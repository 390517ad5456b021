"""Encoder: a CLIP model, its tokenizer and its way of preparing images, saved and loaded as one.

Named architectures are open_clip's, with open_clip's transforms. A model given as a dict
(models.clip.from_config) is a small one: its images are scaled so that the shorter side fits, cut
to the centre square and normalised, without augmentation, so that prepared pixels can be kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.base import Image
from models.clip import from_config
from models.decode import over_white
from models.vocabulary import Vocabulary
from schemas.configs import ClipTrainer

Array = np.ndarray[Any, np.dtype[Any]]
FORMAT = "curate-clip-1"
EMBED_BATCH = 256


class Encoder:
    """`model` is an open_clip model on `device`; `vocabulary` None means open_clip's tokenizer."""

    def __init__(
        self, model: Any, name: str | dict[str, Any], vocabulary: Vocabulary | None
    ) -> None:
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.name, self.vocabulary = model.to(self.device), name, vocabulary
        size = model.visual.image_size
        self.image_size = int(size[0] if isinstance(size, tuple | list) else size)
        self.augments = isinstance(name, str)
        self.train_transform = _transform(model, is_train=True) if self.augments else None
        self.eval_transform = _transform(model, is_train=False) if self.augments else None
        self.tokenizer = _tokenizer(model, name, vocabulary)

    def tokens(self, texts: Sequence[str]) -> Any:
        """Token ids (n, context_length)."""
        return self.tokenizer(list(texts)).to(self.device)

    def prepare(self, image: Image, train: bool = False) -> Any:
        """An image as the model wants it.

        uint8 (S, S, 3) for small models, a normalised float tensor (3, S, S) for named ones.
        """
        if not self.augments:
            return square(over_white(image), self.image_size)
        from PIL.Image import fromarray

        transform = self.train_transform if train else self.eval_transform
        return transform(fromarray(over_white(image)))  # type: ignore[misc]

    def pixels(self, prepared: Sequence[Any]) -> Any:
        """A batch (n, 3, S, S), normalised, on the device."""
        import torch

        if self.augments:
            return torch.stack(list(prepared)).to(self.device)
        return normalise(np.stack(list(prepared)), self.device)

    def embed_images(self, images: Iterable[Image]) -> Array:
        """L2-normalised float32 (n, d).

        Images are taken one by one, so that an iterator may decode them.
        """
        return self._embed(self.model.encode_image, (self.prepare(i) for i in images), self.pixels)

    def embed_texts(self, texts: Sequence[str]) -> Array:
        """L2-normalised float32 (n, d)."""
        return self._embed(self.model.encode_text, texts, self.tokens)

    def _embed(self, encode: Any, items: Iterable[Any], collate: Any) -> Array:
        import torch

        self.model.eval()
        parts: list[Array] = []
        batch: list[Any] = []

        def flush() -> None:
            with torch.inference_mode():
                parts.append(
                    torch.nn.functional.normalize(encode(collate(batch)).float(), dim=-1)
                    .cpu()
                    .numpy()
                )
            batch.clear()

        for item in items:
            batch.append(item)
            if len(batch) == EMBED_BATCH:
                flush()
        if batch:
            flush()
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def save(self, folder: Path) -> None:
        """Write model.safetensors, model.json and, where there is one, vocabulary.json."""
        from safetensors.torch import save_file

        state = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        (folder / "model.json").write_text(
            json.dumps({"format": FORMAT, "model": self.name}, indent=1) + "\n"
        )
        if self.vocabulary is not None:
            self.vocabulary.save(folder / "vocabulary.json")

    def restore(self, folder: Path) -> None:
        """Read the weights of a checkpoint of the same model."""
        from safetensors.torch import load_file

        self.model.load_state_dict(load_file(folder / "model.safetensors"))


def create(config: ClipTrainer, vocabulary: Vocabulary | None, seed: int) -> Encoder:
    """A new encoder, its weights drawn from `seed` or read from `config.pretrained`.

    Raises ValueError for an unknown architecture, weights that cannot be had, or a config open_clip
    refuses.
    """
    import torch

    name = _sized(config, vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(_model(name, config.pretrained), name, vocabulary)


def load(folder: str | Path) -> Encoder:
    """The encoder of a checkpoint folder. Raises ValueError where it is none."""
    place = Path(folder)
    try:
        raw = json.loads((place / "model.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{folder}: no checkpoint ({type(error).__name__}); give a step-… folder that `train` "
            "wrote"
        ) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError(f"{folder}: not a checkpoint of format {FORMAT}; train it again")
    words = place / "vocabulary.json"
    encoder = Encoder(
        _model(raw["model"], None), raw["model"], Vocabulary.load(words) if words.exists() else None
    )
    encoder.restore(place)
    return encoder


def _sized(config: ClipTrainer, vocabulary: Vocabulary | None) -> str | dict[str, Any]:
    """The model with its token table as large as the vocabulary."""
    if vocabulary is None:
        return config.model
    if config.pretrained:
        raise ValueError(
            f"trainer {config.name!r}: `vocabulary` needs new weights, {config.pretrained!r} has "
            "its own tokenizer; leave one out"
        )
    model = config.model if isinstance(config.model, dict) else _architecture(config.model)
    text = dict(model.get("text_cfg", {}))
    if text.setdefault("vocab_size", vocabulary.size) < vocabulary.size:
        raise ValueError(
            f"trainer {config.name!r}: text_cfg.vocab_size {text['vocab_size']} is below the "
            f"{vocabulary.size} ids learned; leave it out"
        )
    return {**model, "text_cfg": text}


def _architecture(name: str) -> dict[str, Any]:
    import open_clip

    found = open_clip.get_model_config(name)
    if found is None:
        raise ValueError(
            f"open_clip has no architecture {name!r}; `open_clip.list_models()` names those it has"
        )
    kept = {
        k: v for k, v in found.items() if k in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    }
    kept["text_cfg"] = {k: v for k, v in kept["text_cfg"].items() if k != "vocab_size"}
    return kept


def _model(name: str | dict[str, Any], pretrained: str | None) -> Any:
    import open_clip

    try:
        if isinstance(name, dict):
            return from_config(name)
        return open_clip.create_model(
            name,
            pretrained,
            load_weights=pretrained is not None,
            require_pretrained=pretrained is not None,
            pretrained_text=False,
        )
    except (RuntimeError, OSError, TypeError, ValueError, AssertionError, KeyError) as error:
        raise ValueError(
            f"model {name!r} with pretrained {pretrained!r} cannot be made "
            f"({' '.join(str(error).split())[:200]}); "
            "name an open_clip architecture, give open_clip.CLIP's arguments as a mapping, or a "
            "checkpoint's path as `pretrained`"
        ) from error


def _transform(model: Any, is_train: bool) -> Any:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=is_train)


def _tokenizer(model: Any, name: str | dict[str, Any], vocabulary: Vocabulary | None) -> Any:
    import open_clip
    import torch

    if vocabulary is not None:
        return lambda texts: torch.from_numpy(vocabulary.encode(texts, model.context_length))
    if isinstance(name, str):
        return open_clip.get_tokenizer(name)
    if model.vocab_size < open_clip.SimpleTokenizer().vocab_size:
        raise ValueError(
            f"a token table of {model.vocab_size} rows is too small for open_clip's tokenizer; set "
            "the trainer's `vocabulary`"
        )
    return open_clip.SimpleTokenizer(context_length=model.context_length)


def square(image: Image, size: int) -> Image:
    """The centre square of an RGB image, area-scaled to (size, size, 3)."""
    import cv2

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = np.ascontiguousarray(image[top : top + side, left : left + side])
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(middle, (size, size), interpolation=method), np.uint8)


def normalise(pixels: Array, device: Any) -> Any:
    """uint8 (n, S, S, 3) to a float tensor (n, 3, S, S) with CLIP's mean and deviation."""
    import torch
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    mean, std = (
        torch.tensor(v, device=device).view(3, 1, 1)
        for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    )
    scaled = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
    return (scaled - mean) / std
