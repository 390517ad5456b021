"""Undoing a Content-Encoding, bit by bit."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.web.body import PIECE, Unpacker
from curate.web.failures import Failure


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": gzip.compress,
    "members": lambda data: b"".join(gzip.compress(data[n::3]) for n in range(3)),
    "zlib": zlib.compress,
    "raw": raw,
}


@given(st.binary(max_size=2000), st.integers(1, 50), st.sampled_from(["gzip", "zlib", "raw"]))
def test_packed_bytes_come_out_however_they_are_cut(data, step, kind):
    """The pieces in which a body arrives make no difference."""
    packed = PACKERS[kind](data)
    unpacker = Unpacker(gzip=kind == "gzip")
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert b"".join(p for piece in pieces for p in unpacker.pieces(piece)) == data
    unpacker.end()


@given(st.integers(1, 40), st.sampled_from([b"", b"\0" * 9, b"x", b"\x1f", b"\x1fx"]))
def test_members_follow_each_other_and_padding_ends_them(step, padding):
    """A gzip stream may have several members, cut anywhere; what is no member is left out."""
    data = bytes(range(256)) * 4
    packed = PACKERS["members"](data) + padding
    unpacker = Unpacker(gzip=True)
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    found = b"".join(p for piece in pieces for p in unpacker.pieces(piece))
    assert found == data[0::3] + data[1::3] + data[2::3]
    unpacker.end()


@pytest.mark.parametrize("kind", ["gzip", "zlib"])
def test_a_stream_that_stops_is_short(kind):
    """A body that ends in the middle of its stream says so, wherever it stops."""
    packed = PACKERS[kind](b"some bytes that are packed")
    for end in range(1, len(packed)):
        unpacker = Unpacker(gzip=kind == "gzip")
        list(unpacker.pieces(packed[:end]))
        with pytest.raises(Failure, match="body shorter than declared"):
            unpacker.end()


def test_a_bomb_is_unpacked_piece_by_piece():
    """50 MB in 50 kB never take more memory than a few pieces."""
    bomb = zlib.compress(bytes(50_000_000))
    unpacker = Unpacker(gzip=False)
    tracemalloc.start()
    size = sum(map(len, unpacker.pieces(bomb)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 50_000_000
    assert peak < 6 * PIECE


@given(st.binary(min_size=1, max_size=300))
def test_noise_is_no_gzip(data):
    """Whatever comes is refused with the one text or the other."""
    unpacker = Unpacker(gzip=True)
    with pytest.raises(Failure, match=r"^body (is not in its declared encoding|shorter)"):
        _all(unpacker, data)


@given(st.binary(min_size=1, max_size=300))
def test_noise_as_deflate_ends_as_bytes_or_as_a_failure(data):
    """Raw deflate has no mark: some noise is read, the rest is refused, none crashes."""
    with suppress(Failure):
        assert isinstance(_all(Unpacker(gzip=False), data), bytes)


def _all(unpacker: Unpacker, data: bytes) -> bytes:
    found = b"".join(unpacker.pieces(data))
    unpacker.end()
    return found
