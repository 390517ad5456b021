"""codes: what a codebook captioner sees in every image; and its captions beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import models
from curate import codes
from curate.codes import write_codes
from curate.dataset import Dataset
from curate.filter import filter_pairs
from curate.fits import codebook
from curate.recaption import recaption
from curate.shards import batches
from schemas.configs import Rule
from schemas.tables import CODES, caption_id_of
from tests.shapes import TINY
from tests.stored import BROKEN, Stored, discs, parts_of, stored
from tests.tiny import whole

RULES = (
    Rule(name="named", drop_if="urls__caption LIKE '%number 3'"),
    Rule(name="blurred", drop_if="urls__caption LIKE '%number 4'", fault="image"),
)
GOOD = discs(12)
UNDECODABLE = Stored("http://a/broken.jpg", "broken", BROKEN)
GONE = Stored("http://a/gone.jpg", "gone", None)
CONFIG = TINY.model_copy(update={"top_p": 0.9, "num_captions": 2, "batch_size": 4})


@pytest.fixture(scope="module")
def captioned(tmp_path_factory) -> Dataset:
    data = stored(tmp_path_factory.mktemp("captioned"), [*GOOD, UNDECODABLE, GONE])
    filter_pairs(data, RULES)
    recaption(data, [CONFIG], RULES)
    return data


def test_every_download_has_its_codes(captioned: Dataset):
    """Also who failed a rule; nulls for what cannot be decoded, no row for what is not there."""
    rows = whole(captioned, "codes_codebook")
    assert [r["uid"] for r in rows] == sorted(p.uid for p in [*GOOD, UNDECODABLE])
    seen = {r["uid"]: r["codes"] for r in rows}
    assert seen.pop(UNDECODABLE.uid) is None
    assert {len(own) for own in seen.values()} == {4}
    assert {code for own in seen.values() for code in own} <= set(range(TINY.codes))
    assert {r["cluster"] for r in rows} == {None}
    part = min(captioned.parts("codes_codebook"))
    assert captioned.read("codes_codebook", part).schema.remove_metadata() == CODES


def test_codes_are_those_of_the_trained_model(captioned: Dataset):
    """The artifact's model, asked image by image, gives what the table has."""
    key = captioned.artifact_in_use("codes_codebook")
    folder = Path(captioned.path, "_artifacts", "codebook", key)
    captioner = models.captioner(CONFIG, folder)
    table = {r["uid"]: r["codes"] for r in whole(captioned, "codes_codebook")}
    for part in captioned.parts("samples"):
        for batch in batches(captioned, part, size=1):
            assert captioner.codes(batch) == [table[uid] for uid in batch.uids]


def test_captions_are_of_who_can_be_repaired(captioned: Dataset):
    """Survivors and who failed the pair's rules alone; ids name the trained model and how it
    decodes, and nothing of how it was trained.
    """
    rows = whole(captioned, "captions_codebook")
    hopeless = {GONE.uid, *(p.uid for p in GOOD if p.caption.endswith("number 4"))}
    made = {p.uid for p in [*GOOD, UNDECODABLE]} - hopeless
    assert {r["uid"] for r in rows} == made
    key = captioned.artifact_in_use("captions_codebook")
    assert key == captioned.artifact_in_use("codes_codebook")
    for row in rows:
        decode = json.loads(row["decode"])
        assert decode == {"max_new_tokens": 5, "num_captions": 2, "top_p": 0.9}
        assert row["generator"] == f"codebook:{key}"
        ids = [
            caption_id_of(row["uid"], row["generator"], row["prompt_hash"], row["decode"], 0, index)
            for index in range(2)
        ]
        assert row["caption_id"] in ids
        assert (row["caption"] is None) == (row["uid"] == UNDECODABLE.uid)
        assert (row["error"] is None) == (row["uid"] != UNDECODABLE.uid)


def test_a_second_run_computes_nothing(captioned: Dataset):
    """No part, no version; the model is not even loaded."""
    before = parts_of(captioned, "codes_codebook") | parts_of(captioned, "captions_codebook")
    again = Dataset(captioned.root)
    recaption(again, [CONFIG], RULES)
    after = parts_of(again, "codes_codebook") | parts_of(again, "captions_codebook")
    assert after == before
    assert again.at == captioned.at


def test_tables_do_not_depend_on_parts(tmp_path: Path):
    """The same pairs in other parts have the same codes and captions."""
    one, other = (stored(tmp_path / str(n), discs(9), n) for n in (1, 3))
    for data in (one, other):
        codes_of(data)
    assert whole(one, "codes_codebook") == whole(other, "codes_codebook")


def codes_of(data: Dataset) -> str:
    key = codebook.fit(data, CONFIG)
    write_codes(data, CONFIG, key)
    return key


def test_other_decoding_leaves_codes_alone(tmp_path: Path):
    """Codes do not depend on how captions are told: no part is made anew."""
    data = stored(tmp_path, discs(9))
    key = codes_of(data)
    before, version = parts_of(data, "codes_codebook"), data.at
    write_codes(data, CONFIG.model_copy(update={"top_p": 0.1, "num_captions": 5}), key)
    assert (parts_of(data, "codes_codebook"), data.at) == (before, version)


class KilledError(Exception):
    """What ends a worker between two parts."""


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch):
    """Parts that were written stay, the others are made."""
    one, other = (stored(tmp_path / name, discs(9), 3) for name in ("one", "other"))
    codes_of(one)
    work, done = codes._part, []

    def dying(data, part, *rest):
        if len(done) == 1:
            raise KilledError
        done.append(part)
        return work(data, part, *rest)

    monkeypatch.setattr(codes, "_part", dying)
    with pytest.raises(KilledError):
        codes_of(other)
    monkeypatch.setattr(codes, "_part", work)
    again = Dataset(other.root)
    assert "codes_codebook" not in again.tables()
    codes_of(again)
    assert parts_of(again, "codes_codebook") == parts_of(one, "codes_codebook")


@pytest.mark.parametrize("refit", ["frozen", "every_version"])
def test_more_pairs_are_told_by_the_old_or_a_new_model(tmp_path: Path, refit: str):
    """A frozen captioner is kept where rules change; else it is trained on the new survivors."""
    config = CONFIG.model_copy(update={"refit": refit})
    data = stored(tmp_path, discs(9))
    recaption(data, [config], ())
    key = data.artifact_in_use("captions_codebook")
    filter_pairs(data, RULES)
    recaption(data, [config], RULES)
    assert (data.artifact_in_use("captions_codebook") == key) == (refit == "frozen")
    assert (data.artifact_in_use("codes_codebook") == key) == (refit == "frozen")


def test_another_training_under_the_same_name_is_refused(captioned: Dataset):
    """Captions of two models never mix in one table: nothing is trained before that is said."""
    with pytest.raises(ValueError, match=r"captions_codebook.*lr: .* -> 0\.5"):
        recaption(captioned, [CONFIG.model_copy(update={"lr": 0.5})], RULES)
