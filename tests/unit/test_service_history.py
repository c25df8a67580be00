# SPDX-License-Identifier: Apache-2.0
"""Histories at the service: several statements of one chain at once, as a replica gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from pq_registry import limits
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.status import StatusStatement
from pq_registry.format.strict_json import encode_base64
from pq_registry.format.tag import TagStatement
from pq_registry.storage.chains import check_chains
from tests.revocations import revocation, status_statement
from tests.samples import publisher, tag_statement
from tests.server_harness import Answer, RunningRegistry

TAG = "/v1/repos/acme/minilm/tags/v1"
STATUS = "/v1/namespaces/acme/status"


def send(
    registry: RunningRegistry, path: str, statements: Sequence[TagStatement | StatusStatement | Envelope]
) -> Answer:
    envelopes = [one if isinstance(one, Envelope) else sign_envelope(one.encode(), publisher()) for one in statements]
    return registry.post(f"{path}/history", {"statements": [encode_base64(one.encode()) for one in envelopes]})


def chain(*targets: Digest | None, days: int = 400) -> list[TagStatement]:
    """Statements of v1, from the first, issued long ago; all but the last have expired."""
    found: list[TagStatement] = []
    begun = utc_now() - timedelta(days=days)
    for number, target in enumerate(targets, 1):
        last = number == len(targets)
        found.append(
            tag_statement(
                target,
                sequence=number,
                previous=Digest.of(found[-1].encode()) if found else None,
                issued=begun + timedelta(days=number),
                expires=utc_now() + timedelta(days=30) if last else begun + timedelta(days=number + 5),
            )
        )
    return found


def present(registry: RunningRegistry) -> TagStatement:
    return TagStatement.parse(Envelope.parse(registry.get(TAG).body).payload)


def test_a_history_is_recorded_at_once_and_nothing_of_it_twice(registry: RunningRegistry) -> None:
    digest = registry.publish()
    gone = Digest.of(b"a release that is not here")
    statements = chain(gone, None, gone, digest)
    answer = send(registry, TAG, statements)
    assert (answer.status, answer.json["digest"]) == (201, str(Digest.of(statements[-1].encode())))
    assert present(registry) == statements[-1]
    again = send(registry, TAG, statements)
    assert (again.status, again.json) == (200, answer.json)
    more = replace(
        statements[-1], sequence=5, previous=Digest.of(statements[-1].encode()), issued=utc_now(),
        expires=utc_now() + timedelta(days=9),
    )  # fmt: skip
    assert send(registry, TAG, [*statements, more]).status == 201  # what is there is passed over
    assert present(registry) == more
    with registry.registry.catalogue.reading() as session:
        found = list(check_chains(session))
    assert [finding.note for finding in found] == [True, True]  # where it pointed once is not here, and need not be
    assert all(str(gone) in finding.problem for finding in found)


def test_it_is_all_or_nothing(registry: RunningRegistry) -> None:
    digest = registry.publish()
    first, second, third = chain(digest, digest, digest)
    assert send(registry, TAG, [first, third]).code == "sequence-used"
    assert send(registry, TAG, [second, first]).code == "sequence-used"
    fork = replace(second, expires=second.expires + timedelta(seconds=1))
    assert send(registry, TAG, [first, fork, third]).code == "sequence-used"
    assert (
        send(registry, TAG, chain(digest, Digest.of(b"nowhere"))).code == "conflict"
    )  # the last one must lead somewhere
    stranger = sign_envelope(first.encode(), publisher("mallory"))
    assert send(registry, TAG, [stranger]).code == "access-denied"
    future = replace(third, issued=utc_now() + timedelta(hours=1), expires=utc_now() + timedelta(days=1))
    assert send(registry, TAG, [first, second, future]).code == "conflict"
    assert send(registry, "/v1/repos/acme/minilm/tags/v2", [first]).code == "name-mismatch"
    assert registry.get(TAG).code == "not-found"


def test_statuses_come_with_their_history_and_only_grow(registry: RunningRegistry) -> None:
    registry.register(publisher())
    begun = utc_now() - timedelta(days=100)
    one = status_statement(revocation(), issued=begun, expires=begun + timedelta(days=30))
    two = replace(
        one, sequence=2, previous=Digest.of(one.encode()), issued=utc_now(), expires=utc_now() + timedelta(days=9)
    )
    forgetful = replace(two, revoked=())
    assert send(registry, STATUS, [one, forgetful]).code == "status-rollback"
    assert registry.get(STATUS).code == "not-found"
    assert send(registry, STATUS, [one, two]).status == 201
    assert Envelope.parse(registry.get(STATUS).body).payload_digest == Digest.of(two.encode())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"statements": []},
        {"statements": ["e30="] * (limits.HISTORY_STATEMENTS + 1)},
        {"statements": ["not base64"]},
        {"statements": [1]},
        {"statements": ["e30="]},
        {"statements": ["e30="], "more": 1},
    ],
)
def test_other_bodies_are_refused(registry: RunningRegistry, body: dict[str, object]) -> None:
    registry.publish()
    assert registry.post(f"{TAG}/history", body).code == "format-error"
