import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.clip import info_nce, load_pretrained, small_clip

SIZES = {
    "vocab_size": 20,
    "context_length": 6,
    "image_size": 16,
    "patch_size": 8,
    "width": 24,
    "layers": 1,
    "text_width": 16,
    "text_layers": 1,
    "embed_dim": 12,
}


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=1)


def plain_info_nce(image_emb, text_emb, scale, same):
    """The loss as two loops: row i's denominator has i itself and all that are not `same`."""
    logits = scale * image_emb @ text_emb.T
    n, total = len(logits), 0.0
    for matrix in (logits, logits.T):
        for i in range(n):
            kept = [matrix[i, j] for j in range(n) if j == i or not same[i, j]]
            total += np.log(np.sum(np.exp(kept))) - matrix[i, i]
    return total / (2 * n)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 99), st.integers(1, 4))
def test_info_nce_equals_its_plain_reference(n, seed, kinds):
    """Masked InfoNCE is the two loops over rows and columns, for any pattern of equal captions."""
    ids = np.random.default_rng(seed).integers(0, kinds, n)
    same = ids[:, None] == ids[None, :]
    image_emb, text_emb = unit(n, 5, seed), unit(n, 5, seed + 1)
    loss = info_nce(image_emb, text_emb, torch.tensor(14.0), torch.from_numpy(same))
    expected = plain_info_nce(image_emb.numpy(), text_emb.numpy(), 14.0, same)
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_info_nce_without_equal_captions_is_open_clips_loss():
    """Where every caption is distinct, mask or none, the loss is open_clip's ClipLoss to 1e-6."""
    from open_clip.loss import ClipLoss

    image_emb, text_emb, scale = unit(17, 8, 0), unit(17, 8, 1), torch.tensor(20.0)
    theirs = ClipLoss()(image_emb, text_emb, scale).item()
    assert info_nce(image_emb, text_emb, scale).item() == pytest.approx(theirs, abs=1e-6)
    distinct = torch.eye(17, dtype=torch.bool)
    assert info_nce(image_emb, text_emb, scale, distinct).item() == pytest.approx(theirs, abs=1e-6)


def test_a_batch_of_one_caption_has_no_negatives():
    """If all pairs share a caption, the loss is 0 and its gradient finite."""
    image_emb = unit(4, 3, 0).requires_grad_()
    loss = info_nce(image_emb, unit(4, 3, 1), torch.tensor(5.0), torch.ones(4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(0)
    assert torch.isfinite(image_emb.grad).all()


def test_the_mask_is_not_changed():
    """The caller's mask is the same afterwards."""
    same = torch.ones(3, 3, dtype=torch.bool)
    info_nce(unit(3, 3, 0), unit(3, 3, 1), torch.tensor(5.0), same)
    assert same.all()


def test_small_clip_embeds_both_sides():
    """Images and texts go to the same space, and words after the end token change nothing."""
    torch.manual_seed(0)
    model = small_clip(**SIZES).eval()
    text = torch.tensor([[18, 3, 19, 0, 0, 0], [18, 3, 19, 5, 6, 7]])
    with torch.no_grad():
        assert model.encode_image(torch.zeros(2, 3, 16, 16)).shape == (2, 12)
        text_emb = model.encode_text(text)
    assert torch.allclose(text_emb[0], text_emb[1], atol=1e-6)


def test_patches_must_tile_the_image():
    """An image size that patches do not divide is refused with both numbers."""
    with pytest.raises(ValueError, match="image_size 20 is no multiple of patch_size 8"):
        small_clip(**SIZES | {"image_size": 20})


@pytest.mark.parametrize(
    ("model", "pretrained"),
    [
        ("ViT-B-32", "datacomp_xl_s13b_b90k"),
        ("ViT-B-32", "no_such_tag_or_path"),
        ("no-such-architecture", None),
        ("hf-hub:nobody/nothing", None),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_a_model_out_of_reach_is_one_clear_line(model, pretrained):
    """With the hub out of reach the error names the model and says to give a path, in one line."""
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        load_pretrained(model, pretrained)
    message = str(caught.value)
    assert model in message
    assert "give the path of a checkpoint as `pretrained`" in message
    assert "\n" not in message


def test_a_pickle_is_refused(tmp_path):
    """A checkpoint that would run code when unpickled is not loaded."""
    torch.save({"state_dict": {"x": print}}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt cannot be loaded"):
        load_pretrained("RN50", str(tmp_path / "evil.pt"))
