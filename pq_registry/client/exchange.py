# SPDX-License-Identifier: Apache-2.0
"""Control requests to one registry: bounded answers, retries, and a token that goes nowhere else.

* Redirects are refused. ``follow`` (for blobs only) allows one, to an origin that ``places`` allows, which is asked
  with no credentials and no headers of ours beyond what HTTP needs.
* A request that may be repeated safely is tried up to ``limits.ATTEMPTS`` times, with doubling, jittered pauses, on
  failures of the connection and on 429 and 5xx (honouring Retry-After up to ``limits.RETRY_AFTER_SECONDS``). A 429
  that says when to come back is no failed try: it is waited out, for ``limits.THROTTLED_SECONDS`` in all.
* Whatever remains wrong is an error: ConnectionFailed, ResponseInvalid, or what the registry's problem says.

Messages name the origin, method and path; never headers, queries or bodies.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message

from pq_registry import limits
from pq_registry.client.failure import WireFailure
from pq_registry.client.origin import Origin
from pq_registry.client.places import Place, Places, StorageOrigins
from pq_registry.client.problems import refusal
from pq_registry.client.rate import TokenBucket
from pq_registry.client.wire import UNCAPPED, Body, Tls, Wire, WireResponse
from pq_registry.errors import ConnectionFailed, PqregError, ResponseInvalid, ServerRefused, TooManyRequests

AGAIN = frozenset({429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, whole. A redirect's body is not read."""

    status: int
    headers: Message
    body: bytes


def pause_before(attempt: int, retry_after: str | None = None) -> float:
    """Seconds to wait before try number ``attempt`` (2, 3, ...): doubling and jittered, or what the server asks for."""
    asked = seconds_of(retry_after)
    if asked is not None:
        return float(min(asked, limits.RETRY_AFTER_SECONDS))
    # Jitter, so that a fleet does not return in step after an outage; not a secret.
    return float(limits.BACKOFF_SECONDS * 2 ** (attempt - 2) * random.uniform(0.75, 1.25))  # noqa: S311


def seconds_of(retry_after: str | None) -> int | None:
    """The header Retry-After, where it is a number of seconds."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return int(retry_after[:6])


class Tries:
    """The patience for one request: which failure is the last, and how long to wait after any other."""

    def __init__(self, allowed: int = limits.ATTEMPTS) -> None:
        """With so many tries; being told to come back later costs none of them."""
        self._allowed = allowed
        self._failed = 0
        self._throttled = 0.0

    def renew(self) -> None:
        """Forget the failures: there has been progress since."""
        self._failed = 0

    def spend(self, error: PqregError, retry_after: str | None = None) -> float:
        """Seconds to wait before the next try, after ``error`` ended one.

        Raises:
            PqregError: ``error``, if that was the last try.
        """
        # A crowd behind one token is let in one by one, and nobody can say in which order.
        if isinstance(error, TooManyRequests) and self._allowed > 1 and (seconds_of(retry_after) or 0) >= 1:
            pause = pause_before(2, retry_after)
            self._throttled += pause
            if self._throttled > limits.THROTTLED_SECONDS:
                raise error
            return pause
        self._failed += 1
        if self._failed >= self._allowed:
            raise error
        return pause_before(self._failed + 1, retry_after)


def failed(failure: WireFailure, *, what: str, origin: Origin) -> PqregError:
    """The error of the tree for the last ``failure``."""
    kind = ResponseInvalid if failure.odd else ConnectionFailed
    return kind(
        f"{what} at {origin} failed", found=str(failure), hint="check the registry's URL and that it is running"
    )


def refused_by_storage(origin: Origin, status: int, *, what: str) -> PqregError:
    """The error for what storage answers after a redirect."""
    return ServerRefused(f"the storage at {origin} refused {what}", found=f"HTTP {status}")


class Exchanger:
    """Sends requests to one origin; safe to use from many threads."""

    def __init__(
        self,
        origin: Origin,
        *,
        prefix: str = "",
        headers: Mapping[str, str],
        tls: Tls,
        timeout: float = limits.TIMEOUT_SECONDS,
        rate: TokenBucket = UNCAPPED,
        sleep: Callable[[float], None] = time.sleep,
        storage_origins: frozenset[Origin] = frozenset(),
    ) -> None:
        self.origin = origin
        self.storage = StorageOrigins(origin, storage_origins)
        self.places = Places()
        self.prefix = prefix
        self.headers = headers
        self.tls = tls
        self.timeout = timeout
        self.rate = rate
        self.sleep = sleep
        self._lock = threading.Lock()
        self._idle: list[Wire] = []
        self._busy: set[Wire] = set()
        self._closed = False

    def request(  # noqa: PLR0913  one keyword per thing to decide
        self,
        method: str,
        path: str,
        *,
        limit: int,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        once: bool = False,
        follow: bool = False,
        plain: bool = False,
    ) -> Answer:
        """One request, tried again as the module says.

        Args:
            method: the HTTP method.
            path: below the registry's URL, quoted; with a query, which no message repeats.
            limit: bytes the answer's body may have.
            body: the request's body.
            headers: beyond the client's own.
            repeatable: whether doing it twice is as good as once.
            once: send it a single time all the same; the caller finds out what came of it before it tries again.
            follow: whether one redirect may be followed (without credentials).
            plain: whether a plain file server may be answering, whose 404 means what it says.

        Raises:
            PqregError: TransportError, or what the registry's problem document maps to.
        """
        what = f"{method} {path.partition('?')[0]}"
        target = self.prefix + path
        sent = {**self.headers, **(headers or {})}
        tries = Tries(limits.ATTEMPTS if repeatable and not once else 1)
        while True:
            retry_after: str | None = None
            try:
                answer = self._once(method, target, sent, limit, body, fresh=not repeatable, once=once)
                place = None
                if follow and answer.status in REDIRECTS:
                    place = self.storage.place(answer.headers["Location"])
                    answer = self._elsewhere(place, limit)
            except WireFailure as failure:
                error = failed(failure, what=what, origin=self.origin)
                if not failure.again:
                    raise error from None
            else:
                if 200 <= answer.status < 300:
                    return answer
                retry_after = answer.headers.get("Retry-After")
                if place is not None:
                    # Its words may quote the URL it was asked by. The registry signs a new one at each try.
                    error = refused_by_storage(place.origin, answer.status, what=what)
                else:
                    error = self._refused(method, answer, what=what, plain=plain)
            self.sleep(tries.spend(error, retry_after))

    def abort(self) -> None:
        """End all requests under way in other threads, and refuse new ones."""
        with self._lock:
            self._closed = True
            wires = [*self._busy, *self._idle]
        for wire in wires:
            wire.abort()

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()

    def _once(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        limit: int,
        body: Body | None,
        *,
        fresh: bool,
        once: bool,
    ) -> Answer:
        wire = self._take(fresh=fresh)
        try:
            reused = wire.used
            try:
                result = _complete(wire, method, target, headers, limit, body, self.rate)
            except WireFailure as failure:
                # The server may have closed an idle connection; that is no failed attempt.
                if not reused or not failure.again or once:
                    raise
                result = _complete(wire, method, target, headers, limit, body, self.rate)
        finally:
            self._give_back(wire)
        return result

    def _refused(self, method: str, answer: Answer, *, what: str, plain: bool) -> PqregError:
        """What the registry's refusal means; raised if no other try can help."""
        if answer.status in REDIRECTS:
            raise ResponseInvalid(
                f"{what} at {self.origin} was redirected, and redirects are not followed here",
                found=f"HTTP {answer.status}",
                hint="configure the registry's final URL",
            )
        kind, changing = answer.headers.get("Content-Type", ""), method not in ("GET", "HEAD")
        error = refusal(answer.status, kind, answer.body, what=what, origin=self.origin, changing=changing, plain=plain)
        error.retry_after = seconds_of(answer.headers.get("Retry-After"))
        if answer.status not in AGAIN:
            raise error
        return error

    def _elsewhere(self, place: Place, limit: int) -> Answer:
        wire = Wire(place.origin, self.tls, timeout=self.timeout)
        with self._lock:
            self._busy.add(wire)
        try:
            return _complete(wire, "GET", place.target, {}, limit, None, UNCAPPED)
        finally:
            with self._lock:
                self._busy.discard(wire)
            wire.close()

    def _take(self, *, fresh: bool) -> Wire:
        with self._lock:
            if self._closed:
                raise WireFailure("interrupted", again=False)
            wire = self._idle.pop() if self._idle and not fresh else Wire(self.origin, self.tls, timeout=self.timeout)
            self._busy.add(wire)
        return wire

    def _give_back(self, wire: Wire) -> None:
        with self._lock:
            self._busy.discard(wire)
            keep = len(self._idle) < limits.IDLE_CONNECTIONS and not self._closed
            if keep:
                self._idle.append(wire)
        if not keep:
            wire.close()


def _complete(
    wire: Wire,
    method: str,
    target: str,
    headers: Mapping[str, str],
    limit: int,
    body: Body | None,
    rate: TokenBucket,
) -> Answer:
    try:
        response = wire.exchange(method, target, headers, limit=max(limit, limits.PROBLEM_BYTES), body=body, rate=rate)
        if response.status in REDIRECTS:
            leave(wire, response)
            return Answer(response.status, response.headers, b"")
        if not 200 <= response.status < 300:
            return Answer(response.status, response.headers, excuse(wire, response))
        return Answer(response.status, response.headers, response.receive(limit))
    except BaseException:
        wire.close()
        raise


def leave(wire: Wire, response: WireResponse) -> None:
    """Be done with a redirect: whatever its body is, it is not read. Without one the connection can be used again."""
    if response.length == 0:
        response.receive(0)
    else:
        wire.close()


def excuse(wire: Wire, response: WireResponse) -> bytes:
    """The body of a refusal, if it is one a problem document could be; the status counts in any case."""
    try:
        return response.receive(limits.PROBLEM_BYTES)
    except WireFailure:
        wire.close()
        return b""
