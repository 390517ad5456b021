"""Sieve and word lists in the pass over a pool, and the decision that blends Sieve's score."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.filter import filter_pairs
from curate.score import score
from schemas.configs import ClipScorer, Rule, SieveScorer, WordListScorer
from tests.blip import tiny_blip
from tests.sentences import tiny_sentences
from tests.stored import BROKEN, Stored, discs, stored, tiny_clip
from tests.tiny import whole

PAIRS = [
    *(
        Stored(disc.url, f"a {word} dog", disc.image)
        for disc, word in zip(discs(4), ("red", "blue", "two", "on"), strict=True)
    ),
    Stored("http://a/broken.jpg", "a red dog", BROKEN),
    Stored("http://a/silent.jpg", None, discs(5)[4].image),
    Stored("http://a/gone.jpg", "a cat", None),
]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    (path / "words.txt").write_text("dog\nred dog\ncat\n")
    return (
        SieveScorer(
            captioner=str(tiny_blip(path / "blip")),
            encoder=str(tiny_sentences(path / "bert")),
            captions=2,
            max_tokens=6,
        ),
        WordListScorer(name="animals", words=str(path / "words.txt")),
        ClipScorer(model=str(tiny_clip(path / "clip")), pretrained=None, batch_size=4),
    )


def columns(data, table, *names):
    return {r["uid"]: tuple(r[n] for n in names) for r in whole(data, table)}


def test_every_downloaded_pair_has_a_row_whatever_the_parts(tmp_path: Path, configs):
    """Sieve's number and caption, and the words, or an error; one part gives what three do."""
    found = []
    for parts in (1, 3):
        data = stored(tmp_path / str(parts), PAIRS, parts)
        score(data, configs)
        found.append(columns(data, "scores_sieve", "sieve", "sieve_caption", "error"))
        words = columns(data, "scores_animals", "words_found", "words", "error")
        assert words[PAIRS[0].uid] == (2, ["dog", "red dog"], None)
        assert words[PAIRS[4].uid] == (2, ["dog", "red dog"], None)
        assert words[PAIRS[5].uid] == (None, None, "no caption")
        assert PAIRS[6].uid not in words
    one, three = found
    assert one.keys() == three.keys() == {p.uid for p in PAIRS[:6]}
    for uid, (number, text, error) in one.items():
        assert three[uid] == (pytest.approx(number, abs=1e-5), text, error)
        assert (number is None) == (uid in (PAIRS[4].uid, PAIRS[5].uid)) == (error is not None)


def test_sieve_and_the_cosine_decide_together(tmp_path: Path, configs):
    """The recipe's rule: half of each, scaled over the pool; half of the four known pairs stay, and
    pairs that one of the two could not score are unknown."""
    data = stored(tmp_path, PAIRS)
    score(data, configs)
    sieve, clip = (
        {uid: v for uid, (v,) in columns(data, f"scores_{n}", c).items() if v is not None}
        for n, c in (("sieve", "sieve"), ("clip", "clip_score"))
    )
    assert sieve.keys() == clip.keys() == {p.uid for p in PAIRS[:4]}

    def scaled(values):
        least, most = min(values.values()), max(values.values())
        return {uid: (v - least) / (most - least) for uid, v in values.items()}

    fused = {uid: scaled(sieve)[uid] / 2 + scaled(clip)[uid] / 2 for uid in sieve}
    blend = {"scores_sieve__sieve": 0.5, "scores_clip__clip_score": 0.5}
    filter_pairs(data, [Rule(name="low_fused", blend=blend, keep_top=0.5)])
    reasons = {r["uid"]: r["reason"] for r in whole(data, "decisions_quality")}
    best = sorted(fused, key=lambda uid: -fused[uid])[:2]
    assert {uid for uid, reason in reasons.items() if reason is None} == set(best)
    assert [reasons[p.uid] for p in PAIRS[4:6]] == ["unknown low_fused"] * 2
