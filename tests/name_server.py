"""A DNS server on loopback: UDP, as much of RFC 1035 as a resolver asks for."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

A, AAAA, IN = 1, 28, 1
SERVFAIL, NXDOMAIN = 2, 3
HEADER = struct.Struct(">HHHHHH")
RESPONSE = 0x8180  # recursion desired and available
LOOK_S = 0.02


class NameServer:
    """Answers from `known`: a name's addresses, or a code that says why there are none.

    Names that it does not know do not exist. lose: how many questions for each name's A and AAAA it
    does not answer at first. `go` cleared: it answers nothing until that is set.
    asked: the name of each question for an A.
    """

    def __init__(self, known: Mapping[str, Sequence[str] | int], lose: int = 0) -> None:
        self.known, self.lose = known, lose
        self.asked: list[str] = []
        self.lost: Counter[tuple[str, int]] = Counter()
        self.go, self.ended = threading.Event(), threading.Event()
        self.go.set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(LOOK_S)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.socket.getsockname()[1]}"

    def serve(self) -> None:
        """Until `ended` is set."""
        waiting: list[tuple[bytes, Any]] = []
        while not self.ended.is_set():
            with suppress(TimeoutError):
                question, client = self.socket.recvfrom(4096)
                if (reply := self._reply(question)) is not None:
                    waiting.append((reply, client))
            while waiting and self.go.is_set():
                self.socket.sendto(*waiting.pop(0))

    def _reply(self, message: bytes) -> bytes | None:
        number, *_ = HEADER.unpack_from(message)
        name, end = _name(message, HEADER.size)
        (kind,) = struct.unpack_from(">H", message, end)
        if kind == A:
            self.asked.append(name)
        if self.lost[name, kind] < self.lose:
            self.lost[name, kind] += 1
            return None
        found = self.known.get(name, NXDOMAIN)
        code, addresses = (found, ()) if isinstance(found, int) else (0, found)
        records = [packed for text in addresses if (packed := _record(text, kind))]
        header = HEADER.pack(number, RESPONSE | code, 1, len(records), 0, 0)
        return header + message[HEADER.size : end + 4] + b"".join(records)


def _name(message: bytes, at: int) -> tuple[str, int]:
    labels = []
    while size := message[at]:
        labels.append(message[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels).lower(), at + 1


def _record(address: str, kind: int) -> bytes | None:
    ip = ip_address(address)
    if kind != {4: A, 6: AAAA}[ip.version]:
        return None
    name_of_question = 0xC000 | HEADER.size
    head = struct.pack(">HHHIH", name_of_question, kind, IN, 0, len(ip.packed))
    return head + ip.packed


@contextmanager
def name_server(known: Mapping[str, Sequence[str] | int], lose: int = 0) -> Iterator[NameServer]:
    """One that runs for the block."""
    server = NameServer(known, lose)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        thread.join()
        server.socket.close()
