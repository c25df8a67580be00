# SPDX-License-Identifier: Apache-2.0
"""Sending one part of an upload, to the registry or straight to its storage, until it is there.

To storage it goes by a request the registry signed for this one part: over a connection that has never carried a
credential of ours, with the headers that were signed and nothing else. What the storage answers besides its status is
not read: it may quote the URL. No redirect is followed. A URL that expired, or that the storage refuses for whatever
reason, is replaced by a new one at the next try.
"""

from __future__ import annotations

import threading

from pq_registry import limits
from pq_registry.client.exchange import Exchanger, failed, pause_before, refused_by_storage
from pq_registry.client.failure import WireFailure
from pq_registry.client.origin import Origin
from pq_registry.client.uploadanswers import SignedPart
from pq_registry.client.wire import Wire, WireResponse
from pq_registry.errors import Conflict, PqregError, ResponseInvalid, TooManyRequests

_LENGTH = "content-length"


class Patience:
    """How long to wait until a part is tried again; ``unsure`` is whether it may have arrived all the same."""

    def __init__(self) -> None:
        self.pause = 0.0
        self.unsure = False
        self._failures = 0
        self._claimed = 0
        self._waited = 0.0

    def spend(self, error: PqregError) -> None:
        """Count a try that failed; raises its error if that was the last."""
        self.unsure = not isinstance(error, TooManyRequests)  # that was refused at the door
        if not isinstance(error, Conflict | TooManyRequests):
            self._failures += 1
            if self._failures == limits.ATTEMPTS:
                raise error
            self.pause = pause_before(self._failures + 1)
            return
        # Another push is sending this very part, and the registry listens to whoever came last. Longer and longer
        # pauses, of random length, let one of the two finish. Or it says when to come back.
        self._claimed += 1
        self.pause = pause_before(self._claimed + 1, None if error.retry_after is None else str(error.retry_after))
        self._waited += self.pause
        if self._waited > limits.PART_CLAIM_SECONDS:
            raise error


class StorageSender:
    """Sends parts straight to storage; each thread has a connection of its own."""

    def __init__(self, exchanger: Exchanger) -> None:
        """With the patience, the allowed origins and the bandwidth cap of ``exchanger``; never with its credentials."""
        self._exchanger = exchanger
        self._lock = threading.Lock()
        self._wires: list[Wire] = []
        self._mine = threading.local()
        self._aborted = False

    def put(self, part: SignedPart, body: memoryview) -> None:
        """Send one part, a single time.

        Raises:
            OriginNotAllowed: if the registry sends it where nobody allowed it to go.
            TransportError: if the storage does not take it.
        """
        what = f"part {part.number} of an upload"
        place = self._exchanger.storage.place(part.url)
        headers = dict(part.headers)
        if headers.pop(_LENGTH, str(len(body))) != str(len(body)):
            raise ResponseInvalid("the registry signed a part of another length", expected=f"{len(body)} bytes")
        wire = self._wire(place.origin)
        try:
            try:
                response = self._exchange(wire, place.target, headers, body)
            except WireFailure as failure:
                raise failed(failure, what=what, origin=place.origin) from None
            if not 200 <= response.status < 300:
                wire.close()
                raise refused_by_storage(place.origin, response.status, what=what)
            if response.length == 0:
                response.receive(0)
            else:
                wire.close()
        except BaseException:
            wire.close()
            raise

    def abort(self) -> None:
        """End what other threads are sending, now and for good."""
        with self._lock:
            self._aborted = True
            wires = list(self._wires)
        for wire in wires:
            wire.abort()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            wires, self._wires = self._wires, []
            self._mine = threading.local()
        for wire in wires:
            wire.close()

    def _exchange(self, wire: Wire, target: str, headers: dict[str, str], body: memoryview) -> WireResponse:
        reused, limit, rate = wire.used, limits.PROBLEM_BYTES, self._exchanger.rate
        try:
            return wire.exchange("PUT", target, headers, limit=limit, body=body, rate=rate)
        except WireFailure as failure:
            # The storage may have closed an idle connection; that is no failed attempt.
            if not reused or not failure.again:
                raise
            return wire.exchange("PUT", target, headers, limit=limit, body=body, rate=rate)

    def _wire(self, origin: Origin) -> Wire:
        wire: Wire | None = getattr(self._mine, "wire", None)
        if wire is None or wire.origin != origin:
            if wire is not None:
                wire.close()
            fresh = Wire(origin, self._exchanger.tls, timeout=self._exchanger.timeout)
            with self._lock:
                self._wires = [kept for kept in self._wires if kept is not wire]
                self._wires.append(fresh)
                if self._aborted:
                    fresh.abort()
            self._mine.wire = wire = fresh
        return wire
