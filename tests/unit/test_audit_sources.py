# SPDX-License-Identifier: Apache-2.0
"""What an audit asks a registry for: files of the log fetched ahead, statements kept, and no more than is needed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.client.audit.sources import KeptStatements, LogReader, RegistryStatements
from pq_registry.client.transport import RegistryClient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import NotFound, PqregError, TransportError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.log.monitor import Monitor
from tests.auditing import ALICE, AuditSite, judge_one
from tests.fake_registry import FakeRegistry, serving
from tests.logsamples import MemoryLog
from tests.monitoring import State, grown


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with serving() as registry:
        yield registry


@pytest.fixture
def client(registry: FakeRegistry) -> Iterator[RegistryClient]:
    with RegistryClient(registry.url, sleep=lambda _seconds: None) as client:
        yield client


@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("start", [0, 300])
def test_tiles_are_fetched_ahead_and_once(
    registry: FakeRegistry, client: RegistryClient, connections: int, start: int
) -> None:
    log, state = MemoryLog(), State()
    if start:
        list(Monitor(log.reader(), log.policies(), state).advance(grown(log, start)))
    grown(log, 3000)
    registry.log_files = dict(log.files)
    with LogReader(client, connections=connections) as reader:
        monitor = Monitor(reader, log.policies(), state)
        monitor.accept(reader.checkpoint())
        registry.seen.clear()
        reader.expect(start, 3000)
        assert state.followed is not None
        found = [entry for batch in monitor.remaining(state.followed) for entry in batch.entries]
    assert found == log.entries[start:]
    asked = Counter(seen.line for seen in registry.seen)
    assert set(asked.values()) == {1}
    assert sum("/entries/" in line for line in asked) == 12 - start // 256


def test_a_tile_that_is_missing_is_missed_where_it_is_read(registry: FakeRegistry, client: RegistryClient) -> None:
    log, state = MemoryLog(), State()
    note = grown(log, 1000)
    registry.log_files = {path: data for path, data in log.files.items() if path != "tile/entries/002"}
    with LogReader(client) as reader:
        monitor = Monitor(reader, log.policies(), state)
        monitor.accept(note)
        reader.expect(0, 1000)
        assert state.followed is not None
        batches = monitor.remaining(state.followed, leaves=256)
        assert [len(next(batches).entries) for _ in range(2)] == [256, 256]
        with pytest.raises(NotFound):
            next(batches)
        # What failed is not remembered: the next audit asks again.
        registry.log_files = dict(log.files)
        reader.expect(0, 1000)
        assert sum(len(batch.entries) for batch in monitor.remaining(state.followed)) == 1000


def test_statements_are_kept_and_given_again(registry: FakeRegistry, client: RegistryClient, tmp_path: Path) -> None:
    site = AuditSite()
    release = site.release()
    site.serve_at(registry)
    [manifest] = site.manifests
    asking = RegistryStatements(client, tmp_path / "kept")
    shown = asking.statement(release)
    assert shown == (site.envelopes[release], site.receipts[release])
    asking.keep(judge_one(site, 0))
    assert asking.manifest(manifest) == site.manifests[manifest]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "kept").iterdir())
    registry.rules[""] = lambda handler: handler.problem(500, "internal-error")
    kept = KeptStatements(tmp_path / "kept", asking)
    assert kept.statement(release) == shown
    assert kept.manifest(manifest) == site.manifests[manifest]
    with pytest.raises(TransportError):
        kept.statement(Digest.of(b"other"))
    alone = KeptStatements(tmp_path / "kept", None)
    assert alone.statement(release) == shown
    for ask in (alone.statement, alone.manifest):
        with pytest.raises(NotFound):
            ask(Digest.of(b"other"))


def test_a_receipt_that_came_later_is_fetched_then(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    site = AuditSite()
    release = site.release()
    site.serve_at(registry)
    receipt = registry.receipts.pop(release.hex)
    del site.receipts[release]
    asking = RegistryStatements(client, tmp_path / "kept")
    assert asking.statement(release)[1] is None
    asking.keep(judge_one(site, 0))
    registry.receipts[release.hex] = receipt
    assert KeptStatements(tmp_path / "kept", asking).statement(release)[1] == receipt


def test_what_was_kept_gives_way_to_nothing_worse(client: RegistryClient, tmp_path: Path) -> None:
    site = AuditSite()
    release = site.release()
    genuine = site.statement(release)
    asking, kept = RegistryStatements(client, tmp_path / "kept"), KeptStatements(tmp_path / "kept", None)
    resigned = sign_envelope(Envelope.parse(genuine[0]).payload, ALICE).encode()
    # Other signatures than those that were logged, and a receipt that does not verify: better than nothing ...
    site.envelopes[release], site.receipts[release] = resigned, b"junk"
    asking.keep(judge_one(site, 0))
    assert kept.statement(release) == (resigned, b"junk")
    # ... but not better than what was logged, in whichever order they are shown.
    site.envelopes[release], site.receipts[release] = genuine[0], genuine[1] or b""
    asking.keep(judge_one(site, 0))
    assert kept.statement(release) == genuine
    for envelope in (resigned, site.envelopes[site.release({"b": b""})]):
        site.envelopes[release], site.receipts[release] = envelope, b"junk"
        asking.keep(judge_one(site, 0))
        assert kept.statement(release) == genuine


def test_a_manifest_that_is_another_one_is_not_kept(
    registry: FakeRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    digest = Digest.of(b"what was signed")
    asking = RegistryStatements(client, tmp_path / "kept")
    registry.blobs = {digest.hex: b"what was signed"}
    asking.manifest(digest)
    registry.blobs = {digest.hex: b"something else."}
    with contextlib.suppress(PqregError):
        asking.manifest(digest)
    assert KeptStatements(tmp_path / "kept", None).manifest(digest) == b"what was signed"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_anything_but_not_found_ends_the_audit(registry: FakeRegistry, client: RegistryClient, status: int) -> None:
    registry.rules["/v1/statements"] = lambda handler: handler.problem(status, "x")
    with pytest.raises(PqregError) as caught:
        RegistryStatements(client).statement(Digest.of(b"x"))
    assert not isinstance(caught.value, NotFound)
