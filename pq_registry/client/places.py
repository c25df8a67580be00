# SPDX-License-Identifier: Apache-2.0
"""Where a registry may send this client for weights, and where it has sent it.

A registry that keeps weights in an object store answers a GET with a redirect, and a push with URLs to send parts to.
Both are followed only to the registry's own host (any port), or to an origin the setting ``storage_origins`` names:
a registry that was taken over can make its clients talk to nobody else, on no network they happen to be in. What
follows a redirect has no credentials in any case.

A presigned URL is a credential for one object and a few minutes. It is kept in memory, for as long as the registry's
answer says, so that the many ranges of one blob cost the registry one request; it is in no repr and no message.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.message import Message

from pq_registry import limits
from pq_registry.client.origin import Origin, parse_location, parse_registry
from pq_registry.errors import OriginNotAllowed, SettingError

_MAX_AGE = re.compile(r"max-age=(\d{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is: an origin, and a path and query that may hold a signature."""

    origin: Origin
    target: str = field(repr=False)


class StorageOrigins:
    """The origins that may be talked to besides the registry's."""

    def __init__(self, registry: Origin, allowed: Iterable[Origin] = ()) -> None:
        self._registry = registry
        self._allowed = frozenset(allowed)

    def place(self, url: str | None) -> Place:
        """Where a redirect, or a URL to send a part to, leads.

        Raises:
            ResponseInvalid: if it is no absolute http or https URL, or leaves TLS.
            OriginNotAllowed: if it leads to another host than the registry's, and nobody allowed that.
        """
        origin, target = parse_location(url, self._registry)
        if origin.host != self._registry.host and origin not in self._allowed:
            raise OriginNotAllowed(
                f"{self._registry} sends this client to storage at {origin}, which is not allowed",
                expected=", ".join(["the registry's own host", *sorted(map(str, self._allowed))]),
                found=str(origin),
                hint=f"if that is the registry's storage: pqreg login again, or PQREG_STORAGE_ORIGINS={origin}",
            )
        return Place(origin, target)


def parse_origins(text: str | None) -> frozenset[Origin]:
    """The origins of a setting, separated by commas.

    Raises:
        SettingError: if one is not an origin, or there are too many.
    """
    given = [part.strip() for part in (text or "").split(",") if part.strip()]
    if len(given) > limits.STORAGE_ORIGINS:
        raise SettingError("setting storage_origins is wrong", expected=f"at most {limits.STORAGE_ORIGINS} origins")
    return frozenset(parse_origin(part) for part in given)


def parse_origin(text: str) -> Origin:
    """An origin: scheme, host and port, and nothing else.

    Raises:
        SettingError: if it is not one.
    """
    try:
        origin, path = parse_registry(text)
    except SettingError as error:
        raise SettingError(
            "setting storage_origins is wrong", expected="https://host[:port], by commas", found=error.found
        ) from None
    if path:
        raise SettingError("setting storage_origins is wrong", expected="https://host[:port]", found="a path")
    return origin


class Places:
    """Where blobs are, as far as the registry said for how long. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Place, float]] = OrderedDict()

    def find(self, path: str) -> Place | None:
        """Where the registry last said that ``path`` is, if that still holds."""
        with self._lock:
            place, until = self._known.get(path, (None, 0.0))
            return place if self._clock() < until else None

    def keep(self, path: str, place: Place, headers: Message) -> None:
        """Remember a redirect for as long as its headers allow; one that says nothing is for once."""
        found = _MAX_AGE.search(headers.get("Cache-Control", ""))
        seconds = int(found[1]) if found else 0
        if not seconds:
            return
        with self._lock:
            self._known[path] = place, self._clock() + seconds
            self._known.move_to_end(path)
            while len(self._known) > limits.LOCATIONS:
                self._known.popitem(last=False)

    def forget(self, path: str, place: Place) -> None:
        """It is not there, or not for us, any more."""
        with self._lock:
            if self._known.get(path, (None, 0.0))[0] == place:
                del self._known[path]
