# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy of the tests' own in front of a real object store: it passes everything on, except what it was told.

::

    with FaultProxy("http://127.0.0.1:8333") as proxy:            # give proxy.url as the endpoint
        proxy.inject(Answer(503), method="PUT", times=2)          # the next two PUTs are refused, unseen by the store
        proxy.inject(Lost(), when=lambda r: "uploadId" in r.query)  # done by the store, but the answer never arrives
        ...
    proxy.requests                                                # everything that was asked, in order

The Host header is passed on as it came, so signatures made for the proxy's address are good at the store. Bodies are
held in memory. A fault that is used up is gone; of several that fit, the first injected is used first.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Self
from urllib.parse import urlsplit

HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True)
class Reply:
    """What the store, or a fault in its place, answered; ``length`` is what Content-Length claims."""

    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None = None


Forward = Callable[[Request], Reply]


class Gone(Exception):
    """The connection ends here, without an answer or within one."""


@dataclass
class Fault:
    """Passes a request on; subclasses do otherwise."""

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        exchange.send(forward(request), head=request.method == "HEAD")


@dataclass
class Answer(Fault):
    """The store never sees the request; this is answered."""

    status: int = 503
    code: str = "SlowDown"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>injected</Message></Error>"
        body = text.encode() if self.body is None else self.body
        exchange.send(Reply(self.status, {"Content-Type": "application/xml", **self.headers}, body))


@dataclass
class Reset(Fault):
    """The connection is reset before the store sees the request."""

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        exchange.reset()


@dataclass
class Lost(Fault):
    """The store does what was asked, and its answer never arrives: reset, or silence until the client gives up."""

    silent: bool = False

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        forward(request)
        if self.silent:
            exchange.wait_for_client()
        exchange.reset()


@dataclass
class LostBehind(Fault):
    """The store does what was asked; a gateway in between answers with an error."""

    status: int = 502

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        forward(request)
        exchange.send(Reply(self.status, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"))


@dataclass
class Truncated(Fault):
    """The answer's body ends early and the connection with it; its head claims the whole length."""

    after: int = 0

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        reply = forward(request)
        exchange.send(replace(reply, body=reply.body[: self.after], length=len(reply.body)))
        raise Gone


@dataclass
class Changed(Fault):
    """The store's answer, changed: status, headers (None removes one) or body."""

    body: Callable[[bytes], bytes] | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    status: int | None = None

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        reply = forward(request)
        wanted = {name.lower() for name in self.headers}
        headers = {name: value for name, value in reply.headers.items() if name.lower() not in wanted}
        headers |= {name: value for name, value in self.headers.items() if value is not None}
        body = reply.body if self.body is None else self.body(reply.body)
        length = reply.length if self.body is None else None
        changed = Reply(self.status or reply.status, headers, body, length)
        exchange.send(changed, head=request.method == "HEAD")


@dataclass
class ChangedRequest(Fault):
    """The store gets another body of the same length: corruption on the way there."""

    body: Callable[[bytes], bytes]

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        exchange.send(forward(replace(request, body=self.body(request.body))))


@dataclass
class Drip(Fault):
    """The answer comes byte by byte, with a pause before each, until the client gives up."""

    pause: float = 0.02
    whole_head: bool = True

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        exchange.drip(forward(request), pause=self.pause, whole_head=self.whole_head)


def flipped(data: bytes) -> bytes:
    """The same with one bit of its middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


@dataclass
class _Rule:
    fault: Fault
    method: str | None
    when: Callable[[Request], bool]
    skip: int
    times: int


class Exchange:
    """One connection of a client."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self.connection = connection
        self.stopping = stopping

    def send(self, reply: Reply, *, head: bool = False) -> None:
        self.connection.sendall(_head(reply) + (b"" if head else reply.body))

    def reset(self) -> None:
        """Ends the connection so that the other side sees ECONNRESET."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone

    def wait_for_client(self) -> None:
        """Until the client ends the connection, or the proxy is closed."""
        with contextlib.suppress(OSError):
            self.connection.settimeout(None)
            self.connection.recv(1)

    def drip(self, reply: Reply, *, pause: float, whole_head: bool) -> None:
        first, rest = (_head(reply), reply.body) if whole_head else (b"", _head(reply) + reply.body)
        self.connection.sendall(first)
        for byte in rest:
            if self.stopping.wait(pause):
                raise Gone
            self.connection.sendall(bytes([byte]))


class FaultProxy:
    """The proxy. ``url`` is where it listens; it is closed at the end of the ``with`` block."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        when: Callable[[Request], bool] = lambda _: True,
        skip: int = 0,
        times: int = 1,
    ) -> None:
        """Apply ``fault`` to the next ``times`` requests that fit, after ``skip`` that are let through."""
        with self._lock:
            self._rules.append(_Rule(fault, method, when, skip, times))

    def heal(self) -> None:
        """Forget every fault that is left."""
        with self._lock:
            self._rules.clear()

    @property
    def pending(self) -> int:
        """How many more requests would be hit: 0 says that every fault was used."""
        with self._lock:
            return sum(rule.times for rule in self._rules)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            open_now, threads = list(self._open), list(self._threads)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True, name="faultproxy")
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        upstream = http.client.HTTPConnection(*self._upstream, timeout=120)
        file = connection.makefile("rb")
        exchange = Exchange(connection, self._stopping)
        try:
            while (request := _read(file, connection)) is not None:
                with self._lock:
                    self.requests.append(request)
                self._fault(request).handle(request, lambda each: _forward(upstream, each), exchange)
        except (Gone, OSError, http.client.HTTPException, ValueError):
            pass
        finally:
            upstream.close()
            file.close()
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _fault(self, request: Request) -> Fault:
        with self._lock:
            for rule in self._rules:
                if rule.method not in (None, request.method) or not rule.when(request):
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.times -= 1
                if not rule.times:
                    self._rules.remove(rule)
                return rule.fault
        return Fault()


def _read(file: BinaryIO, connection: socket.socket) -> Request | None:
    line = file.readline(65536).decode("latin-1").split()
    if len(line) != 3:
        return None
    headers: dict[str, str] = {}
    while (raw := file.readline(65536)) not in (b"\r\n", b"\n", b""):
        name, _, value = raw.decode("latin-1").partition(":")
        headers[name.strip()] = value.strip()
    lower = {name.lower(): value for name, value in headers.items()}
    if lower.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(lower.get("content-length", "0"))
    body = file.read(length)
    if len(body) < length:
        return None
    path, _, query = line[1].partition("?")
    return Request(line[0], path, query, headers, body)


def _forward(upstream: http.client.HTTPConnection, request: Request) -> Reply:
    upstream.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers.items():
        if name.lower() not in HOP:
            upstream.putheader(name, value)
    upstream.endheaders(request.body or None)
    answer = upstream.getresponse()
    body = answer.read()
    headers = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
    length = answer.getheader("Content-Length")
    return Reply(answer.status, headers, body, int(length) if length is not None else None)


def _head(reply: Reply) -> bytes:
    length = len(reply.body) if reply.length is None else reply.length
    lines = [f"HTTP/1.1 {reply.status} {http.client.responses.get(reply.status, 'Injected')}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items() if name.lower() != "content-length"]
    lines += [f"Content-Length: {length}", "", ""] if reply.status != 204 else ["", ""]
    return "\r\n".join(lines).encode("latin-1")
