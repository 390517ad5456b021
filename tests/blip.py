"""A tiny untrained BLIP with a WordPiece tokenizer, as `save_pretrained` writes them."""

from __future__ import annotations

from pathlib import Path

WORDS = ["a", "picture", "of", "red", "blue", "dog", "cat", "tree", "hill", "sky", "on", "two"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]


def tiny_blip(path: Path) -> Path:
    """Fill a folder with model, tokenizer and processor; captions depend on the image."""
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(SPECIAL + WORDS) + "\n")
    tokenizer = BertTokenizer(vocab=str(path / "vocab.txt"), bos_token="[DEC]")
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = BlipConfig(
        text_config={
            **sizes,
            "vocab_size": len(tokenizer),
            "encoder_hidden_size": 32,
            "num_attention_heads": 2,
            "max_position_embeddings": 40,
            "bos_token_id": ids["[DEC]"],
            "eos_token_id": ids["[SEP]"],
            "sep_token_id": ids["[SEP]"],
            "pad_token_id": ids["[PAD]"],
        },
        vision_config={  # BLIP starts its vision at 1e-10, which no image gets through
            **sizes,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
            "initializer_range": 0.02,
        },
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BlipForConditionalGeneration(config)
    with torch.no_grad():  # so that captions depend on the image from the first word on
        for parameter in model.parameters():
            parameter.mul_(4)
    model.save_pretrained(path)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(path)
    return path
