# SPDX-License-Identifier: Apache-2.0
"""Following a log from its files: what ``pqreg audit`` does, without a network.

Three depths: the leaves verified alone; recorded in an auditor's state; and every statement judged, with its envelope,
both halves of its signature and its receipt. In the last all leaves are of one publisher, which matters little: nothing
is remembered from one signature to the next.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pq_registry.client.audit.finding import Code
from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.judging import Judge
from pq_registry.client.audit.run import AuditOptions, Auditor
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.forkproof import ForkProof
from pq_registry.format.instant import from_unix
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Tag
from pq_registry.log.monitor import Followed, Monitor
from pq_registry.storage.tiles import LocalTiles
from tests.logsamples import TIME, Files, MemoryLog
from tests.samples import publisher, tag_statement, trust_file

STATEMENTS = 300


class _Remembered:
    """The least a monitor needs to remember."""

    def __init__(self) -> None:
        self.followed: Followed | None = None

    def load(self) -> Followed | None:
        return self.followed

    def keep(self, followed: Followed) -> None:
        self.followed = followed

    def keep_misbehaviour(self, error: Exception, old: bytes, new: bytes, fork: ForkProof | None) -> None:
        raise error


def leaves(directory: Path) -> dict[str, Any]:
    """The monitor alone: tiles authenticated, every leaf hashed, the tree recomputed."""
    tiles = LocalTiles(directory)
    monitor = Monitor(tiles, MemoryLog(witnesses=1).policies(), _Remembered())
    begun = time.perf_counter()
    count = sum(len(batch.entries) for batch in monitor.batches(tiles.read("checkpoint")))
    return _rate(count, begun)


def index(directory: Path) -> dict[str, Any]:
    """The same, every leaf parsed and recorded durably in the state of an audit."""
    tiles = LocalTiles(directory)
    judge = Judge(trust_file(log=MemoryLog(witnesses=1).policies()))
    with AuditIndex(directory / "state") as state:
        auditor = Auditor(state, judge, tiles, _Statements({}), options=AuditOptions(statements=False))
        begun = time.perf_counter()
        outcome = auditor.audit(tiles.read("checkpoint"), from_unix(TIME))
    return _rate(outcome.leaves, begun)


class _Statements:
    """Envelopes and receipts at hand."""

    def __init__(self, statements: dict[Digest, tuple[bytes, bytes]]) -> None:
        self._statements = statements

    def statement(self, payload: Digest) -> tuple[bytes, bytes | None]:
        return self._statements[payload]

    def manifest(self, digest: Digest) -> bytes:
        raise NotFound("no manifests here", found=digest)


def statements(directory: Path) -> dict[str, Any]:
    """A log of signed tags: every statement fetched, its two signatures, its receipt and its place checked."""
    log, signer = MemoryLog(witnesses=1), publisher()
    envelopes = []
    for number in range(STATEMENTS):
        payload = tag_statement(Digest.of(b"%d" % number), tag=Tag(f"v{number}")).encode()
        envelopes.append(sign_envelope(payload, signer))
        log.append(envelopes[-1], kind=Kind.TAG, name="acme/minilm", identity=signer.identity.id)
    note = log.publish()
    held = {
        envelope.payload_digest: (envelope.encode(), log.receipt(number)) for number, envelope in enumerate(envelopes)
    }
    judge = Judge(trust_file(log=log.policies()))
    with AuditIndex(directory / "state") as state:
        auditor = Auditor(state, judge, Files(log.files), _Statements(held))
        begun = time.perf_counter()
        outcome = auditor.audit(note, from_unix(TIME))
        result = _rate(outcome.statements, begun)
        # The releases the tags point at are not in this log, which is the one thing to be found.
        bad = state.value("SELECT count(*) FROM findings WHERE code != ?", Code.TAG_TARGET_UNLOGGED.value)
    if bad or outcome.statements != STATEMENTS:
        raise SystemExit(f"{bad} findings that should not be; {outcome.statements} statements")
    return result


def _rate(count: int, begun: float) -> dict[str, Any]:
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "leaves": count, "leaves_per_s": count / seconds}
