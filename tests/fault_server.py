"""A real HTTP server on loopback with the web's faults, and a listener to stay clear of."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.faults import FAULTS, picture


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # the default of 5 drops connections, which come again after a second


class FaultServer:
    """`files` maps a path to (content type, bytes); FAULTS a path to what its handler does.

    instead: a path to another one whose fault it has. flooded: bytes that the endless answers could
    send before the other side had enough.
    """

    def __init__(self) -> None:
        self.instead: dict[str, str] = {}
        self.flooded = 0
        self.files: dict[str, tuple[str, bytes]] = {}
        self.hits: Counter[str] = Counter()
        self.user_agents: set[str] = set()
        self.request_headers: list[dict[str, str]] = []
        self.open = 0
        self.most_open = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.http = _Http(("127.0.0.1", 0), _handler(self))
        self.port = self.http.server_address[1]
        self.address = f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def image(self, path: str, seed: int = 0, kind: str = "JPEG", **size: Any) -> str:
        """Serve a picture; returns its URL."""
        self.files[path] = (f"image/{kind.lower()}", picture(seed, kind=kind, **size))
        return self.url(path)

    def serve(self, path: str, body: bytes, content_type: str = "image/jpeg") -> str:
        self.files[path] = (content_type, body)
        return self.url(path)


def _handler(server: FaultServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else 40 ms an answer

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with server.lock:
                server.hits[self.path] += 1
                server.open += 1
                server.most_open = max(server.most_open, server.open)
                server.user_agents.add(self.headers.get("User-Agent", ""))
                server.request_headers.append(dict(self.headers))
            try:
                self._answer()
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                self.close_connection = True
            finally:
                with server.lock:
                    server.open -= 1

        def _answer(self) -> None:
            self.path = server.instead.get(self.path, self.path)
            path = urlsplit(self.path).path
            if path in server.files:
                return self.reply(
                    200, server.files[path][1], {"Content-Type": server.files[path][0]}
                )
            fault = FAULTS.get("/" + path.split("/")[1])
            return fault(self, server) if fault else self.reply(404)

        def reply(
            self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def fault_server(certificate: Path | None = None) -> Iterator[FaultServer]:
    """A running server; ends with the block. certificate: a PEM file for TLS, with its key."""
    server = FaultServer()
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    thread = threading.Thread(
        target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


@contextmanager
def self_signed(address: str = "127.0.0.1") -> Iterator[Path]:
    """A PEM file with a key and a certificate for `address` that nobody has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "self_signed.pem"
        file.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
        yield file


class Forbidden:
    """A listener on an address that tells whether anybody connected."""

    def __init__(self, address: str = "127.0.0.2") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, 0), family=family)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self.port}/secret.jpg"

    def visits(self) -> int:
        """Connections since the last call."""
        seen = 0
        while True:
            try:
                self.listener.accept()[0].close()
            except BlockingIOError:
                return seen
            seen += 1


@contextmanager
def forbidden(address: str = "127.0.0.2") -> Iterator[Forbidden]:
    """A listener on 127.0.0.2, or on ::1, for the time of the block. Raises OSError without it."""
    listener = Forbidden(address)
    try:
        yield listener
    finally:
        listener.listener.close()
