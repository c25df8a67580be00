# SPDX-License-Identifier: Apache-2.0
"""F5: a signed manifest that claims the SHA-256 of somebody else's file gives that file's readers nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.progress import ignored
from pq_registry.client.trust import Verifier
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import ShardMismatch
from pq_registry.format.files import FileEntry
from pq_registry.format.manifest import Manifest
from pq_registry.format.release import statement_of
from pq_registry.gateway.cache import ShardCache
from pq_registry.gateway.metrics import Counts
from pq_registry.gateway.served import Served, as_stored
from pq_registry.gateway.shards import Shards
from tests.samples import NOW, REPOSITORY, file_entry, publisher, trust_file

SHARD = limits.SHARD_BYTES
GOOD = random.Random(1).randbytes(2 * SHARD + 5)
EVIL = random.Random(2).randbytes(2 * SHARD + 5)
SHORT = EVIL[:100]


class Source:
    """Delivers ``content``."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_into(
        self, _file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        view[:] = self.content[offset : offset + len(view)]
        arrived(len(view))

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def served(claimed: bytes, content: bytes, delivered: bytes | None = None) -> Served:
    """A verified release of one file, that says it is ``claimed`` and has the shards of ``content``."""
    entry = replace(file_entry("a.bin", content), sha256=file_entry("a.bin", claimed).sha256)
    manifest = Manifest(REPOSITORY, publisher().identity.id, "00" * 16, NOW, (entry,))
    data = manifest.encode()
    envelope = sign_envelope(statement_of(manifest, data).encode(), publisher())
    verifier = Verifier(trust_file().encode(), NOW, online=True)
    verified = verifier.release(envelope.encode(), data, expected_name=None, expected_digest=None)
    return as_stored(verified, Source(content if delivered is None else delivered), remote=True, proven=True)


@pytest.mark.parametrize("claimant", [EVIL, SHORT], ids=["of the same size", "shorter"])
@pytest.mark.parametrize("caching", [True, False])
def test_a_reader_gets_the_shards_of_its_own_release(tmp_path: Path, claimant: bytes, *, caching: bool) -> None:
    cache = ShardCache(tmp_path / "cache", size=1 << 30) if caching else None
    honest, liar = served(GOOD, GOOD), served(GOOD, claimant)
    with closing(Shards(cache, connections=1, counts=Counts())) as shards:
        for first, second in ((liar, honest), (honest, liar)):
            ends = {id(served): -(-served.file("a.bin").size // SHARD) for served in (first, second)}
            # Both are held at the same time, as by two downloads.
            held = [
                (served, shards.want(served, served.file("a.bin"), 0, ends[id(served)])) for served in (first, second)
            ]
            for found, futures in held:
                got = b"".join(bytes(future.result(60)) for future in futures)
                assert got == (GOOD if found is honest else claimant)
    if cache is not None:
        cache.close()


def test_what_is_refused_of_one_is_not_refused_of_another() -> None:
    honest, broken = served(GOOD, GOOD), served(GOOD, EVIL, delivered=GOOD)
    with closing(Shards(None, connections=1, counts=Counts())) as shards:
        (refused,) = shards.want(broken, broken.file("a.bin"), 0, 1)
        with pytest.raises(ShardMismatch):
            refused.result(60)
        (right,) = shards.want(honest, honest.file("a.bin"), 0, 1)
        assert right.result(60) == GOOD[:SHARD]
