# SPDX-License-Identifier: Apache-2.0
"""F7: a status that comes with a directory takes back nothing of what this client has seen.

A revoker's key is stolen and revoked, and this client knows it. The thief signs the status that comes next, without
that entry, and puts it beside a release: on a stick, in a mirror. It must not count, whatever its sequence.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.directory import Evidence
from pq_registry.client.keptstatus import adopt_kept_status
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.status import SeenStatus
from pq_registry.client.trust import Verifier
from pq_registry.errors import Revoked, StatusEquivocation, StatusExpired, StatusRollback
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Reference
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from tests import samples
from tests.logged_site import ACME, REVOKER, acme, next_status, sign_status, status_statement
from tests.logsamples import MemoryLog
from tests.samples import NOW, REPOSITORY, publisher, trust_file

ENVELOPE, MANIFEST = samples.release()
BAD = Revocation(RevocationKind.RELEASE, str(ENVELOPE.payload_digest), NOW)
STOLEN = Revocation(RevocationKind.IDENTITY, publisher(REVOKER).identity.id, NOW)
WANTED = Reference.parse(str(REPOSITORY))


class Shelf:
    """A client that has seen one status, and a directory with another; with a log, or without."""

    def __init__(self, state: Path, *, exempt: bool) -> None:
        self.state = state
        self.log = MemoryLog(witnesses=1)
        self.trust = trust_file(acme(), log="exempt" if exempt else self.log.policies())

    def signed(self, statement: StatusStatement) -> tuple[bytes, bytes]:
        envelope = sign_status(statement)
        signer = publisher(REVOKER).identity.id
        return envelope.encode(), self.log.log(envelope, kind=Kind.STATUS, name="acme", identity=signer)

    def see(self, statement: StatusStatement) -> None:
        SeenStatuses(self.state).advance(ACME, SeenStatus.of(*self.signed(statement)))

    def adopt(self, beside: StatusStatement | None, expected: Reference | None) -> Verifier:
        verifier = Verifier(self.trust.encode(), NOW + timedelta(days=1), online=False)
        status, receipt = (None, None) if beside is None else self.signed(beside)
        evidence = Evidence(ENVELOPE.encode(), MANIFEST, None, status, receipt)
        adopt_kept_status(verifier, evidence, expected=expected, state_dir=self.state)
        return verifier


@pytest.fixture(params=[False, True], ids=["logged", "exempt"])
def shelf(tmp_path: Path, request: pytest.FixtureRequest) -> Shelf:
    return Shelf(tmp_path, exempt=request.param)


@pytest.mark.parametrize("expected", [WANTED, None])
def test_f07_the_next_status_does_not_shed_a_revocation(shelf: Shelf, expected: Reference | None) -> None:
    first = status_statement(BAD)
    shelf.see(first)
    with pytest.raises(StatusRollback) as caught:
        shelf.adopt(next_status(first), expected)
    assert caught.value.step == 5


@pytest.mark.parametrize("expected", [WANTED, None])
def test_f07_a_revoker_this_client_knows_to_be_revoked_issues_none(shelf: Shelf, expected: Reference | None) -> None:
    first = status_statement(BAD, STOLEN)
    shelf.see(first)
    with pytest.raises(Revoked):
        shelf.adopt(next_status(first, BAD, STOLEN), expected)


@pytest.mark.parametrize("expected", [WANTED, None])
def test_f07_what_follows_what_was_seen_counts_and_what_precedes_it_is_passed_over(
    shelf: Shelf, expected: Reference | None
) -> None:
    first = status_statement()
    second = next_status(first, BAD)
    shelf.see(first)
    assert _sequence(shelf.adopt(second, expected)) == 2
    shelf.see(second)
    assert _sequence(shelf.adopt(first, expected)) == 2


@pytest.mark.parametrize("expected", [WANTED, None])
def test_f07_one_that_has_expired_does_not_stand_in_the_way_of_what_was_seen(
    shelf: Shelf, expected: Reference | None
) -> None:
    shelf.trust = trust_file(acme(), log=shelf.trust.log, offline_status="require")
    first = status_statement(issued=NOW - timedelta(days=2), expires=NOW - timedelta(days=1))
    shelf.see(next_status(first, BAD))
    assert _sequence(shelf.adopt(first, expected)) == 2
    with pytest.raises(StatusEquivocation):
        shelf.adopt(next_status(first), expected)


@pytest.mark.parametrize("expected", [WANTED, None])
def test_f07_one_seen_that_has_expired_does_not_stand_in_the_way_of_a_newer_one(
    shelf: Shelf, expected: Reference | None
) -> None:
    shelf.trust = trust_file(acme(), log=shelf.trust.log, offline_status="require")
    first = status_statement(issued=NOW - timedelta(days=2), expires=NOW - timedelta(days=1))
    shelf.see(first)
    release = ENVELOPE.encode(), MANIFEST
    receipt = shelf.log.log(ENVELOPE, kind=Kind.RELEASE, name=str(REPOSITORY), identity=publisher().identity.id)
    for beside in (None, first):
        verifier = shelf.adopt(beside, expected)
        with pytest.raises(StatusExpired):
            verifier.release(*release, expected_name=None, expected_digest=None, receipt=receipt)
    verifier = shelf.adopt(next_status(first), expected)
    assert verifier.release(*release, expected_name=None, expected_digest=None, receipt=receipt)


@pytest.mark.parametrize("expected", [WANTED, None])
def test_f07_a_directory_without_a_status_is_judged_by_the_one_seen(shelf: Shelf, expected: Reference | None) -> None:
    shelf.see(status_statement(BAD))
    assert _sequence(shelf.adopt(None, expected)) == 1


def _sequence(verifier: Verifier) -> int | None:
    found = verifier.adopted(ACME)
    return None if found is None else found.statement.sequence
