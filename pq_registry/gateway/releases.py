# SPDX-License-Identifier: Apache-2.0
"""Verified releases by what clients call them, each verified anew after ``limits.GATEWAY_VERIFIED_SECONDS``.

Between two verifications a tag stays where it was and a revocation is not noticed; a download under way ends with the
release it began with. A release that cannot be verified anew is not served: what is in the cache helps nobody who does
not know whether it still counts.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pq_registry import limits
from pq_registry.errors import NotFound, RevisionNotFound
from pq_registry.format.name import RepositoryName
from pq_registry.gateway.origins import Named, Origin, Wanted
from pq_registry.gateway.served import Served

T = TypeVar("T")
_STRIPES = 64
_Key = tuple[str, str]


class Releases:
    """Finds releases in the sources of a gateway, the first that has one; for any number of threads."""

    def __init__(
        self,
        origins: Sequence[Origin],
        *,
        seconds: float = limits.GATEWAY_VERIFIED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look into ``origins`` in this order."""
        self._origins = tuple(origins)
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, tuple[Served, float]] = OrderedDict()
        # Who asks for the same release at the same time waits for one verification; others seldom wait for it.
        self._verifying = [threading.Lock() for _ in range(_STRIPES)]

    def find(self, name: RepositoryName, revision: str) -> Served:
        """The release that ``revision`` of a repository means.

        Raises:
            NotFound: if no source has the repository, RevisionNotFound if none has such a release.
            VerificationError: a subclass of the step that refused.
            PqregError: if it cannot be had.
        """
        wanted = Wanted.parse(revision)
        key = (name.key, str(wanted))
        found = self._current(key)
        if found is not None:
            return found
        with self._verifying[hash(key) % _STRIPES]:
            return self._current(key) or self._verify(key, name, wanted)

    def tags(self, name: RepositoryName) -> list[Named]:
        """What the sources say a repository's tags are, the first that has it. Raises NotFound."""
        return list(self._first(lambda origin: origin.tags(name)))

    def repositories(self) -> Iterator[RepositoryName]:
        """What the sources say they have, each once."""
        seen = set()
        for origin in self._origins:
            for name in origin.repositories():
                if name.key not in seen:
                    seen.add(name.key)
                    yield name

    def abort(self) -> None:
        """End what is being read from all sources, for good."""
        for origin in self._origins:
            origin.abort()

    def close(self) -> None:
        """Let go of every release and source."""
        with self._lock:
            self._kept.clear()
        for origin in self._origins:
            origin.close()

    def _current(self, key: _Key) -> Served | None:
        with self._lock:
            served, until = self._kept.get(key, (None, 0.0))
            if served is None or self._clock() >= until:
                return None
            self._kept.move_to_end(key)
            return served

    def _verify(self, key: _Key, name: RepositoryName, wanted: Wanted) -> Served:
        with self._lock:
            known = self._kept.get(key)
        if wanted.commit is not None and known is not None:
            # Which release a commit is does not change; only whether it still counts.
            wanted = Wanted(digest=known[0].release)
        begun = self._clock()
        served = self._first(lambda origin: origin.find(name, wanted))
        commits = {served.commit.value, str(served.release), *((key[1],) if wanted.tag is None else ())}
        with self._lock:
            for revision in (*commits, key[1]):
                self._kept[name.key, revision] = served, begun + self._seconds
                self._kept.move_to_end((name.key, revision))
            while len({id(kept) for kept, _ in self._kept.values()}) > limits.GATEWAY_RELEASES:
                self._kept.popitem(last=False)
        return served

    def _first(self, ask: Callable[[Origin], T]) -> T:
        missing: NotFound | None = None
        for origin in self._origins:
            try:
                return ask(origin)
            except NotFound as error:
                if missing is None or isinstance(error, RevisionNotFound):
                    missing = error
        assert missing is not None
        raise missing
