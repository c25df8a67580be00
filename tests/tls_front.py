# SPDX-License-Identifier: Apache-2.0
"""A TLS terminator in front of a real service, by pyOpenSSL, whose OpenSSL is that of the ``cryptography`` wheel.

It does what the reverse proxy of a deployment does, with the key exchange such a proxy should offer, and says what each
connection negotiated. Bytes are passed on unread in both directions.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from OpenSSL import SSL

POST_QUANTUM_GROUP = "X25519MLKEM768"
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a handshake agreed on."""

    version: str
    group: str
    cipher: str


@dataclass
class TlsFront:
    """Where the front listens, what was negotiated there, and how many handshakes failed."""

    url: str = ""
    negotiated: list[Negotiated] = field(default_factory=list)
    refused: int = 0


@contextmanager
def tls_front(certificate: Path, upstream: str, *, newest: int | None = None) -> Iterator[TlsFront]:
    """Serve ``upstream`` (``http://host:port``) by TLS on a free port of 127.0.0.1.

    Args:
        certificate: certificate and key, as PEM in one file.
        upstream: the service behind it.
        newest: the newest protocol version to offer, e.g. ``SSL.TLS1_1_VERSION``; by default all of them.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(certificate))
    context.use_privatekey_file(str(certificate))
    if newest is not None:
        context.set_cipher_list(b"ALL:@SECLEVEL=0")  # what OpenSSL wants to be told before it speaks TLS 1.1
        context.set_max_proto_version(newest)
    host, port = upstream.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    front = TlsFront(f"https://127.0.0.1:{listener.getsockname()[1]}")
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=_serve, args=(front, context, client, (host, int(port))), daemon=True)
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield front
    finally:
        # close() alone does not wake a thread in accept().
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(10)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def _serve(front: TlsFront, context: SSL.Context, client: socket.socket, upstream: tuple[str, int]) -> None:
    with client:
        client.settimeout(None)  # pyOpenSSL takes a timeout for "would block"
        tls = SSL.Connection(context, client)
        tls.set_accept_state()
        try:
            tls.do_handshake()
        except (SSL.Error, OSError):
            front.refused += 1
            return
        front.negotiated.append(
            Negotiated(tls.get_protocol_version_name(), str(tls.get_group_name()), str(tls.get_cipher_name()))
        )
        with contextlib.suppress(OSError, SSL.Error), socket.create_connection(upstream) as plain:
            _relay(tls, client, plain)
        with contextlib.suppress(OSError, SSL.Error):
            tls.shutdown()


def _relay(tls: SSL.Connection, client: socket.socket, plain: socket.socket) -> None:
    """Pass bytes on until one side ends. One thread: an OpenSSL connection is not to be used by two."""
    client.setblocking(False)
    plain.setblocking(False)
    up, down = b"", b""
    while True:
        readers = ([] if up else [client]) + ([] if down else [plain])
        writers = ([plain] if up else []) + ([client] if down else [])
        pending = not up and tls.pending() > 0
        readable, writable, _ = select.select(readers, writers, [], 0 if pending else 60)
        if not readable and not writable and not pending:
            return
        if client in readable or pending:
            with contextlib.suppress(SSL.WantReadError, SSL.WantWriteError):
                up = tls.recv(_PIECE)  # ends by ZeroReturnError
        if plain in readable:
            down = plain.recv(_PIECE)
            if not down:
                return
        if up and plain in writable:
            up = up[plain.send(up) :]
        if down and client in writable:
            with contextlib.suppress(SSL.WantReadError, SSL.WantWriteError):
                down = down[tls.send(down) :]
