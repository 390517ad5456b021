"""Damages: what a file looks like after a bad disk, a cut connection, or an attacker."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)
Rng = np.random.Generator


def mutated(rng: Rng, bodies: list[bytes]) -> bytes:
    """One to three damages, and often checksums that fit again, so that more of a PNG is read."""
    body = bytearray(bodies[rng.integers(len(bodies))])
    for _ in range(rng.integers(1, 4)):
        if body:
            MUTATIONS[rng.integers(len(MUTATIONS))](rng, body, bodies)
    return _checksums(bytes(body)) if rng.random() < 0.7 else bytes(body)


def _place(rng: Rng, body: bytearray) -> int:
    """Any place, but half of the time one where headers are."""
    return int(rng.integers(min(len(body), 200) if rng.random() < 0.5 else len(body)))


def _flip(rng: Rng, body: bytearray, _: list[bytes]) -> None:
    for _ in range(rng.integers(1, 9)):
        body[_place(rng, body)] ^= 1 << rng.integers(8)


def _overwrite(rng: Rng, body: bytearray, _: list[bytes]) -> None:
    at, count = _place(rng, body), int(rng.integers(1, 65))
    body[at : at + count] = rng.bytes(count)


def _cut(rng: Rng, body: bytearray, _: list[bytes]) -> None:
    del body[_place(rng, body) :]


def _number(rng: Rng, body: bytearray, _: list[bytes]) -> None:
    """A field of a header: a count, a size, an offset."""
    at, size = _place(rng, body), int(rng.choice([1, 2, 4]))
    value = int(rng.choice(NUMBERS)) & (256**size - 1)
    body[at : at + size] = value.to_bytes(size, "big" if rng.random() < 0.5 else "little")


def _remove(rng: Rng, body: bytearray, _: list[bytes]) -> None:
    at = _place(rng, body)
    del body[at : at + int(rng.integers(1, 257))]


def _repeat(rng: Rng, body: bytearray, _: list[bytes]) -> None:
    at, to = _place(rng, body), _place(rng, body)
    body[to:to] = body[at : at + int(rng.integers(1, 513))] * int(rng.integers(1, 5))


def _splice(rng: Rng, body: bytearray, bodies: list[bytes]) -> None:
    """A segment or chunk of another image, mostly of another format."""
    other = bodies[rng.integers(len(bodies))]
    at = int(rng.integers(len(other)))
    to = _place(rng, body)
    body[to:to] = other[at : at + int(rng.integers(1, 2049))]


def _garbage(rng: Rng, body: bytearray, _: list[bytes]) -> None:
    at = int(rng.integers(min(len(body), 600)))
    body[at:] = rng.bytes(int(rng.integers(0, 4096)))


def _append(rng: Rng, body: bytearray, bodies: list[bytes]) -> None:
    body += bodies[rng.integers(len(bodies))]


MUTATIONS: tuple[Callable[[Rng, bytearray, list[bytes]], None], ...] = (
    *(_flip, _overwrite, _cut, _number, _number, _remove),
    *(_repeat, _splice, _garbage, _append),
)


def _checksums(body: bytes) -> bytes:
    """A PNG's chunks with the CRC that fits what they say now; other bytes as they are."""
    if not body.startswith(b"\x89PNG\r\n\x1a\n"):
        return body
    fixed, at = bytearray(body), 8
    while at + 12 <= len(body):
        end = at + 8 + struct.unpack_from(">I", body, at)[0]
        if end + 4 > len(body):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(body[at + 4 : end]))
        at = end + 4
    return bytes(fixed)
