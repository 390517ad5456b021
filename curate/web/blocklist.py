"""Blocklist: URLs, hosts and images that are never to be taken in.

Files of one entry a line, read by every worker:

    url https://example.org/photo.jpg
    host example.org                    # with its subdomains
    sha256 <64 hex digits>              # of the bytes as they came
    phash <16 hex digits> 4             # within so many bits of 64; 0 where it says nothing

URLs, hosts and sha256 are kept as 128 bits each: 16 MB per million, of which a billion lookups find
none by accident.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any, BinaryIO
from urllib.parse import urlsplit, urlunsplit

import fsspec
import numpy as np

MAX_LINE = 1 << 16  # octets
MAX_RADIUS = 32  # bits: half of all images are nearer to any hash
CHUNK = 1 << 14  # pHashes compared at a time: they stay in the cache
PORTS = {"http": 80, "https": 443}
VALID = (
    "valid are: url https://..., host example.org, sha256 and 64 hex digits, phash and 16 hex "
    f"digits with a radius of 0 to {MAX_RADIUS}; # begins a comment"
)
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_NORMAL = re.compile(r"(https?)://[a-z0-9.-]*[a-z](/[!$&'()*+,\-./0-9:;=?@A-Z_a-z~]*)")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|[^!-~]+")
_COMMENT = re.compile(r"(^|\s)#.*")

Words = np.ndarray[Any, np.dtype[np.uint64]]


class _Digests:
    """A set of 128-bit numbers, sorted by their first 64 bits."""

    def __init__(self, packed: bytearray) -> None:
        words: Words = np.frombuffer(packed, dtype=">u8").astype(np.uint64).reshape(-1, 2)
        words = words[np.argsort(words[:, 0], kind="stable")]
        self._high, self._low = words[:, 0].copy(), words[:, 1].copy()

    def __contains__(self, digest: bytes) -> bool:
        high = np.uint64(int.from_bytes(digest[:8]))
        at = int(np.searchsorted(self._high, high))
        low = int.from_bytes(digest[8:16])
        while at < len(self._high) and self._high[at] == high:
            if self._low[at] == low:
                return True
            at += 1
        return False

    def __len__(self) -> int:
        return len(self._high)


class Blocklist:
    """What the files name. Thread-safe once it is built.

    paths: any fsspec paths of text files, compressed or not; (): nothing is blocked.
    Raises ValueError with file and line for an entry that is none, or a file that is not there.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        packed = {kind: bytearray() for kind in ("url", "host", "sha256")}
        hashes: dict[int, list[int]] = {}
        for path in paths:
            for where, kind, value in _entries(path):
                if kind == "phash":
                    number, radius = _phash(where, value)
                    hashes.setdefault(radius, []).append(number)
                elif kind in packed:
                    packed[kind] += _digest(where, kind, value)
                else:
                    raise ValueError(f"{where}: {kind[:60]!r} is no kind of entry; {VALID}")
        self._urls, self._hosts, self._images = (_Digests(data) for data in packed.values())
        self._hashes = {r: np.unique(np.array(h, dtype=np.uint64)) for r, h in hashes.items()}

    def url(self, url: str) -> str | None:
        """The row's error where the list names this URL, in whatever spelling."""
        if len(self._urls) and _packed(normal_url(url)) in self._urls:
            return "URL is on the blocklist"
        return None

    def host(self, host: str) -> str | None:
        """The row's error where the list names this host or a domain that it is in."""
        if not len(self._hosts):
            return None
        for domain in _domains(normal_host(host)):
            if _packed(domain) in self._hosts:
                return f"host {domain[:100]} is on the blocklist"
        return None

    def image(self, sha256: str | None, phash: int | None) -> str | None:
        """The row's error for an image. sha256: hex, of its bytes. None: not known."""
        if sha256 is not None and len(self._images) and bytes.fromhex(sha256) in self._images:
            return "image is on the blocklist (sha256)"
        if phash is not None and any(_near(h, phash, r) for r, h in self._hashes.items()):
            return "image is on the blocklist (pHash)"
        return None


def normal_url(url: str) -> str:
    """One spelling of a URL: scheme and host in lower case, no default port, no user, no fragment,
    no dot segments, escapes in upper case and only where they are needed. What is no URL stays as
    it is.
    """
    if _NORMAL.fullmatch(url) and "/." not in url:
        return url
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.lower(), parts.port
        host = normal_host(parts.hostname or "")
    except ValueError:
        return url
    host = f"[{host}]" if ":" in host else host
    place = host if port in (None, PORTS.get(scheme)) else f"{host}:{port}"
    path = without_dots(_escaped(parts.path)) or "/"
    return urlunsplit((scheme, place, path, _escaped(parts.query), ""))


def without_dots(path: str) -> str:
    """A path from the root without its `.` and `..` (RFC 3986, 5.2.4); %2e is a dot, too."""
    if "/." not in path and "/%2e" not in path.lower():
        return path
    kept: list[str] = []
    dots = False
    for segment in path.split("/"):
        plain = segment.lower().replace("%2e", ".")
        dots = plain in (".", "..")
        if not dots:
            kept.append(segment)
        elif plain == ".." and len(kept) > 1:
            kept.pop()
    return "/".join([*kept, ""] if dots else kept)


def normal_host(host: str) -> str:
    """A host in lower case and in punycode, without the dot at its end."""
    host = host.strip("[]").rstrip(".").lower()
    if host.isascii():
        return host
    from yarl import URL

    try:
        return URL.build(scheme="http", host=host).raw_host or host
    except ValueError:
        return host


def _escaped(text: str) -> str:
    return _ESCAPE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    if match[1] is None:
        return "".join(f"%{octet:02X}" for octet in match[0].encode(errors="replace"))
    char = chr(int(match[1], 16))
    return char if char in _UNRESERVED else match[0].upper()


def _domains(host: str) -> Iterator[str]:
    """The host and the domains that it is in; an address is in none."""
    yield host
    while "." in host and not _is_address(host):
        host = host.partition(".")[2]
        yield host


def _is_address(host: str) -> bool:
    if not host[-1:].isdigit() and ":" not in host:
        return False
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _packed(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()


def _near(hashes: Words, phash: int, radius: int) -> bool:
    """Whether one of the sorted `hashes` is at most `radius` bits away."""
    number = np.uint64(phash)
    if radius == 0:
        at = int(np.searchsorted(hashes, number))
        return at < len(hashes) and bool(hashes[at] == number)
    return any(
        bool((np.bitwise_count(hashes[begin : begin + CHUNK] ^ number) <= radius).any())
        for begin in range(0, len(hashes), CHUNK)
    )


def _entries(path: str) -> Iterator[tuple[str, str, str]]:
    """Where it stands, kind and value of every entry of a file."""
    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            for number, line in _numbered(file):
                where = f"{path}, line {number}"
                if len(line) >= MAX_LINE:
                    raise ValueError(f"{where}: longer than {MAX_LINE} bytes; {VALID}")
                text = _COMMENT.sub("", line.decode("utf-8-sig", errors="replace")).strip()
                if text:
                    kind, *value = text.split(maxsplit=1)
                    yield where, kind.lower(), "".join(value)
    except FileNotFoundError as error:
        raise ValueError(f"blocklist has {path!r}: there is no such file") from error


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        yield number, line


def _is_url(text: str) -> bool:
    if _NORMAL.fullmatch(text):
        return True
    try:
        return urlsplit(text).scheme.lower() in PORTS and bool(urlsplit(text).hostname)
    except ValueError:
        return False


def _digest(where: str, kind: str, value: str) -> bytes:
    match kind:
        case "url" if _is_url(value):
            return _packed(normal_url(value))
        case "host" if re.fullmatch(r"\w[\w.-]*|\[?[0-9A-Fa-f.:]+:[0-9A-Fa-f.:]*\]?", value):
            return _packed(normal_host(value))
        case "sha256" if re.fullmatch(r"[0-9A-Fa-f]{64}", value):
            return bytes.fromhex(value)[:16]
    raise ValueError(f"{where}: {value[:100]!r} is no {kind}; {VALID}")


def _phash(where: str, value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9A-Fa-f]{16})(?:\s+(\d{1,2}))?", value)
    radius = int(match[2] or 0) if match else 0
    if match is None or radius > MAX_RADIUS:
        raise ValueError(f"{where}: {value[:100]!r} is no phash; {VALID}")
    return int(match[1], 16), radius
