import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from models.quantiser import SMOOTHING, Quantiser, usage


def quantiser(codes: int = 6, dim: int = 4, seed: int = 0, **knobs) -> Quantiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Quantiser(codes, dim, **knobs)
        made.start(torch.randn(codes, dim))
    return made


def vectors(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 10_000), codes=st.integers(1, 20), dim=st.integers(1, 8))
def test_the_nearest_code_is_the_one_of_brute_force(seed: int, codes: int, dim: int):
    """No other code has a smaller squared distance, computed pair by pair in double precision."""
    made, some = quantiser(codes, dim, seed), vectors(3, 5, dim, seed=seed + 1)
    found = made.nearest(some)
    distances = (some.double()[..., None, :] - made.weight.double()).square().sum(-1)
    assert found.shape == (3, 5)
    chosen = distances.gather(-1, found[..., None])[..., 0]
    assert torch.allclose(chosen, distances.min(-1).values, atol=1e-5)


def test_distances_are_held_in_pieces(monkeypatch):
    """Large codebooks and batches give what one piece gives."""
    made, some = quantiser(), vectors(50, 4)
    whole = made.nearest(some)
    for cells in (1, 20, 6 * 50):
        monkeypatch.setattr("models.quantiser.CELLS", cells)
        assert torch.equal(made.nearest(some), whole)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_gradients_go_straight_through(update: str):
    """What goes on is the code; what comes back is the gradient as it is, beside the commitment's,
    and no gradient of the words reaches the codebook.
    """
    made, e = quantiser(update=update, beta=0.0), vectors(2, 3, 4).requires_grad_()
    weights = vectors(2, 3, 4, seed=2)
    found = made(e)
    assert torch.allclose(found.vectors, made.weight[found.codes], atol=1e-6)
    (found.vectors * weights).sum().backward()
    assert torch.equal(e.grad, weights)
    assert made.weight.grad is None


@pytest.mark.parametrize(("update", "beta"), [("ema", 0.25), ("gradient", 0.25), ("gradient", 1.0)])
def test_the_loss_is_the_terms_of_the_paper(update: str, beta: float):
    """beta * mean (e - sg z)^2, and mean (sg e - z)^2 where gradients move the codes: each gradient
    reaches its own side.
    """
    made, e = quantiser(update=update, beta=beta), vectors(7, 4).requires_grad_()
    found = made(e)
    z = made.weight[found.codes].detach()
    found.loss.backward()
    gap = 2 * (e.detach() - z) / e.numel()
    term = mse_loss(e.detach(), z)
    assert torch.allclose(e.grad, beta * gap, atol=1e-7)
    assert found.loss.item() == pytest.approx(float(term * (beta + (update == "gradient"))))
    if update == "gradient":
        expected = torch.zeros_like(made.weight).index_add_(0, found.codes, -gap)
        assert torch.allclose(made.weight.grad, expected, atol=1e-7)
    assert isinstance(made.weight, nn.Parameter) == (update == "gradient")


@given(seed=st.integers(0, 1000), decay=st.floats(0.1, 0.99))
def test_codes_follow_by_the_formulas_of_the_moving_average(seed: int, decay: float):
    """N <- decay N + (1 - decay) n, m <- decay m + (1 - decay) sum e, c = m / N with Laplace
    smoothing: three steps in plain numpy, code by code.
    """
    made = quantiser(5, 3, seed, decay=decay, revive_after=99)
    count, total = np.ones(5), made.weight.double().numpy().copy()
    for step in range(3):
        some = vectors(11, 3, seed=seed + step)
        codes = made.nearest(some)
        made.follow(some, codes, seeded())
        for k in range(5):
            own = some[codes == k].double().numpy()
            count[k] = decay * count[k] + (1 - decay) * len(own)
            total[k] = decay * total[k] + (1 - decay) * own.sum(0)
        n = count.sum()
        smooth = (count + SMOOTHING) / (n + 5 * SMOOTHING) * n
        np.testing.assert_allclose(made.weight.numpy(), total / smooth[:, None], atol=1e-4)


def test_a_code_that_follows_its_vectors_ends_at_their_mean():
    """One code, the same vectors again and again: k-means of one cluster."""
    made, some = quantiser(1, 4, decay=0.5), vectors(50, 4)
    for _ in range(40):
        made.follow(some, made.nearest(some), seeded())
    assert torch.allclose(made.weight[0], some.mean(0), atol=1e-4)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_dead_codes_are_put_on_vectors_of_the_batch(update: str):
    """After `revive_after` steps without a vector, not before; codes in use stay theirs."""
    made, some = quantiser(6, 4, update=update, revive_after=3), vectors(40, 4)
    with torch.no_grad():
        made.weight[4:] += 1000  # far from everything
    made.start(made.weight.clone())
    for step in range(3):
        codes = made.nearest(some)
        assert set(codes.tolist()) <= {0, 1, 2, 3}
        made.follow(some, codes, seeded(step))
        assert bool((made.weight[4:] > 500).all()) == (step < 2)
    rows = {tuple(row) for row in some.tolist()}
    assert {tuple(row) for row in made.weight[4:].tolist()} <= rows
    assert {4, 5} & set(made.nearest(some).tolist())
    assert made.unused.max() < 3


def test_a_revived_code_is_not_where_it_was_a_step_later():
    """Its history is forgotten: it follows the vector that it was put on, not its old place."""
    made, some = quantiser(2, 4, revive_after=1), vectors(9, 4)
    made.start(torch.stack([torch.zeros(4), torch.full((4,), 500.0)]))
    made.follow(some, made.nearest(some), seeded())
    made.follow(some, made.nearest(some), seeded())
    assert made.weight.abs().max() < 10


def test_what_is_revived_comes_from_the_draw():
    """The same seed puts dead codes on the same vectors, another one on others."""
    some, placed = vectors(200, 4), []
    for seed in (0, 0, 1):
        made = quantiser(30, 4, revive_after=1)
        made.start(made.weight * 0 + 1000 + torch.arange(30.0)[:, None])
        made.follow(some, made.nearest(some), seeded(seed))
        placed.append(made.weight.clone())
    assert torch.equal(placed[0], placed[1])
    assert not torch.equal(placed[0], placed[2])


def test_usage_counts_codes():
    """Perplexity of k equally frequent codes is k; unused ones lower the share alone."""
    perplexity, share = usage(torch.tensor([[0, 1], [2, 3]]), 8)
    assert (perplexity, share) == (pytest.approx(4), 0.5)
    perplexity, share = usage(torch.tensor([5, 5, 5, 1]), 10)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert (perplexity, share) == (pytest.approx(math.exp(entropy)), 0.2)
