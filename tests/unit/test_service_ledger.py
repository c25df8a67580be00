# SPDX-License-Identifier: Apache-2.0
"""From recorded statements to leaves with receipts: once each, after crashes too, again when witnesses were away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from pq_registry import limits
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import LogHalted, LogUnavailable, NotFound, StorageError
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.note import SignatureLine
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.receipt import Receipt, verify_receipt
from pq_registry.service.ledger import LoggedStatement
from pq_registry.service.registry import Registry
from pq_registry.storage.catalogue.tables import LogCheckpointRow, LogEntryRow, StatementRow
from tests.logsamples import compose_policy, witness_signers
from tests.logsetup import log_setup
from tests.samples import publisher
from tests.sealing_service import ACME, CALLER, certificate
from tests.server_harness import MovableClock
from tests.stack import store_config


@dataclass
class HandWitness:
    """A witness that cosigns when it is ``present``, with the time of the registry's clock."""

    clock: MovableClock
    present: bool = True
    closed: bool = field(default=False, init=False)

    def cosign(self, _note: bytes, checkpoint: Checkpoint, _consistency: Any) -> Sequence[SignatureLine]:
        if not self.present:
            return ()
        return [signer.sign(checkpoint, int(self.clock().timestamp())) for signer in witness_signers(1)]

    def view(self) -> tuple[()]:
        return ()

    def close(self) -> None:
        self.closed = True


@dataclass
class Site:
    """A registry, and the clock it goes by."""

    registry: Registry
    clock: MovableClock
    witness: HandWitness | None

    def record(self) -> Digest:
        """Record a key statement and do not log it."""
        from pq_registry.crypto.recipient import SecretRecipient
        from pq_registry.format.recipientfile import Kem

        node = SecretRecipient.generate(Kem.MLKEM768_X25519)
        statement = certificate(node, issued=self.clock())
        body = sign_envelope(statement.encode(), publisher()).encode()
        return self.registry.keys.put(CALLER, ACME, statement.recipient, body)[0]

    def verified(self, digest: Digest, receipt: bytes) -> Receipt:
        """The receipt, verified as a client does, under the service's policy."""
        with self.registry.catalogue.reading() as session:
            row = session.get(StatementRow, digest.hex)
            assert row is not None
        return verify_receipt(
            receipt, envelope=Envelope.parse(row.envelope), kind=Kind.KEY, name="acme", identity=row.signer,
            policies=[LogPolicy(self.registry.ledger.policy)],
        )  # fmt: skip

    def places(self, digest: Digest) -> list[int]:
        """Where the statement is in the log."""
        query = select(LogEntryRow.index).where(LogEntryRow.statement == digest.hex).order_by(LogEntryRow.index)
        with self.registry.catalogue.reading() as session:
            return list(session.scalars(query))


@contextmanager
def opened(data: Path, *, witnessed: bool = False, clock: MovableClock | None = None) -> Iterator[Site]:
    clock = clock or MovableClock()
    witness = HandWitness(clock) if witnessed else None
    log = log_setup(policy=compose_policy(witnesses=1), witnesses=witness) if witnessed else log_setup()
    registry = Registry.open(store_config(data), clock, log=log)
    try:
        registry.identities.register(CALLER, ACME, publisher().identity)
        yield Site(registry, clock, witness)
    finally:
        registry.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def witnessed(tmp_path: Path) -> Iterator[Site]:
    with opened(tmp_path / "registry", witnessed=True) as found:
        yield found


def test_a_receipt_verifies_as_a_client_verifies_it(site: Site) -> None:
    digests = [site.record() for _ in range(3)]
    logged = [site.registry.ledger.log(digest) for digest in digests]
    assert [found.index for found in logged] == [0, 1, 2]
    for digest, found in zip(digests, logged, strict=True):
        assert found.quorum
        receipt = site.verified(digest, found.receipt)
        assert (receipt.index, receipt.leaf.payload, receipt.attested) == (found.index, digest, None)
        assert site.registry.ledger.receipt(digest) is not None


def test_a_statement_is_logged_once_however_many_ask(site: Site) -> None:
    digest = site.record()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: site.registry.ledger.log(digest), range(48)))
    assert {one.index for one in found} == {0}
    assert site.places(digest) == [0]
    assert site.registry.ledger.log(digest).index == 0


def test_what_nobody_recorded_is_not_logged(site: Site) -> None:
    with pytest.raises(NotFound):
        site.registry.ledger.log(Digest.of(b"nothing"))
    assert site.registry.ledger.health().size == 0


def test_without_a_leaf_there_is_no_receipt(site: Site) -> None:
    assert site.registry.ledger.receipt(site.record()) is None


def test_what_a_crash_left_between_recording_and_logging_is_logged_by_the_next_start(tmp_path: Path) -> None:
    with opened(tmp_path / "registry") as site:
        logged = site.record()
        site.registry.ledger.log(logged)
        left = [site.record() for _ in range(300)]
    with opened(tmp_path / "registry") as site:
        assert site.registry.ledger.health().size == 301
        assert site.places(logged) == [0]
        assert sorted(index for digest in left for index in site.places(digest)) == list(range(1, 301))
        found = site.registry.ledger.log(left[7])
        assert site.verified(left[7], found.receipt).leaf.payload == left[7]
        assert site.registry.ledger.catch_up() == 0


def test_catching_up_finds_what_was_left_over_since_the_last_time(site: Site) -> None:
    start = site.clock.offset
    for hours in (0, 3, 2.1):  # the last was dated by a clock that had been set back meanwhile, by less than an hour
        site.clock.offset = start + timedelta(hours=hours)
        left = site.record()
        site.clock.offset = start + timedelta(hours=max(hours, 3 * (hours > 0)))
        assert site.registry.ledger.catch_up() == 1
        assert site.places(left)


def test_a_damaged_statement_does_not_keep_others_from_the_log(site: Site) -> None:
    bad, good = site.record(), site.record()
    with site.registry.catalogue.writing() as session:
        session.execute(update(StatementRow).where(StatementRow.digest == bad.hex).values(envelope=b"{}"))
    with pytest.raises(StorageError, match="1 recorded statements are damaged"):
        site.registry.ledger.catch_up()
    assert site.places(good) == [0]
    assert not site.places(bad)


def test_a_damaged_statement_does_not_keep_the_service_from_starting(tmp_path: Path) -> None:
    with opened(tmp_path / "registry") as site:
        bad, good = site.record(), site.record()
        with site.registry.catalogue.writing() as session:
            session.execute(update(StatementRow).where(StatementRow.digest == bad.hex).values(envelope=b"{}"))
    with opened(tmp_path / "registry") as site:
        assert site.places(good) == [0]
        assert not site.places(bad)


def test_b7_a_receipt_is_never_made_from_another_leaf(site: Site) -> None:
    one, other = site.record(), site.record()
    site.registry.ledger.log(one)
    index = site.registry.ledger.log(other).index
    with site.registry.catalogue.writing() as session:  # the catalogue says that both are the same leaf
        session.execute(delete(LogEntryRow))
        session.add(LogEntryRow(index=index, statement=one.hex, time=site.clock()))
    with pytest.raises(StorageError, match="do not prove leaf"):
        site.registry.ledger.receipt(one)


def test_b7_a_receipt_is_never_made_under_an_altered_checkpoint(tmp_path: Path) -> None:
    with opened(tmp_path / "registry") as site:
        digest = site.record()
        site.registry.ledger.log(digest)
    with opened(tmp_path / "registry") as site:  # a new process, which remembers nothing
        with site.registry.catalogue.writing() as session:
            row = session.get(LogCheckpointRow, 1)
            assert row is not None
            row.note = row.note.replace(b"\n1\n", b"\n2\n", 1)
        with pytest.raises(StorageError, match="do not prove leaf"):
            site.registry.ledger.receipt(digest)


def test_the_answer_comes_with_the_attested_time_of_the_witness(witnessed: Site) -> None:
    digest = witnessed.record()
    found = witnessed.registry.ledger.log(digest)
    assert found.quorum
    assert witnessed.verified(digest, found.receipt).attested is not None


def absent(site: Site) -> tuple[Digest, LoggedStatement]:
    """Log a statement while the witness is away."""
    assert site.witness is not None
    site.witness.present = False
    digest = site.record()
    return digest, site.registry.ledger.log(digest)


def returns(site: Site) -> None:
    """The witness comes back, and cosigns the present tree."""
    assert site.witness is not None
    site.witness.present = True
    index = site.registry.ledger.log(site.record()).index
    assert site.registry.ledger.health().size == index + 1


def test_without_its_witness_the_receipt_is_the_logs_alone(witnessed: Site) -> None:
    digest, found = absent(witnessed)
    assert not found.quorum
    proof = TlogProof.parse(found.receipt)
    assert proof.extra is not None
    assert Leaf.parse(proof.extra).payload == digest
    assert witnessed.registry.ledger.log(digest) == found  # within the hour it may still be attested: no second leaf
    assert witnessed.places(digest) == [0]


def test_a_witness_that_returns_within_the_hour_makes_the_receipt_good(witnessed: Site) -> None:
    digest, _ = absent(witnessed)
    witnessed.clock.offset += timedelta(seconds=limits.ATTESTATION_SECONDS - 60)
    returns(witnessed)
    found = witnessed.registry.ledger.log(digest)
    assert (found.index, found.quorum) == (0, True)
    assert witnessed.verified(digest, found.receipt).attested is not None
    assert witnessed.registry.ledger.catch_up() == 0


def test_a_witness_that_returns_later_gives_the_statement_a_new_leaf(witnessed: Site) -> None:
    digest, _ = absent(witnessed)
    witnessed.clock.offset += timedelta(seconds=limits.ATTESTATION_SECONDS + 60)
    returns(witnessed)
    assert witnessed.registry.ledger.catch_up() == 1
    assert witnessed.places(digest) == [0, 2]
    found = witnessed.registry.ledger.log(digest)
    assert (found.index, found.quorum) == (2, True)
    assert witnessed.verified(digest, found.receipt).attested is not None
    assert witnessed.registry.ledger.catch_up() == 0


def test_a_damaged_statement_does_not_keep_others_from_a_new_leaf(witnessed: Site) -> None:
    bad, _ = absent(witnessed)
    good = witnessed.record()
    witnessed.registry.ledger.log(good)
    witnessed.clock.offset += timedelta(seconds=limits.ATTESTATION_SECONDS + 60)
    returns(witnessed)
    places = witnessed.places(good)
    with witnessed.registry.catalogue.writing() as session:
        session.execute(update(StatementRow).where(StatementRow.digest == bad.hex).values(envelope=b"{}"))
    with pytest.raises(StorageError, match="1 recorded statements are damaged"):
        witnessed.registry.ledger.catch_up()
    assert len(witnessed.places(good)) == len(places) + 1


def test_a_retry_after_the_hour_gets_the_new_leaf_itself(witnessed: Site) -> None:
    digest, first = absent(witnessed)
    witnessed.clock.offset += timedelta(seconds=limits.ATTESTATION_SECONDS + 60)
    again = witnessed.registry.ledger.log(digest)
    assert (first.index, again.index, again.quorum) == (0, 1, False)


def test_a_log_that_halted_takes_nothing_and_still_shows_receipts(site: Site) -> None:
    digest = site.record()
    site.registry.ledger.log(digest)
    site.clock.offset -= timedelta(hours=1)
    late = site.record()
    with pytest.raises(LogHalted):
        site.registry.ledger.log(late)
    with pytest.raises(LogHalted):
        site.registry.check()
    assert site.registry.ledger.receipt(digest) is not None
    assert site.registry.ledger.receipt(late) is None


def test_a_receipt_that_does_not_come_in_time_is_said_so_and_nothing_is_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = site.record()
    monkeypatch.setattr(limits, "RECEIPT_WAIT_SECONDS", 0)
    with pytest.raises(LogUnavailable):
        site.registry.ledger.log(digest)
    monkeypatch.undo()
    assert site.registry.ledger.log(digest).index == 0
    assert site.places(digest) == [0]


def test_witnesses_are_closed_with_the_log(tmp_path: Path) -> None:
    with opened(tmp_path / "registry", witnessed=True) as site:
        pass
    assert site.witness is not None
    assert site.witness.closed
