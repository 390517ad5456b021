"""Identity and schemas."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from schemas.tables import SAMPLES, caption_id_of, clean, draw, schema_of, scores, uid_of

ANY_TEXT = st.text(st.characters(codec=None), max_size=40)  # surrogates too


def test_a_uid_is_128_bits_of_sha256_of_url_nul_caption():
    """The identity can be recomputed by anybody from the two strings."""
    wanted = hashlib.sha256(b"http://a/b.jpg\0a cat").hexdigest()[:32]
    assert uid_of("http://a/b.jpg", "a cat") == wanted
    assert uid_of("http://a/b.jpg", None) == uid_of("http://a/b.jpg", "")


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_has_an_identity(url: str, caption: str):
    """Unpaired surrogates become U+FFFD first, so that every string has a uid and can be stored."""
    assert len(uid_of(url, caption)) == 32
    assert uid_of(url, caption) == uid_of(clean(url), clean(caption))
    clean(caption).encode()


def test_surrogate_pairs_are_joined_and_lone_ones_replaced():
    """What a careless JSON reader leaves behind becomes the text that was meant."""
    assert clean("\ud83d\ude00") == "\U0001f600"
    assert clean("a\ud800b") == "a\ufffdb"


def test_caption_ids_tell_generators_seeds_and_indexes_apart():
    """Each field of a generated caption's origin changes its identity."""
    base = ("u" * 32, "hf:x", "p", "{}", 0, 0)
    ids = {caption_id_of(*base)}
    for at, other in enumerate(("v" * 32, "hf:y", "q", "{1}", 1, 1)):
        ids.add(caption_id_of(*base[:at], other, *base[at + 1 :]))
    assert len(ids) == 7


@given(st.integers(0, 9), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_a_draw_depends_on_seed_and_pair_alone(seed: int, uid: str):
    """Draws are in [0, 1), repeatable, and another seed draws anew."""
    assert 0 <= draw(seed, uid) < 1
    assert draw(seed, uid) == draw(seed, uid)
    assert draw(seed, uid) != draw(seed + 1, uid)


def test_draws_are_uniform():
    """Ten thousand draws fill ten equal bins evenly."""
    draws = [draw(1, f"{i:032x}") for i in range(10_000)]
    bins = [sum(b / 10 <= d < (b + 1) / 10 for d in draws) for b in range(10)]
    assert all(900 < n < 1100 for n in bins)


def test_every_table_has_a_schema_by_name():
    """Families share their schema, and samples keep img2dataset's names in its order."""
    assert schema_of("captions_blip") is schema_of("captions_hf")
    assert schema_of("duplicates_exact").names[:2] == ["uid", "other_uid"]
    assert schema_of("scores_clip") is None
    assert [n for n in SAMPLES.names if n in ("key", "status", "error_message", "width")] == [
        "key",
        "status",
        "error_message",
        "width",
    ]


def test_score_tables_carry_embeddings_of_a_fixed_size():
    """A scorer with embeddings adds fixed-size float16 lists before its error."""
    schema = scores("clip", {"image_emb": 512})
    assert str(schema.field("image_emb").type) == "fixed_size_list<element: halffloat>[512]" or (
        schema.field("image_emb").type.list_size == 512
    )
    assert schema.names[-1] == "error"
