"""Examples: what a rule dropped, what it only just kept, and pictures that are safe to inline."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from curate.query import connect
from curate.reporting.examples import duplicate_groups, rule_examples, thumbnail
from schemas.configs import Rule
from tests.gallery import RULES, Item, add_dedup, gallery, items, shape

LOW = Rule(name="low", value="scores_clip__clip_score", drop_below=0.5)


def by_score(scores) -> list[Item]:
    return [
        Item(f"https://x.example/{i}", f"caption {i}", shape(i), s) for i, s in enumerate(scores)
    ]


def test_kept_examples_are_those_nearest_to_the_threshold(tmp_path):
    """Of the pairs that pass, the ones that only just do; of the dropped a fair draw;
    counts are of all.
    """
    data = gallery(tmp_path / "set", by_score([i / 20 for i in range(20)] + [None]), [LOW])
    (found,) = rule_examples(connect(data), data, [LOW], count=3)
    assert [e.note for e in found.kept] == ["0.5", "0.55", "0.6"]
    assert len(found.dropped) == 3
    assert all(float(e.note) < 0.5 for e in found.dropped)
    assert (found.failed, found.unknown) == (11, 1)
    assert found.kept[0].caption == "caption 10"
    assert all(str(e.thumbnail).startswith("data:image/jpeg;base64,") for e in found.kept)


def test_every_rule_that_failed_a_pair_has_examples(tmp_path):
    """In the recipe's order;
    a rule that the recipe no longer has is shown without its condition.
    """
    data = gallery(tmp_path / "set", items())
    con = connect(data)
    assert [r.name for r in rule_examples(con, data, RULES)] == ["low_clip", "wide", "file_name"]
    known, *forgotten = rule_examples(con, data, RULES[:1])
    assert (known.name, known.rule) == ("low_clip", RULES[0])
    assert {(r.name, r.rule) for r in forgotten} == {("wide", None), ("file_name", None)}


def test_groups_show_the_kept_pair_and_the_copies_it_stands_for(tmp_path):
    """Copies that hang together through a dropped centre belong to the pair that stays;
    the largest group comes first.
    """
    pairs = sorted(by_score([0.9] * 6), key=lambda i: i.uid)
    data = gallery(tmp_path / "set", pairs, [LOW])
    a, b, c, d, e, f = (i.uid for i in pairs)
    add_dedup(data, [(a, b, 0.0), (a, c, 0.0), (a, d, 3.0), (e, f, 1.0)], {a: b, c: b, d: b, f: e})
    first, second = duplicate_groups(connect(data), data)
    assert (first.kept.uid, first.size) == (b, 3)
    assert [(x.uid, x.note) for x in first.dropped] == [
        *sorted([(a, "perceptual, distance 0"), (c, "perceptual, distance 0")]),
        (d, "perceptual, distance 3"),
    ]
    assert (second.kept.uid, [x.uid for x in second.dropped]) == (e, [f])


def test_thumbnails_are_small_jpegs():
    """At most 96 pixels a side in the image's proportions, transparency over white,
    small ones as they are.
    """
    wide = np.zeros((100, 400, 4), np.uint8)
    encoded = cv2.imencode(".png", wide)[1].tobytes()
    raw = base64.b64decode(str(thumbnail(encoded)).removeprefix("data:image/jpeg;base64,"))
    pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (24, 96, 3)
    assert pixels.min() > 250
    small = base64.b64decode(str(thumbnail(shape(1, 40))).split(",")[1])
    assert cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape == (40, 40, 3)


def test_what_is_no_image_has_no_thumbnail():
    """A missing or undecodable image costs its picture, not the page."""
    assert thumbnail(None) is None
    assert thumbnail(b"<html>") is None
    assert thumbnail(b"") is None
