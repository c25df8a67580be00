# SPDX-License-Identifier: Apache-2.0
"""One connection to one origin, and one exchange on it at a time.

Responses are ``http.client``'s, so a body is received straight into the caller's buffer. Every byte a server sends
passes ``_Patience``, which ends silence (``timeout``), drips (less than ``limits.MINIMUM_RATE_BYTES`` per second over
``timeout`` seconds of waiting) and floods (more than the exchange allows, headers and framing included). Compressed
answers are refused. Everything that goes wrong is a ``WireFailure``; callers decide whether to try again.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq_registry import __version__, limits
from pq_registry.client.failure import WireFailure, reported
from pq_registry.client.origin import Origin
from pq_registry.client.progress import ignored
from pq_registry.client.rate import TokenBucket, never
from pq_registry.client.tls import RECORD_BYTES, client_context, interpreter_is_current

if TYPE_CHECKING:
    from urllib3.contrib.pyopenssl import PyOpenSSLContext

Body = bytes | bytearray | memoryview
UNCAPPED = TokenBucket(0)
_SEND_BYTES = 256 * limits.KIB


class Tls:
    """The TLS settings of a client; the context is made when the first https connection needs it."""

    def __init__(self, ca: Path | None = None) -> None:
        self._ca = ca
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | PyOpenSSLContext | None = None

    def context(self) -> ssl.SSLContext | PyOpenSSLContext:
        """The shared context. Raises SettingError if the certificate authorities cannot be read."""
        with self._lock:
            if self._context is None:
                self._context = client_context(self._ca)
            return self._context


class _Patience(io.RawIOBase):
    """Reads a socket, within bounds of silence, slowness and size."""

    def __init__(self, raw: io.RawIOBase, *, timeout: float, most: int) -> None:
        self._raw = raw
        self._timeout = timeout
        self.budget = limits.RESPONSE_OVERHEAD_BYTES  # for the head; raised when the body is awaited
        self._most = most
        self._waited = 0.0
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view:
            before = time.monotonic()
            count = self._raw.readinto(view[: self._most]) or 0
            self._waited += time.monotonic() - before
        self._received += count
        self.budget -= count
        if self.budget < 0:
            raise WireFailure("the server sends more than was asked for", again=False, odd=True)
        if self._waited > self._timeout:
            if count and self._received < self._timeout * limits.MINIMUM_RATE_BYTES:
                raise TimeoutError(f"fewer than {limits.MINIMUM_RATE_BYTES} bytes per second")
            self._waited, self._received = 0.0, 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
            super().close()


class WireResponse(http.client.HTTPResponse):
    """A response whose head has been read and whose body is to be read once, completely, by one of the two methods."""

    def __init__(
        self, sock: socket.socket, *, method: str | None = None, patience: Callable[[io.RawIOBase], _Patience]
    ) -> None:
        super().__init__(sock, method=method)
        self._patience = patience(self.fp.detach())
        self.fp = io.BufferedReader(self._patience)

    def allow(self, count: int) -> None:
        """Let the server send ``count`` bytes for the body and its framing, beyond what was allowed for the head."""
        self._patience.budget = limits.RESPONSE_OVERHEAD_BYTES + count

    def receive_into(
        self,
        view: memoryview,
        *,
        rate: TokenBucket = UNCAPPED,
        stopped: Callable[[], bool] = never,
        arrived: Callable[[int], None] = ignored,
    ) -> None:
        """Fill ``view`` with the body, which must have been announced with exactly that length.

        Args:
            view: where the body goes.
            rate: the cap on receiving.
            stopped: whether to give up.
            arrived: told how many bytes came, after each piece, in this thread. Its exceptions pass through.

        Raises:
            WireFailure: if the body is of another length, or breaks off.
        """
        if self.chunked or self.length != len(view):
            raise WireFailure(f"expected {len(view)} bytes, announced {self.length}", again=False, odd=True)
        got = 0
        while got < len(view):
            if stopped():  # what a closed socket still has to give is not waited for
                raise WireFailure("interrupted", again=False)
            with reported():
                count = self.fp.readinto1(view[got : got + rate.slice_bytes])
            if not count:
                raise WireFailure(f"the answer ended after {got} of {len(view)} bytes")
            got += count
            arrived(count)
            rate.take(count, stopped)
        self.close()

    def receive(self, limit: int) -> bytes:
        """The body, of at most ``limit`` bytes."""
        if self.length is None and not self.chunked:
            raise WireFailure("the answer does not say how long it is", again=False, odd=True)
        if self.length is not None and self.length > limit:
            raise WireFailure(f"the answer has {self.length} bytes, more than {limit}", again=False, odd=True)
        with reported():
            parts = []
            left = limit + 1
            while left and (part := self.read1(min(left, limits.MIB))):
                parts.append(part)
                left -= len(part)
            if not left:
                raise WireFailure(f"the answer has more than {limit} bytes", again=False, odd=True)
            if self.length:
                raise WireFailure(f"the answer ended {self.length} bytes early")
            self.close()
        return b"".join(parts)


class Wire:
    """A connection, opened when first used and reused while the server allows it; for one thread, except ``abort``."""

    def __init__(self, origin: Origin, tls: Tls, *, timeout: float = limits.TIMEOUT_SECONDS) -> None:
        self.origin = origin
        self.used = False
        self._tls = tls
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._response: WireResponse | None = None
        self._aborted = False

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        *,
        limit: int,
        body: Body | None = None,
        rate: TokenBucket = UNCAPPED,
    ) -> WireResponse:
        """Send a request and read the head of its response.

        Args:
            method: the HTTP method.
            target: path and query.
            headers: beyond Host, User-Agent, Accept-Encoding and Content-Length, which are set here.
            limit: bytes the body of the response may have.
            body: the whole request body.
            rate: the cap on sending.

        Raises:
            WireFailure: whatever went wrong; the connection is then closed.
        """
        with reported(self.close):
            connection = self._opened()
            self.used = True
            most = RECORD_BYTES if self.origin.encrypted and not interpreter_is_current() else 1 << 30
            patience = functools.partial(_Patience, timeout=self._timeout, most=most)
            connection.response_class = functools.partial(WireResponse, patience=patience)  # type: ignore[assignment]
            connection.putrequest(method, target, skip_accept_encoding=True)
            connection.putheader("User-Agent", f"pqreg/{__version__}")
            connection.putheader("Accept-Encoding", "identity")
            for name, value in headers.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            if body:
                self._send(connection, memoryview(body).cast("B"), rate)
            response = http.client.HTTPConnection.getresponse(connection)
            assert isinstance(response, WireResponse)
            self._response = response
            response.allow(limit + limit // 4)
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding.strip().lower() != "identity":
                raise WireFailure("the server sent a compressed answer", again=False, odd=True)
        return response

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        connection, self._connection = self._connection, None
        response, self._response = self._response, None
        self._socket = None
        for part in (response, connection):
            if part is not None:
                with contextlib.suppress(Exception):  # it may be broken in any way
                    part.close()

    def abort(self) -> None:
        """End whatever another thread is doing here, now and for good."""
        self._aborted = True
        self._shut()

    def _shut(self) -> None:
        # While connecting, the connection knows the socket; once a response says that it is the last one, only we do.
        sock = self._socket or getattr(self._connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                # Below TLS: SSLSocket.shutdown and pyOpenSSL's would talk to the peer, or trip the other thread.
                socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)

    def _opened(self) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = connection = self._new_connection()
            # A drip during the TLS handshake is below every other timeout.
            guard = threading.Timer(limits.HANDSHAKE_SECONDS, self._shut) if self.origin.encrypted else None
            if guard is not None:
                guard.daemon = True
                guard.start()
            try:
                connection.connect()
                self._socket = connection.sock
            finally:
                if guard is not None:
                    guard.cancel()
        if self._aborted:
            raise WireFailure("interrupted", again=False)
        return self._connection

    def _new_connection(self) -> http.client.HTTPConnection:
        origin = self.origin
        if not origin.encrypted:
            return http.client.HTTPConnection(origin.host, origin.port, timeout=self._timeout)
        from urllib3.connection import HTTPSConnection  # certificate and host name checks are urllib3's

        return HTTPSConnection(
            origin.host,
            origin.port,
            timeout=self._timeout,
            ssl_context=self._tls.context(),  # type: ignore[arg-type]  # pyOpenSSL's stands in for ssl's
        )

    def _send(self, connection: http.client.HTTPConnection, body: memoryview, rate: TokenBucket) -> None:
        step = min(_SEND_BYTES, rate.slice_bytes)
        try:
            for start in range(0, len(body), step):
                piece = body[start : start + step]
                rate.take(len(piece), lambda: self._aborted)
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            # The server answered before it read everything, e.g. that it does not want this; the answer says why.
            pass
