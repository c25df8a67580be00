# SPDX-License-Identifier: Apache-2.0
"""The revoker's side of a status: complete lists that only grow, chained, and never signed twice for one sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from pq_registry.client.loganswers import Logged
from pq_registry.client.revoking import issue, read_status
from pq_registry.client.tagging import Publisher
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import (
    FormatError,
    ReceiptInvalid,
    ReceiptMissing,
    SequenceUsed,
    SignatureInvalid,
    StatementMismatch,
    StatusEquivocation,
    StatusRollback,
    TrustMissing,
    UntrustedSigner,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from pq_registry.format.trustfile import TrustFile
from tests.logged_site import ACME, REVOKER, acme, next_status, sign_status, status_statement
from tests.logsamples import MemoryLog
from tests.samples import NOW, publisher, trust_file

MONTH = timedelta(days=30)
RELEASE = Revocation(RevocationKind.RELEASE, "sha256:" + "ab" * 32, NOW)
IDENTITY = Revocation(RevocationKind.IDENTITY, "cd" * 32, NOW)


class StatusRegistry:
    """Keeps one status, and logs it if there is a log; ``before_put`` may interfere."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.data: bytes | None = None
        self.log = log
        self.registered: list[str] = []
        self.before_put: Callable[[], None] = lambda: None
        self.bend: Callable[[bytes | None], bytes | None] = lambda receipt: receipt

    def status_envelope(self, _namespace: Namespace) -> bytes | None:
        return self.data

    def identities(self, _namespace: Namespace) -> tuple[Any, ...]:
        return ()

    def register_identity(self, _namespace: Namespace, public_pem: bytes) -> None:
        self.registered.append(public_pem.decode())

    def put_status(self, _namespace: Namespace, envelope: bytes) -> Logged:
        self.before_put()
        offered = StatusStatement.parse(Envelope.parse(envelope).payload)
        if self.data is not None:
            present = StatusStatement.parse(Envelope.parse(self.data).payload)
            if offered.sequence != present.sequence + 1:
                raise SequenceUsed("taken")
        self.data = envelope
        if self.log is None:
            return Logged(None, None, quorum=False)
        receipt = self.log.log(
            Envelope.parse(envelope), kind=Kind.STATUS, name=str(offered.namespace), identity=offered.signer
        )
        return Logged(self.log.size - 1, self.bend(receipt), quorum=True)


def revoker(
    registry: StatusRegistry,
    state: Path,
    name: str = REVOKER,
    *,
    now: datetime = NOW,
    trust: TrustFile | None = None,
) -> Publisher:
    return Publisher(
        client=cast("RegistryClient", registry), signer=publisher(name), state_dir=state, now=now, trust=trust
    )


def both_revoke() -> TrustFile:
    entry = acme(publisher(), publisher("second"))
    return trust_file(replace(entry, revokers=(*entry.revokers, publisher("second").identity.id)))


def test_first_then_entries_then_a_renewal(tmp_path: Path) -> None:
    registry = StatusRegistry()
    first = issue(revoker(registry, tmp_path), ACME, lifetime=MONTH)
    assert (first.statement.sequence, first.statement.previous, first.statement.revoked) == (1, None, ())
    second = issue(revoker(registry, tmp_path), ACME, [RELEASE, IDENTITY], lifetime=MONTH)
    assert second.added == (RELEASE, IDENTITY)
    assert second.statement.revoked == (IDENTITY, RELEASE)
    assert second.statement.previous == Digest.of(first.statement.encode())
    third = issue(revoker(registry, tmp_path, now=NOW + MONTH / 2), ACME, lifetime=MONTH)
    assert third.statement.revoked == second.statement.revoked
    assert third.statement.expires == NOW + MONTH / 2 + MONTH
    assert third.statement.sequence == 3
    assert third.statement.extends(second.statement)
    assert len(registry.registered) == 3


def test_what_is_revoked_already_is_not_signed_again(tmp_path: Path) -> None:
    registry = StatusRegistry()
    issue(revoker(registry, tmp_path), ACME, [RELEASE], lifetime=MONTH)
    kept = registry.data
    again = issue(revoker(registry, tmp_path), ACME, [replace(RELEASE, since=NOW + MONTH)], lifetime=MONTH)
    assert not again.changed
    assert registry.data == kept
    earlier = replace(RELEASE, since=NOW - MONTH)
    moved = issue(revoker(registry, tmp_path), ACME, [earlier], lifetime=MONTH)
    assert moved.statement.revoked == (earlier,)


def test_a_revoker_continues_what_another_one_began(tmp_path: Path) -> None:
    registry = StatusRegistry()
    issue(revoker(registry, tmp_path / "a"), ACME, [RELEASE], lifetime=MONTH)
    with pytest.raises(TrustMissing):
        issue(revoker(registry, tmp_path / "b", "second"), ACME, lifetime=MONTH)
    with pytest.raises(UntrustedSigner):
        read_status(revoker(registry, tmp_path / "b", "second", trust=trust_file(acme(revoker=False))), ACME)
    changed = issue(revoker(registry, tmp_path / "b", "second", trust=both_revoke()), ACME, [IDENTITY], lifetime=MONTH)
    assert changed.statement.revoked == (IDENTITY, RELEASE)
    assert changed.statement.signer == publisher("second").identity.id


def test_a_publisher_is_no_revoker(tmp_path: Path) -> None:
    registry = StatusRegistry()
    registry.data = sign_status(status_statement(signer=publisher().identity.id), "alice").encode()
    with pytest.raises(UntrustedSigner):
        issue(revoker(registry, tmp_path, trust=both_revoke()), ACME, lifetime=MONTH)


def test_a_registry_that_shows_an_older_one_or_none_gets_no_signature(tmp_path: Path) -> None:
    registry = StatusRegistry()
    issue(revoker(registry, tmp_path), ACME, lifetime=MONTH)
    old = registry.data
    issue(revoker(registry, tmp_path), ACME, [RELEASE], lifetime=MONTH)
    for shown in (old, None):
        registry.data = shown
        with pytest.raises(StatusRollback):
            issue(revoker(registry, tmp_path), ACME, lifetime=MONTH)
        assert registry.data == shown
    other = next_status(status_statement(), IDENTITY)
    registry.data = sign_status(other).encode()
    with pytest.raises(StatusEquivocation):
        issue(revoker(registry, tmp_path), ACME, lifetime=MONTH)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"{}", FormatError),
        (sign_status(status_statement(namespace=Namespace("rival"))).encode(), StatementMismatch),
        (
            replace(
                sign_status(status_statement()), pq_signature=sign_status(next_status(status_statement())).pq_signature
            ).encode(),
            SignatureInvalid,
        ),
    ],
    ids=["junk", "another namespace", "one half"],
)
def test_a_status_that_is_none(tmp_path: Path, data: bytes, kind: type[Exception]) -> None:
    registry = StatusRegistry()
    registry.data = data
    with pytest.raises(kind):
        read_status(revoker(registry, tmp_path), ACME)


def test_somebody_elses_at_the_same_moment_is_not_overridden(tmp_path: Path) -> None:
    registry = StatusRegistry()
    issue(revoker(registry, tmp_path), ACME, lifetime=MONTH)

    def interfere() -> None:
        registry.before_put = lambda: None
        issue(revoker(registry, tmp_path / "b", "second", trust=both_revoke()), ACME, [IDENTITY], lifetime=MONTH)

    registry.before_put = interfere
    with pytest.raises(SequenceUsed):
        issue(revoker(registry, tmp_path, trust=both_revoke()), ACME, [RELEASE], lifetime=MONTH)
    again = issue(revoker(registry, tmp_path, trust=both_revoke()), ACME, [RELEASE], lifetime=MONTH)
    assert again.statement.revoked == (IDENTITY, RELEASE)


def test_ones_own_whose_answer_was_lost_is_adopted(tmp_path: Path) -> None:
    registry = StatusRegistry()

    def lose_the_answer() -> None:
        registry.before_put = lambda: None
        issue(revoker(registry, tmp_path), ACME, [RELEASE], lifetime=MONTH)

    registry.before_put = lose_the_answer
    changed = issue(revoker(registry, tmp_path), ACME, [RELEASE], lifetime=MONTH)
    assert changed.statement.sequence == 1
    assert changed.logged is None


# -- what the log answers ----------------------------------------------------------------------------------------------
def test_the_receipt_is_checked_as_readers_of_the_same_trust_file_do(tmp_path: Path) -> None:
    log = MemoryLog(witnesses=1)
    registry = StatusRegistry(log)
    trust = trust_file(acme(), log=log.policies())
    assert issue(revoker(registry, tmp_path, trust=trust), ACME, lifetime=MONTH).logged == Logged(
        0, log.receipt(0), quorum=True
    )
    first = log.receipt(0)
    registry.bend = lambda _receipt: first
    with pytest.raises(ReceiptInvalid):
        issue(revoker(registry, tmp_path / "b", trust=trust), ACME, lifetime=MONTH)
    registry.bend = lambda _receipt: None
    with pytest.raises(ReceiptMissing):
        issue(revoker(registry, tmp_path / "c", trust=trust), ACME, lifetime=MONTH)
    issue(revoker(registry, tmp_path / "d"), ACME, lifetime=MONTH)  # who has no trust file checks nothing


def test_witnesses_out_of_reach_are_said_and_no_refusal(tmp_path: Path) -> None:
    log = MemoryLog(witnesses=1)
    registry = StatusRegistry(log)

    def without_witnesses(_receipt: bytes | None) -> bytes:
        return log.receipt(log.size - 1, log.publish(cosigned=False))

    registry.bend = without_witnesses
    trust = trust_file(acme(), log=log.policies())
    logged = issue(revoker(registry, tmp_path, trust=trust), ACME, lifetime=MONTH).logged
    assert logged is not None
    assert not logged.quorum
