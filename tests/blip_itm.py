"""A tiny untrained BLIP with a matching head, as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path

from tests.blip import SPECIAL, WORDS

SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
LONGEST = 40  # tokens


def tiny_itm(path: Path, words: tuple[str, ...] = (*SPECIAL, *WORDS), enc: bool = True) -> Path:
    """Fill a folder with model, tokenizer and processor; scores depend on image and caption.

    enc: a row for [ENC] after the tokenizer's words, as converted checkpoints have it.
    """
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
        BlipProcessor,
    )

    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer(vocab=str(path / "vocab.txt"))
    config = BlipConfig(
        text_config={
            **SIZES,
            "vocab_size": len(words) + enc,
            "encoder_hidden_size": 32,
            "num_attention_heads": 2,
            "max_position_embeddings": LONGEST,
            "bos_token_id": words.index("[DEC]"),
            "eos_token_id": words.index("[SEP]"),
            "sep_token_id": words.index("[SEP]"),
            "pad_token_id": words.index("[PAD]"),
        },
        vision_config={  # BLIP starts its vision at 1e-10, which no image gets through
            **SIZES,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "initializer_range": 0.02,
        },
        image_text_hidden_size=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BlipForImageTextRetrieval(config)
    with torch.no_grad():  # small random weights say nearly the same of every pair
        for parameter in model.parameters():
            parameter.mul_(5)
    model.save_pretrained(path)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(path)
    return path
