"""The pool: same seed, same bytes; planted faults in their shares; families never split."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.demo.drawings import (
    Drawing,
    all_drawings,
    by_family,
    caption,
    family_of,
    take_families,
)
from curate.demo.pictures import clean, encode, near_copy, original
from curate.demo.plan import DEAD_KINDS, plan
from curate.demo.pool import PoolSummary, base_url_of, make_pool

BASE = "http://127.0.0.1:9999"
DRAWINGS, HELD = 300, 40


@pytest.fixture(scope="module")
def known() -> list[Drawing]:
    return all_drawings()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PoolSummary:
    return _make(tmp_path_factory.mktemp("pool"))


def _make(out: Path, seed: int = 0) -> PoolSummary:
    return make_pool(out, drawings=DRAWINGS, held_out=HELD, seed=seed, base_url=BASE)


def _rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def _bytes(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_same_seed_same_bytes(made: PoolSummary, tmp_path: Path):
    """Two pools of the same seed are equal file by file and byte by byte."""
    again = _make(tmp_path)
    assert _bytes(tmp_path) == _bytes(made.urls.parent)
    assert again.counts == made.counts


def test_second_call_does_nothing(made: PoolSummary):
    """A pool that is whole is left alone, down to the times of its files."""
    times = {p: p.stat().st_mtime_ns for p in made.urls.parent.rglob("*")}
    assert _make(made.urls.parent) == made
    assert {p: p.stat().st_mtime_ns for p in made.urls.parent.rglob("*")} == times


def test_pool_knows_where_it_is_served(made: PoolSummary, tmp_path: Path):
    """The base URL of a whole pool can be asked for; where there is none the answer is None."""
    assert base_url_of(made.urls.parent) == BASE
    assert base_url_of(tmp_path) is None


def test_lost_file_comes_back(tmp_path: Path):
    """A file or table that is gone is made again with the same bytes."""
    made = _make(tmp_path)
    before = _bytes(tmp_path)
    next((tmp_path / "files").iterdir()).unlink()
    made.truth.unlink()
    _make(tmp_path)
    after = _bytes(tmp_path)
    assert {k: v for k, v in after.items() if k in before} == after
    assert made.truth.is_file()


def test_another_seed_is_another_pool(made: PoolSummary, tmp_path: Path):
    """Another seed plants and holds out other drawings."""
    other = _make(tmp_path, seed=1)
    assert _rows(other.truth) != _rows(made.truth)
    assert _rows(other.held_out) != _rows(made.held_out)


def test_urls_say_only_what_a_list_says(made: PoolSummary):
    """The list has url, caption and one harmless column, in the order of the truth, URLs unique."""
    urls, truth = _rows(made.urls), _rows(made.truth)
    assert list(urls[0]) == ["url", "caption", "page_title"]
    assert [(r["url"], r["caption"]) for r in urls] == [(r["url"], r["caption"]) for r in truth]
    assert len({r["url"] for r in urls}) == len(urls) == made.pairs
    assert all(r["url"].startswith(f"{BASE}/img/") for r in urls)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(500, 3900))
def test_planted_shares(known: list[Drawing], seed: int, count: int):
    """Every kind has its share, every drawing one place, every copy an original of its own."""
    drawings = take_families(known, count, seed, "test")
    pairs = plan(drawings, seed, BASE)
    counts = Counter(p.kind for p in pairs)
    shares = {"swapped": 0.2, "boilerplate": 0.1, "near_duplicate": 0.1, "exact_copy": 0.05}
    assert {k: abs(counts[k] - s * len(pairs)) <= 1 for k, s in shares.items()} == dict.fromkeys(
        shares, True
    )
    assert abs(sum(counts[k] for k in DEAD_KINDS) - 0.05 * len(pairs)) <= 1
    assert max(counts[k] for k in DEAD_KINDS) - min(counts[k] for k in DEAD_KINDS) <= 1
    assert len({p.url for p in pairs}) == len(pairs)
    originals = {p.url: p for p in pairs if p.of is None}
    assert sorted(p.drawing.code for p in originals.values()) == sorted(d.code for d in drawings)
    copied = [p.of for p in pairs if p.of is not None]
    assert len(set(copied)) == len(copied)
    assert {originals[url].kind for url in copied} == {"clean"}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_swapped_caption_is_right_by_accident(known: list[Drawing], seed: int):
    """A swapped caption belongs to another family's drawing; together they are a permutation."""
    pairs = [p for p in plan(known, seed, BASE) if p.kind == "swapped"]
    owner = {caption(p.drawing, seed): p.drawing for p in pairs}
    assert all(owner[p.caption].family != p.drawing.family for p in pairs)
    assert sorted(p.caption for p in pairs) == sorted(owner)


def test_plan_does_not_depend_on_order(known: list[Drawing]):
    """The order in which drawings come changes no pair and no row."""
    some = known[::5]
    assert plan(some, 3, BASE) == plan(some[::-1], 3, BASE)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(200, 3932))
def test_families_are_taken_whole(known: list[Drawing], seed: int, count: int):
    """As many drawings as asked for, in whole families, natural ones in the whole's proportion."""
    taken = take_families(known, count, seed, "test")
    families = by_family(known)
    assert len(taken) == count
    assert {d.family: len(families[d.family]) for d in taken} == Counter(d.family for d in taken)
    whole = sum(len(families[d.family]) > 1 for d in known) / len(known)
    assert sum(len(families[d.family]) > 1 for d in taken) / count == pytest.approx(whole, abs=0.06)


def test_held_out_families_are_not_in_the_pool(made: PoolSummary):
    """No family and no name of a held-out drawing occurs in the pool; its images are readable."""
    held, truth = _rows(made.held_out), _rows(made.truth)
    drawings = {d.name: d for d in all_drawings()}
    by_code = {d.code: d for d in drawings.values()}
    assert len(held) == HELD
    assert not {drawings[r["name"]].family for r in held} & {r["family"] for r in truth}
    assert not {r["name"] for r in held} & {by_code[r["drawing"]].name for r in truth}
    assert {r["label"] for r in held} <= {d.category for d in drawings.values()}
    assert {Image.open(BytesIO(r["image"])).format for r in held} == {"PNG", "JPEG"}


def test_natural_groups_are_families_of_several(made: PoolSummary):
    """A pair has a natural group exactly where its family has several drawings in the pool."""
    truth = _rows(made.truth)
    sizes = Counter(family for family, _ in {(r["family"], r["drawing"]) for r in truth})
    assert [r["natural_group"] for r in truth] == [
        r["family"] if sizes[r["family"]] > 1 else None for r in truth
    ]
    assert made.natural == sum(r["natural_group"] is not None for r in truth)


def test_copies_are_what_they_say(known: list[Drawing]):
    """Exact copies share the picture; near-duplicates are encoded, scaled and cut otherwise."""
    for pair in [p for p in plan(known, 0, BASE) if p.of is not None]:
        first = original(pair.drawing.code, 0)
        if pair.kind == "exact_copy":
            assert pair.picture == first
        else:
            assert pair.picture.format != first.format
            assert 0.6 <= pair.picture.scale <= 1.5
            assert max(pair.picture.crop) <= 0.02
            assert pair.caption != caption(pair.drawing, 0)


def test_pictures_have_their_format_and_size():
    """A picture is encoded in its format at its size, equal fields give equal bytes."""
    for code in ("1F44D", "1F34E", "1F1EB-1F1F7", "1F3C4-1F3FD-200D-2640-FE0F"):
        for picture in (original(code, 1), near_copy(original(code, 1), 1), clean(code, 1)):
            body = encode(picture)
            image = Image.open(BytesIO(body))
            assert image.format == picture.format.upper()
            assert image.size == (round(picture.size * picture.scale),) * 2
            assert image.mode == ("RGBA" if picture.transparent else "RGB")
            assert body == encode(picture)


def test_captions_tell_relatives_apart(known: list[Drawing]):
    """The first captions of all drawings differ, and so do the variants of one drawing."""
    assert len({caption(d, 0) for d in known}) == len(known) == len({d.name for d in known})
    assert all(len({caption(d, 0, v) for v in range(8)}) == 8 for d in known)
    assert not [c for d in known for v in range(8) if "{" in (c := caption(d, 0, v)) or ", ," in c]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("thumbs up medium-dark skin tone", "thumbs up"),
        ("woman surfing", "surfing"),
        ("kiss woman man dark skin tone light skin tone", "kiss"),
        ("man running facing right", "running"),
        ("prince", "royalty"),
        ("woman", "person"),
        ("half past ten-thirty", "clock face"),
        ("men’s room", "men’s room"),
    ],
)
def test_families(name: str, family: str):
    """Skin tones, genders and directions do not make another family; other words do."""
    assert family_of(name) == family


def test_too_many_drawings(tmp_path: Path):
    """Asking for more drawings than there are says how many can be had."""
    with pytest.raises(ValueError, match="9999 drawings asked for, between 0 and 3932 can be had"):
        make_pool(tmp_path, drawings=9999, held_out=1, seed=0, base_url=BASE)
