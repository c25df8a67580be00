# SPDX-License-Identifier: Apache-2.0
"""The data path: a range of a blob, received straight into the caller's buffer.

An answer is accepted only as 206 with exactly the Content-Range and Content-Length asked for, or as 200 when the range
is the whole blob. When a connection breaks off, the next try asks for what is still missing and nothing twice.

The registry may redirect to storage. One redirect is followed, for a GET only, to an origin that is allowed
(``places``); the other origin gets the Range and nothing else of ours: no credentials, no custom headers. Its URL may
hold a signature and is in no message. All readers of a client use it for as long as the registry says it is good, and
ask for another when the storage does not take it any more.
"""

from __future__ import annotations

from collections.abc import Callable

from pq_registry import limits
from pq_registry.client.exchange import (
    AGAIN,
    REDIRECTS,
    Exchanger,
    Tries,
    excuse,
    failed,
    leave,
    pause_before,
    refused_by_storage,
)
from pq_registry.client.failure import WireFailure
from pq_registry.client.origin import Origin
from pq_registry.client.places import Place
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

        tries = Tries()
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
            if got - before >= limits.PROGRESS_BYTES:
                tries.renew()
                pause = pause_before(2, retry_after)
            else:
                pause = tries.spend(error, retry_after)
            self._exchanger.sleep(pause)

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
        place = self._exchanger.places.find(path)
        wire = self._registry if place is None else self._storage_at(place.origin)
        wanted = {"Range": f"bytes={first}-{first + len(view) - 1}"}
        try:
            if place is None:
                target, headers = self._exchanger.prefix + path, {**self._exchanger.headers, **wanted}
                response = _ask(wire, target, headers, len(view))
                if response.status in REDIRECTS:
                    place = self._exchanger.storage.place(response.headers["Location"])
                    self._exchanger.places.keep(path, place, response.headers)
                    leave(wire, response)
                    wire = self._storage_at(place.origin)
                    response = _ask(wire, place.target, wanted, len(view))
            else:
                response = _ask(wire, place.target, wanted, len(view))
            if response.status not in (200, 206):
                return self._refused(wire, response, path, place)
            _check_extent(response, first, len(view), size, what=f"GET {path}")
            response.receive_into(view, rate=self._exchanger.rate, stopped=lambda: self._aborted, arrived=arrived)
        except BaseException:
            wire.close()
            raise
        return None, None

    def _refused(
        self, wire: Wire, response: WireResponse, path: str, place: Place | None
    ) -> tuple[PqregError | None, str | None]:
        status, retry_after = response.status, response.headers.get("Retry-After")
        if place is None:
            kind = response.headers.get("Content-Type", "")
            error = refusal(
                status, kind, excuse(wire, response), what=f"GET {path}", origin=wire.origin, changing=False
            )
            if status not in AGAIN:
                raise error
            return error, retry_after
        # The registry is asked for a new URL at the next try, so one that expired heals. What the storage says may
        # quote the URL, and is not read.
        wire.close()
        self._exchanger.places.forget(path, place)
        return refused_by_storage(wire.origin, status, what=f"GET {path}"), retry_after

    def _storage_at(self, origin: Origin) -> Wire:
        if self._storage is None or self._storage.origin != origin:
            if self._storage is not None:
                self._storage.close()
            self._storage = Wire(origin, self._exchanger.tls, timeout=self._exchanger.timeout)
            if self._aborted:
                self._storage.abort()
        return self._storage


def _ask(wire: Wire, target: str, headers: dict[str, str], length: int) -> WireResponse:
    reused = wire.used
    try:
        return wire.exchange("GET", target, headers, limit=length)
    except WireFailure as failure:
        # The server may have closed an idle connection; that is no failed attempt.
        if not reused or not failure.again:
            raise
        return wire.exchange("GET", target, headers, limit=length)


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
