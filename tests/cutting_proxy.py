# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that cuts one connection in the middle of what it carries, at a byte and not at a time.

::

    with CuttingProxy(url, after=14 << 20, meanwhile=restart) as proxy:   # give proxy.url as the endpoint
        ...
    proxy.heads                                                           # what was asked, in order

The first connection that has carried ``after`` bytes back to a client is reset; before that ``meanwhile`` is called.
Connections made while it runs wait for it, so that nobody finds the port closed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 64 << 10
_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Between a client and ``url``."""

    def __init__(self, url: str, *, after: int, meanwhile: Callable[[], object]) -> None:
        place = urlsplit(url)
        self._target = (place.hostname or "", place.port or 80)
        self._after = after
        self._meanwhile = meanwhile
        self._is_cut = False
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._asked: list[bytearray] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def is_cut(self) -> bool:
        """Whether a connection was."""
        return self._is_cut

    @property
    def heads(self) -> list[str]:
        """Everything clients sent, one text for each connection."""
        return [data.decode("latin-1") for data in self._asked]

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        self._open.wait(120)
        try:
            server = socket.create_connection(self._target, timeout=60)
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets += [client, server]
            asked = bytearray()
            self._asked.append(asked)
        self._run(self._up, client, server, asked)
        self._down(server, client)

    def _up(self, client: socket.socket, server: socket.socket, asked: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                asked += data
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK):
                client.sendall(data)
                carried += len(data)
                if carried >= self._after and self._takes_the_cut():
                    self._open.clear()
                    self._meanwhile()
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    self._open.set()
                    break
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _takes_the_cut(self) -> bool:
        with self._lock:
            is_first, self._is_cut = not self._is_cut, True
        return is_first
