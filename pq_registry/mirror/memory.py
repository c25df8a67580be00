# SPDX-License-Identifier: Apache-2.0
"""What a mirroring machine remembers of one repository on a Hub: which commit was seen to hold which release.

One file per target, ``STATE/mirrors/<sha256 of "URL">.json``, canonical JSON. It saves requests: a commit never
changes, so what was read again once need not be read in every round. It is no more than that: without it, or
where it is damaged, everything is found out anew from the Hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from pq_registry import limits
from pq_registry.client.state import read_record
from pq_registry.durable import make_directory, write_file
from pq_registry.errors import FormatError
from pq_registry.format.strict_json import Fields, Value, encode_canonical, parse_canonical

SCHEMA = "urn:pq-registry:mirror-memory:v1"


@dataclass(slots=True)
class Memory:
    """``held``: the commit that was seen to hold a release, by ``Content.key``. ``tags``: those that were set."""

    url: str
    held: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def keep(self, keys: Collection[str]) -> bool:
        """Forget releases but these; whether that changed anything."""
        gone = [key for key in self.held if key not in keys]
        for key in gone:
            del self.held[key]
        return bool(gone)


class Memories:
    """The record under ``state_dir``, which is made when there is something to record."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "mirrors"

    def get(self, url: str) -> Memory:
        """What is remembered of a target.

        Raises:
            StorageError: if it cannot be read.
        """
        data = read_record(self._place(url), limits.MIRROR_STATE_BYTES)
        if data is None:
            return Memory(url)
        try:
            fields = Fields(parse_canonical(data, what="the record", limit=limits.MIRROR_STATE_BYTES), "record")
            fields.literal("schema", SCHEMA)
            fields.literal("url", url)
            memory = Memory(url, _table(fields.object("held")), _table(fields.object("tags")))
            fields.done()
        except FormatError:
            return Memory(url)
        return memory

    def put(self, memory: Memory) -> None:
        """Remember it, durably.

        Raises:
            StorageError: if it cannot be written.
        """
        held: dict[str, Value] = dict(memory.held)
        tags: dict[str, Value] = dict(memory.tags)
        make_directory(self._directory, 0o700)
        document = {"held": held, "schema": SCHEMA, "tags": tags, "url": memory.url}
        write_file(self._place(memory.url), encode_canonical(document), mode=0o600)

    def _place(self, url: str) -> Path:
        return self._directory / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


def _table(fields: Fields) -> dict[str, str]:
    return {name: fields.text(name) for name in fields.names()}
