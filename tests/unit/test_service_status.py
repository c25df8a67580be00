# SPDX-License-Identifier: Apache-2.0
"""Statuses at the service: one chain per namespace that only grows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pq_registry import limits
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import MEDIA_TYPE
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Namespace
from pq_registry.format.status import RevocationKind
from tests.revocations import put_status, revocation, status_statement
from tests.samples import publisher
from tests.server_harness import RunningRegistry

STATUS = "/v1/namespaces/acme/status"


@pytest.fixture(autouse=True)
def registered(registry: RunningRegistry) -> None:
    registry.register(publisher())


def test_a_status_comes_back_as_it_was_sent(registry: RunningRegistry) -> None:
    assert registry.get(STATUS).code == "not-found"
    envelope = sign_envelope(status_statement(revocation()).encode(), publisher())
    answer = put_status(registry, envelope)
    assert answer.status == 201
    assert answer.json["digest"] == str(envelope.payload_digest)
    assert answer.json["log_index"] == 0
    found = registry.get(STATUS)
    assert (found.body, found.headers["content-type"]) == (envelope.encode(), MEDIA_TYPE)
    assert registry.get(STATUS, {"If-None-Match": found.headers["etag"]}).status == 304
    again = put_status(registry, envelope)
    assert (again.status, again.json) == (200, answer.json)


def test_statuses_form_one_chain_that_only_grows(registry: RunningRegistry) -> None:
    one, two = revocation("ab" * 32), revocation("cd" * 32, RevocationKind.RECIPIENT)
    first = put_status(registry, status_statement(one)).json["digest"]
    after = {"sequence": 2, "previous": Digest.parse(first)}
    assert put_status(registry, status_statement(one, two)).code == "sequence-used"
    assert put_status(registry, status_statement(one, sequence=2, previous=Digest.of(b""))).code == "sequence-used"
    assert put_status(registry, status_statement(two, **after)).code == "status-rollback"
    later = replace(one, since=one.since + timedelta(seconds=1))
    assert put_status(registry, status_statement(later, **after)).code == "status-rollback"
    earlier = replace(one, since=one.since - timedelta(days=1))
    second = put_status(registry, status_statement(earlier, two, **after))
    assert second.status == 201
    fork = status_statement(earlier, two, expires=utc_now() + timedelta(days=9), **after)
    assert put_status(registry, fork).code == "sequence-used"


def test_only_a_registered_identity_sets_it_for_its_namespace(registry: RunningRegistry) -> None:
    stranger = publisher("mallory")
    statement = status_statement(signer=stranger.identity.id)
    assert put_status(registry, sign_envelope(statement.encode(), stranger)).code == "access-denied"
    assert put_status(registry, sign_envelope(statement.encode(), publisher())).code == "access-denied"
    assert registry.register(publisher(), "lab").status == 201
    assert put_status(registry, status_statement(), namespace="lab").code == "name-mismatch"
    assert put_status(registry, status_statement(namespace=Namespace("lab"))).code == "name-mismatch"


def test_expired_and_future_ones_are_refused(registry: RunningRegistry) -> None:
    now = utc_now()
    old = status_statement(issued=now - timedelta(days=2), expires=now - timedelta(days=1))
    assert put_status(registry, old).code == "status-expired"
    ahead = now + timedelta(seconds=2 * limits.CLOCK_SKEW_SECONDS)
    assert put_status(registry, status_statement(issued=ahead, expires=ahead + timedelta(days=1))).code == "conflict"


def test_revoking_is_for_owners(registry: RunningRegistry) -> None:
    for role, status in (("reader", 403), ("publisher", 403), ("owner", 201)):
        assert put_status(registry.as_role(role), status_statement()).status == status
    assert registry.as_role("reader").get(STATUS).status == 200
    assert registry.as_role("owner", "lab").get(STATUS).status == 403
