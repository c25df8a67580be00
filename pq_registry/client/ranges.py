# SPDX-License-Identifier: Apache-2.0
"""The data path: a range of a blob, received straight into the caller's buffer.

An answer is accepted only as 206 with exactly the Content-Range and Content-Length asked for, or as 200 when the range
is the whole blob. When a connection breaks off, the next try asks for what is still missing and nothing twice.

The registry may redirect to storage. One redirect is followed, for a GET only; the other origin gets the Range and
nothing else of ours: no credentials, no custom headers. Its URL may hold a signature and is in no message.
"""

from __future__ import annotations

from collections.abc import Callable

from pq_registry import limits
from pq_registry.client.exchange import AGAIN, REDIRECTS, Exchanger, excuse, failed, pause_before, refused_by_storage
from pq_registry.client.failure import WireFailure
from pq_registry.client.origin import Origin, parse_location
from pq_registry.client.problems import refusal
from pq_registry.client.progress import ignored
from pq_registry.client.wire import Wire, WireResponse
from pq_registry.errors import PqregError, ResponseInvalid


class RangeReader:
    """Reads ranges over connections of its own; for one thread, except ``abort``."""

    def __init__(self, exchanger: Exchanger) -> None:
        """Read from the registry of ``exchanger``, with its credentials, patience and bandwidth cap."""
        self._exchanger = exchanger
        self._registry = Wire(exchanger.origin, exchanger.tls, timeout=exchanger.timeout)
        self._storage: Wire | None = None
        self._aborted = False

    def read_into(
        self, path: str, offset: int, view: memoryview, *, size: int, arrived: Callable[[int], None] = ignored
    ) -> None:
        """Fill ``view`` from ``offset`` of the blob at ``path``.

        The bytes are not verified; the caller checks each shard before it uses it.

        Args:
            path: of the blob, below the registry's URL.
            offset: of the first byte.
            view: where the bytes go; its length is that of the range.
            size: of the whole blob, as signed.
            arrived: told how many more bytes are in ``view``, while they come.

        Raises:
            PqregError: TransportError, or what the registry's problem document maps to.
        """
        got = 0

        def count(more: int) -> None:
            nonlocal got
            got += more
            arrived(more)

        attempt = 1
        while got < len(view):
            before = got
            try:
                error, retry_after = self._attempt(path, offset + got, view[got:], size, count)
            except WireFailure as failure:
                error, retry_after = failed(failure, what=f"GET {path}", origin=self._exchanger.origin), None
                if not failure.again or self._aborted:
                    raise error from None
            if error is None:
                continue
            # Progress earns new patience, as on a slow line that breaks often; a byte per try does not.
            attempt = 1 if got - before >= limits.PROGRESS_BYTES else attempt + 1
            if attempt > limits.ATTEMPTS:
                raise error
            self._exchanger.sleep(pause_before(max(attempt, 2), retry_after))

    def abort(self) -> None:
        """End what another thread is reading here, now and for good."""
        self._aborted = True
        self._registry.abort()
        if self._storage is not None:
            self._storage.abort()

    def close(self) -> None:
        """Close the connections."""
        self._registry.close()
        if self._storage is not None:
            self._storage.close()

    def _attempt(
        self, path: str, first: int, view: memoryview, size: int, arrived: Callable[[int], None]
    ) -> tuple[PqregError | None, str | None]:
        """One try; answers the error after which another may help, with the server's Retry-After."""
        wire = self._registry
        try:
            response = self._ask(wire, path, first, len(view))
            if response.status in REDIRECTS:
                origin, target = parse_location(response.headers["Location"], wire.origin)
                wire.close()  # its body is not read
                wire = self._storage_at(origin)
                wanted = {"Range": f"bytes={first}-{first + len(view) - 1}"}
                response = wire.exchange("GET", target, wanted, limit=len(view))
            if response.status not in (200, 206):
                return self._refused(wire, response, path)
            _check_extent(response, first, len(view), size, what=f"GET {path}")
            response.receive_into(view, rate=self._exchanger.rate, stopped=lambda: self._aborted, arrived=arrived)
        except BaseException:
            wire.close()
            raise
        return None, None

    def _ask(self, wire: Wire, path: str, first: int, length: int) -> WireResponse:
        headers = {**self._exchanger.headers, "Range": f"bytes={first}-{first + length - 1}"}
        target = self._exchanger.prefix + path
        reused = wire.used
        try:
            return wire.exchange("GET", target, headers, limit=length)
        except WireFailure as failure:
            # The server may have closed an idle connection; that is no failed attempt.
            if not reused or not failure.again:
                raise
            return wire.exchange("GET", target, headers, limit=length)

    def _refused(self, wire: Wire, response: WireResponse, path: str) -> tuple[PqregError | None, str | None]:
        status = response.status
        if wire is self._registry:
            kind = response.headers.get("Content-Type", "")
            error = refusal(status, kind, excuse(wire, response), what=f"GET {path}", changing=False)
            if status not in AGAIN:
                raise error
            return error, response.headers.get("Retry-After")
        # The registry signs a new URL at each try, so an expired one heals.
        wire.close()
        return refused_by_storage(wire.origin, status, what=f"GET {path}"), None

    def _storage_at(self, origin: Origin) -> Wire:
        if self._storage is None or self._storage.origin != origin:
            if self._storage is not None:
                self._storage.close()
            self._storage = Wire(origin, self._exchanger.tls, timeout=self._exchanger.timeout)
            if self._aborted:
                self._storage.abort()
        return self._storage


def _check_extent(response: WireResponse, first: int, length: int, size: int, *, what: str) -> None:
    if response.status == 200:
        found, expected = f"all {response.length} bytes", f"all {size} bytes"
        right = first == 0 and length == size and response.length == size
    else:
        expected = f"bytes {first}-{first + length - 1}/{size}"
        found = response.headers.get("Content-Range", "no Content-Range")[:80]
        right = found == expected
    if not right:
        raise ResponseInvalid(f"{what} was answered with another range", expected=expected, found=repr(found))
