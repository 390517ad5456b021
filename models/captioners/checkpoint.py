"""A transformers checkpoint with what prepares its inputs, by hub name or path."""

from __future__ import annotations

from typing import Any

from models.weights import dtype_of
from schemas.configs import HfCaptioner

MAX_ERROR = 200  # characters


def load(config: HfCaptioner, precision: str = "auto") -> tuple[Any, Any, Any]:
    """Model in eval mode, processor, tokenizer. Raises ValueError with the name and the remedy."""
    import torch
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype_of(precision, device)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            config.model, dtype=dtype, trust_remote_code=False
        )
        processor = AutoProcessor.from_pretrained(config.model, trust_remote_code=False)
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None:  # such as ViT-GPT2, which has no processor of its own
            processor = AutoImageProcessor.from_pretrained(config.model)
            tokenizer = AutoTokenizer.from_pretrained(config.model)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ValueError(
            f"captioner {config.name}: model {config.model} cannot be loaded "
            f"({' '.join(str(error).split())[:MAX_ERROR]}); with no hub in reach give the path "
            "of a folder that `save_pretrained` wrote, with the model and its processor"
        ) from error
    tokenizer.padding_side = "left"  # what is generated must follow the prompt
    return model.to(device).eval(), processor, tokenizer


def prompt_of(processor: Any, prompt: str) -> str:
    """The prompt as the model takes it: chat models get it and the image in their template."""
    if not getattr(processor, "chat_template", None):
        return prompt
    content = [
        {"type": "image"},
        {"type": "text", "text": prompt or "Describe this image in one sentence."},
    ]
    chat = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
