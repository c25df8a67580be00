# SPDX-License-Identifier: Apache-2.0
"""Running the service: listen, say so, serve, drain, end.

1. The data directory is locked, migrated and swept; the first start makes the admin token.
2. The socket is bound before anything is said, so the ready line's port is real (also for port 0).
3. ``pqreg: serving on http://HOST:PORT data DIR`` on standard error means: requests are answered from now on.
4. SIGTERM or SIGINT: no new connections, requests under way may finish for ``limits.DRAIN_SECONDS``, then exit 0.
   A second signal ends them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from pq_registry.format.instant import utc_now
from pq_registry.server.app import create_app
from pq_registry.server.config import ServerConfig
from pq_registry.server.logs import configure
from pq_registry.server.protocol import BoundedProtocol
from pq_registry.service.ledger import LogSetup
from pq_registry.service.registry import Registry

Announce = Callable[[str], None]
_TELL_SECONDS = 0.2


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


def serve(config: ServerConfig, log_setup: Callable[[ServerConfig], LogSetup], announce: Announce) -> None:
    """Serve until a signal.

    Args:
        config: the service's settings.
        log_setup: answers the log's keys, policy and witnesses; asked once the address is taken: it may make keys.
        announce: where the ready line and the first admin token go, once each.

    Raises:
        PqregError: if the service cannot start.
    """
    configure(sys.stdout, config.log_level)
    listener = bind(config.host, config.port)
    with contextlib.closing(listener):
        registry = Registry.open(config.stores, utc_now, log=log_setup(config))
        if registry.first_token is not None:
            announce(f"pqreg: admin token (shown once, also in {config.data}/admin.token): {registry.first_token}")
            registry.first_token = None
        url = url_of(listener)
        server = make_server(
            create_app(registry, config), lambda: announce(f"pqreg: serving on {url} data {config.data}")
        )
        server.run(sockets=[listener])
