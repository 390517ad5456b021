"""text_tower: the tokens that matter, and the same embeddings."""

from functools import cache

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.model import CustomTextCLIP

from models.scorers.text_tower import STEP, TextTower, by_length, causal_tower

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
CAPTIONS = ["a", "a red dog", "two cats on a mat " * 4, "word " * 200, "🙂 " * 30, "a red dog."]


def model(kind=open_clip.CLIP, **text):
    torch.manual_seed(0)
    return kind(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT | text).eval()


CAUSAL = {
    "argmax": model,
    "eos": lambda: model(pool_type="eos", eos_id=49407),
    "custom": lambda: model(CustomTextCLIP, proj_bias=True),
    "custom eos": lambda: model(CustomTextCLIP, pool_type="eos", eos_id=49407),
}
OTHERS = {
    "last": lambda: model(pool_type="last"),
    "both ways": lambda: model(no_causal_mask=True),
    "custom both ways": lambda: model(CustomTextCLIP, no_causal_mask=True, pool_type="last"),
    "class token": lambda: model(CustomTextCLIP, embed_cls=True),
}


@pytest.fixture(scope="module")
def tokens():
    return open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)


def encoded(tower: TextTower, tokens: torch.Tensor, rows: int) -> torch.Tensor:
    """All texts by batches, in their own order."""
    out = torch.full((len(tokens), 16), torch.nan)
    with torch.inference_mode():
        for places in tower.batches(tokens, rows):
            out[places] = tower(tokens[places])
    return out


@cache
def named(name: str):
    """A model of the two menus, made once: its table of 49 408 words takes a second."""
    return (CAUSAL | OTHERS)[name]()


@pytest.mark.parametrize("rows", [1, 2, 256])
@pytest.mark.parametrize("name", [*CAUSAL, *OTHERS])
def test_the_embeddings_are_open_clips(tokens, name: str, rows: int):
    """Equal to the full context within 1e-5, for towers that are cut short and those that are
    not.
    """
    clip = named(name)
    with torch.inference_mode():
        expected = clip.encode_text(tokens)
    found = encoded(TextTower(clip, "cpu"), tokens, rows)
    assert expected.std(dim=0).min() > 1e-3  # captions do differ
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", [*CAUSAL, *OTHERS])
def test_only_a_causal_tower_read_at_its_end_is_cut_short(tokens, name: str):
    """It runs on no more tokens than a batch's longest text has; the others on all 77."""
    clip = named(name)
    assert (causal_tower(clip) is not None) == (name in CAUSAL)
    lengths = []
    blocks = clip.text.transformer if isinstance(clip, CustomTextCLIP) else clip.transformer
    hook = blocks.register_forward_hook(lambda _, given, __: lengths.append(given[0].shape[1]))
    encoded(TextTower(clip, "cpu"), tokens, 1)
    hook.remove()
    counts = (tokens != 0).sum(dim=1).tolist()
    full = 77 + (name == "class token")
    assert sorted(lengths) == (sorted(counts) if name in CAUSAL else [full] * len(CAPTIONS))


@given(st.lists(st.integers(0, 76), max_size=60), st.integers(1, 20))
def test_batches_are_alike_in_length_and_hold_each_text_once(ends: list[int], rows: int):
    """At most `rows` texts of one step of lengths, and no more batches than that asks for."""
    found = by_length(ends, rows)
    assert sorted(place for batch in found for place in batch) == list(range(len(ends)))
    steps = [{ends[place] // STEP for place in batch} for batch in found]
    assert all(len(step) == 1 for step in steps)
    assert all(len(batch) <= rows for batch in found)
    in_step = [sum(end // STEP == step for end in ends) for step in {e // STEP for e in ends}]
    assert len(found) == sum(-(-n // rows) for n in in_step)
