import pytest
import torch

from models.caption_decoder import Decoder, penalised
from models.vocabulary import PADDING, UNKNOWN

WORDS, CONTEXT, PATCHES, DIM = 20, 9, 5, 12
START, END = WORDS - 2, WORDS - 1


@pytest.fixture
def decoder() -> Decoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Decoder(
            words=WORDS,
            context=CONTEXT,
            patches=PATCHES,
            dim=DIM,
            layers=2,
            heads=3,
            dropout=0.5,
        )
    with torch.no_grad():  # so that words depend on the patches
        for parameter in made.parameters():
            parameter.mul_(2)
    return made.eval()


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randn(6, PATCHES, DIM, generator=torch.Generator().manual_seed(1))


def said(decoder: Decoder, patches: torch.Tensor, least: int = 0, most: int = 8):
    limits = {"start": START, "end": END, "least": least, "most": most}
    return decoder.generate(patches, **limits, choose=lambda scores: scores.argmax(1))


def test_a_word_sees_the_words_before_it_alone(decoder, patches):
    """Other words further on change no score before them."""
    tokens = torch.randint(WORDS, (6, CONTEXT), generator=torch.Generator().manual_seed(2))
    whole = decoder(tokens, patches)
    for at in range(1, CONTEXT):
        other = tokens.clone()
        other[:, at:] = (other[:, at:] + 7) % WORDS
        assert torch.allclose(decoder(other, patches)[:, :at], whole[:, :at], atol=1e-5)
        assert not torch.allclose(decoder(other, patches)[:, at], whole[:, at], atol=1e-3)


def test_scores_depend_on_patches_and_their_places(decoder, patches):
    """Another image, and the same patches elsewhere, give other scores."""
    tokens = torch.full((6, 3), 4)
    whole = decoder(tokens, patches)
    for other in (patches.roll(1, 0), patches.roll(1, 1)):
        assert (decoder(tokens, other) - whole).abs().amax((1, 2)).min() > 1e-3


def test_generation_is_the_likeliest_word_again_and_again(decoder, patches):
    """Keys and values that are kept give what the whole text computed anew gives."""
    expected = []
    for own in patches:
        words = [START]
        while len(words) <= 8 and (len(words) == 1 or words[-1] != END):
            scores = decoder(torch.tensor([words]), own[None])[0, -1]
            scores[[PADDING, UNKNOWN, START]] = -torch.inf
            words.append(int(scores.argmax()))
        expected.append([w for w in words[1:] if w != END])
    assert said(decoder, patches) == expected
    assert len({tuple(words) for words in expected}) > 2


def test_a_caption_does_not_depend_on_the_others(decoder, patches):
    """Alone, in another order or among others."""
    whole = said(decoder, patches)
    assert [said(decoder, own[None])[0] for own in patches] == whole
    assert said(decoder, patches.flip(0)) == whole[::-1]


@pytest.mark.parametrize(("least", "most"), [(0, 1), (3, 3), (5, 8), (8, 100)])
def test_captions_have_as_many_words_as_allowed(decoder, patches, least: int, most: int):
    """Never fewer than `least`, never more than `most` or the context, and real words alone."""
    for words in said(decoder, patches, least, most):
        assert least <= len(words) <= min(most, CONTEXT)
        assert all(UNKNOWN < word < START for word in words)


def test_special_words_are_never_said(decoder, patches):
    """Not even where they are the likeliest by far."""
    with torch.no_grad():
        decoder.norm.weight.zero_()
        decoder.norm.bias.fill_(1)
        decoder.words.weight[[PADDING, UNKNOWN, START]] = 100.0
        decoder.words.weight[7] = 5.0
    assert said(decoder, patches, most=4) == [[7] * 4] * 6


def test_words_that_were_said_become_less_likely():
    """A positive score is divided, a negative one multiplied, once however often it was said."""
    scores = torch.tensor([[2.0, -1.0, 3.0], [2.0, -1.0, 3.0]])
    found = penalised(scores, [[0, 1, 0], []], 2.0)
    assert found.tolist() == [[1.0, -2.0, 3.0], [2.0, -1.0, 3.0]]
    assert torch.equal(penalised(scores, [[0, 1], [2]], 1.0), scores)
