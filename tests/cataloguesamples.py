# SPDX-License-Identifier: Apache-2.0
"""A catalogue of any size, written row by row past every use case: for plans, latencies and nothing else.

Every release has ten blobs of its own, every repository ten releases and a tag; everything is logged. Digests are those
of counters, so that a query can name any row without a look-up; envelopes are random bytes of a real one's length.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from pq_registry.service.cards import Card
from pq_registry.storage.catalogue import hubtables, tables
from pq_registry.storage.catalogue.database import Catalogue

BLOBS, RELEASES, REPOSITORIES = 10, 10, 200
"""Blobs of a release, releases of a repository, repositories of a namespace."""
_CARD = Card(title="Model", license="mit", languages=("de",), present=True).encode()
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_ROWS = 5000


def hexed(*words: object) -> str:
    """The digest that stands for something."""
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()


@dataclass(frozen=True)
class Filled:
    """What is in the catalogue."""

    releases: int

    @property
    def repositories(self) -> int:
        return -(-self.releases // RELEASES)

    @property
    def namespaces(self) -> int:
        return -(-self.repositories // REPOSITORIES)

    def name(self, repository: int) -> str:
        return f"team{repository // REPOSITORIES}/model-{repository}"


def fill(
    catalogue: Catalogue,
    releases: int,
    *,
    envelope_bytes: int = 9000,
    shards_bytes: int = 512,
    done: Callable[[int], None] = lambda _: None,
) -> Filled:
    """Write ``releases`` releases and all that belongs to them into an empty catalogue."""
    filled = Filled(releases)
    for rows in _tables(filled, envelope_bytes, shards_bytes):
        for batch in iter(lambda rows=rows: list(itertools.islice(rows[1], _ROWS)), []):  # type: ignore[misc]
            with catalogue.writing() as session:
                session.connection().execute(insert(rows[0]), batch)
            done(len(batch))
    return filled


def _tables(filled: Filled, envelope: int, shards: int) -> Iterator[tuple[Any, Iterator[dict[str, Any]]]]:
    namespaces, repositories = range(filled.namespaces), range(filled.repositories)
    releases = range(filled.releases)
    blobs = range(filled.releases * BLOBS)
    yield (
        tables.NamespaceRow,
        ({"id": n + 1, "key": f"team{n}", "name": f"team{n}", "created": BEGIN} for n in namespaces),
    )
    yield (
        tables.IdentityRow,
        (
            {
                "id": hexed("id", n),
                "public": "-",
                "ec_half": hexed("ec", n),
                "pq_half": hexed("pq", n),
                "created": BEGIN,
            }
            for n in namespaces
        ),
    )
    yield (
        tables.NamespaceIdentityRow,
        ({"namespace_id": n + 1, "identity_id": hexed("id", n), "registered": BEGIN} for n in namespaces),
    )
    yield tables.RepositoryRow, (
        {"id": n + 1, "namespace_id": n // REPOSITORIES + 1, "key": filled.name(n), "name": filled.name(n),
         "created": BEGIN, "updated": _at(n)}
        for n in repositories
    )  # fmt: skip
    yield tables.BlobRow, (
        {"digest": hexed("blob", n), "size": 5_000_000, "slice_size": 2 << 20, "shards": os.urandom(shards),
         "verified_at": BEGIN}
        for n in blobs
    )  # fmt: skip
    yield tables.StatementRow, (_statement("release", n, n // RELEASES, envelope) for n in releases)
    yield (
        tables.StatementRow,
        ({**_statement("tag", n, n, envelope), "tag": "main", "sequence": 1} for n in repositories),
    )
    yield tables.ReleaseRow, (
        {"digest": hexed("release", n), "repository_id": n // RELEASES + 1,
         "manifest_digest": hexed("blob", n * BLOBS),
         "content_digest": hexed("content", n), "signer": hexed("id", n // RELEASES // REPOSITORIES),
         "size": 50_000_000, "files": BLOBS, "created": _at(n), "committed": _at(n), "sealed": False}
        for n in releases
    )  # fmt: skip
    yield tables.RepositoryBlobRow, (
        {"repository_id": n // BLOBS // RELEASES + 1, "digest": hexed("blob", n), "upload_id": hexed("up", n)[:32],
         "added": BEGIN}
        for n in blobs
    )  # fmt: skip
    yield tables.TagRow, (
        {"repository_id": n + 1, "tag": "main", "sequence": 1, "statement": hexed("tag", n),
         "target": hexed("release", min(n * RELEASES + RELEASES, filled.releases) - 1),
         "signer": hexed("id", n // REPOSITORIES), "issued": BEGIN, "expires": BEGIN + timedelta(days=365)}
        for n in repositories
    )  # fmt: skip
    yield hubtables.CardRow, (
        {"release_digest": hexed("release", n), "repository_id": n // RELEASES + 1, "license": "mit", "library": "",
         "pipeline": "", "languages": " de ", "tags": "  ", "base_models": "  ", "data": _CARD,
         "shown": n % RELEASES == RELEASES - 1 or n == filled.releases - 1}
        for n in releases
    )  # fmt: skip
    yield hubtables.CardWordRow, (
        {"word": word, "repository_id": n + 1}
        for n in repositories
        for word in (f"model{n}", f"word{n % 1000}", "=license:mit", f"=base_model:{filled.name(n // 2)}")
    )  # fmt: skip
    statements = itertools.chain((("release", n) for n in releases), (("tag", n) for n in repositories))
    yield (
        tables.LogEntryRow,
        (
            {"index": index, "statement": hexed(*statement), "time": _at(index)}
            for index, statement in enumerate(statements)
        ),
    )
    leaves = filled.releases + filled.repositories
    yield (
        tables.LogCheckpointRow,
        ({"size": size, "note": b"-", "quorum": True, "at": _at(size)} for size in range(50, leaves + 50, 50)),
    )
    yield tables.AuditEventRow, (
        {"at": _at(n), "request_id": hexed(n)[:32], "token_id": hexed("token", n % 1000)[:16],
         "action": "release-committed", "subject": filled.name(n // RELEASES), "detail": "{}"}
        for n in releases
    )  # fmt: skip


def _statement(kind: str, number: int, repository: int, envelope: int) -> dict[str, Any]:
    namespace = repository // REPOSITORIES
    return {
        "digest": hexed(kind, number), "kind": kind, "namespace_id": namespace + 1, "repository_id": repository + 1,
        "signer": hexed("id", namespace), "envelope": os.urandom(envelope), "recorded": _at(number),
    }  # fmt: skip


def _at(number: int) -> datetime:
    return BEGIN + timedelta(seconds=30 * number)
