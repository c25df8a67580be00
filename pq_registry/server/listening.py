# SPDX-License-Identifier: Apache-2.0
"""Where a service of ours listens, and the HTTP server it runs there: the registry, a witness, a node's gateway.

Needs nothing of the registry itself, so that a gateway can do without its database and framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from pq_registry import limits
from pq_registry.errors import SettingError
from pq_registry.server.protocol import BoundedProtocol

Announce = Callable[[str], None]
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_LISTEN = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.:-]{1,253}", re.ASCII)
_MOST_PORT = 65535
_TELL_SECONDS = 0.2


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port from ``HOST:PORT``; an IPv6 address stands in brackets. Port 0 is any free one.

    Raises:
        SettingError: if ``text`` is not of that form.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > _MOST_PORT:
        raise SettingError("setting listen is wrong", expected="HOST:PORT, e.g. 127.0.0.1:8470", found=repr(text)[:80])
    return match["six"] or match["four"], int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_hosts(text: str | None, listen_host: str) -> frozenset[str] | None:
    """The host names to answer to, from a list by commas; without one loopback's on loopback, elsewhere any.

    Raises:
        SettingError: if one is no host name.
    """
    if text is None:
        # A page anywhere can make its reader's browser ask a name that resolves to 127.0.0.1.
        return LOOPBACK_HOSTS | {listen_host.lower()} if is_loopback(listen_host) else None
    hosts = frozenset(host.strip().lower() for host in text.split(","))
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise SettingError("setting hosts is wrong", expected="host names, by commas", found=repr(host)[:80])
    return hosts


class Server(uvicorn.Server):
    """uvicorn's server, announcing when it is ready, and ending with status 0 after a signal."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then announce it."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then end, whatever clients do."""
        telling = asyncio.create_task(self._tell_connections())
        try:
            await super().shutdown(sockets=sockets)
        finally:
            telling.cancel()

    async def _tell_connections(self) -> None:
        """Tell every connection to end after its request, until all have; cut those that are left after the drain.

        The base class tells them once. A connection that was being accepted at that moment would not hear of it and,
        idle as it is, hold up the end for the whole drain; one whose client reads nothing cannot even be closed.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.DRAIN_SECONDS):
                while True:
                    for connection in list(self.server_state.connections):
                        connection.shutdown()
                    await asyncio.sleep(_TELL_SECONDS)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM and SIGINT. The base class would raise the signal again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket's address, taken.

    Raises:
        SettingError: if the host does not resolve to an address of this machine.
        StorageError: if the address is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingError("cannot listen there", expected="an address of this machine", found=str(error)) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise SettingError(
            f"cannot listen on {host}:{port}", found=error.strerror or str(error), hint="choose another --listen"
        ) from None
    return listener


def make_server(app: ASGIApp, ready: Callable[[], None]) -> Server:
    """A server for an application, not yet started, with the limits that every service of ours has."""
    return Server(
        uvicorn.Config(
            app,
            loop="uvloop" if sys.platform != "win32" else "asyncio",
            http=BoundedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=limits.SERVER_CONNECTIONS,
            timeout_keep_alive=limits.KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=limits.DRAIN_SECONDS,
        ),
        ready,
    )


def url_of(listener: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
