# SPDX-License-Identifier: Apache-2.0
"""What expires soon: counts for whoever watches a registry, so that nothing lapses unnoticed.

A tag or status that has lapsed is refused by clients, a recipient's key gets no grants any more, and a token stops
a build. Counted is what is in force now and will not be in 7, or in 30 days.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.service.clock import Clock
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import KeyRow, StatusRow, TagRow, TokenRow

DAYS = (7, 30)


@dataclass(frozen=True, slots=True)
class Expiring:
    """How many things of a kind expire within so many days."""

    kind: str
    days: int
    count: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What expires soon, and how many tokens in force were made on the host, past the API."""

    expiring: tuple[Expiring, ...]
    root_tokens: int


class Expiry:
    """Looks into the catalogue, at most once per ``limits.EXPIRY_SECONDS``."""

    def __init__(self, catalogue: Catalogue, clock: Clock, ticks: Callable[[], float] = time.monotonic) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.Lock()
        self._seen: Outlook | None = None
        self._until = 0.0

    def outlook(self) -> Outlook | None:
        """What expires soon, as of a minute ago at most; None while the catalogue does not answer."""
        with self._lock:
            if self._ticks() >= self._until:
                try:
                    self._seen = self._look()
                except StorageError:
                    self._seen = None
                self._until = self._ticks() + limits.EXPIRY_SECONDS
            return self._seen

    def _look(self) -> Outlook:
        now = self._clock()
        found = []
        with self._catalogue.reading() as session:
            for kind, column, others in (
                ("tag", TagRow.expires, TagRow.target.is_not(None)),
                ("status", StatusRow.expires, None),
                ("key", KeyRow.not_after, None),
                ("token", TokenRow.expires, TokenRow.revoked.is_(None)),
            ):
                for days in DAYS:
                    query = select(func.count()).where(column > now, column <= now + timedelta(days=days))
                    query = query if others is None else query.where(others)
                    found.append(Expiring(kind, days, session.scalars(query).one()))
            roots = select(func.count()).where(
                TokenRow.parent_id.is_(None), TokenRow.revoked.is_(None), TokenRow.expires > now
            )
            return Outlook(tuple(found), session.scalars(roots).one())
