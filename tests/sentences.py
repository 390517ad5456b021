"""A tiny untrained BERT with a WordPiece tokenizer, as `save_pretrained` writes them."""

from __future__ import annotations

from pathlib import Path

from tests.blip import SPECIAL, WORDS

MORE = ["an", "the", "photo", "image", "stock", "square", "sits", "graphy", "old", "##s", ",", "."]
LONGEST = 64  # tokens


def tiny_sentences(path: Path) -> Path:
    """Fill a folder with an encoder and its tokenizer; vectors depend on every word."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS, *MORE]) + "\n")
    tokenizer = BertTokenizer(vocab=str(path / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LONGEST,
        initializer_range=0.5,  # small random weights say nearly the same of every text
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
