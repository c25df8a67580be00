# SPDX-License-Identifier: Apache-2.0
"""D6: a token or statement used where or when it must not be (CVE-2026-44428, TOB-PYPI26-2)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.instant import utc_now
from pq_registry.service.access import Rights, Role
from pq_registry.service.tokens import host_caller
from tests.samples import YEAR, publisher, release, tag_statement
from tests.server_harness import RunningRegistry, running


def test_a_token_of_one_registry_means_nothing_to_another(registry: RunningRegistry, tmp_path: Path) -> None:
    with running(tmp_path / "other") as other:
        for token in (registry.admin_token, registry.make_token("reader", "*")):
            assert other.with_token(token).get("/v1/whoami").code == "not-authenticated"
        assert registry.with_token(other.admin_token).get("/v1/repos").code == "not-authenticated"


@pytest.mark.parametrize(("seconds", "good"), [(-1, True), (0, False), (1, False)])
def test_a_token_ends_at_its_second(registry: RunningRegistry, seconds: int, good: bool) -> None:
    # One meaning of "expired" everywhere (A11): at the second itself, no leeway.
    tokens = registry.registry.tokens
    made = tokens.create(host_caller(), rights=Rights(role=Role.READER, namespaces=None), expires_days=1)
    tokens._clock = lambda: made.item.expires + timedelta(seconds=seconds)
    answer = registry.with_token(made.text).get("/v1/whoami")
    assert answer.status == 200 if good else answer.code == "not-authenticated"


def test_of_fifty_statements_with_one_sequence_number_one_wins(registry: RunningRegistry) -> None:
    digest = registry.publish()
    now = utc_now()
    envelopes = [
        sign_envelope(
            tag_statement(digest, issued=now, expires=now + YEAR + timedelta(seconds=number)).encode(), publisher()
        )
        for number in range(50)
    ]
    start = threading.Barrier(25)

    def put(number: int) -> int:
        if number < 25:
            start.wait(30)
        statement = tag_statement(digest)
        answer = registry.put_envelope(envelopes[number], statement.repository, statement.tag)
        return answer.status if answer.status == 201 else {"sequence-used": 409}[answer.code]

    with ThreadPoolExecutor(25) as pool:
        statuses = list(pool.map(put, range(50)))
    assert sorted(statuses) == [201] + [409] * 49


def test_the_same_statement_sent_fifty_times_is_recorded_once(registry: RunningRegistry) -> None:
    digest = registry.publish()
    now = utc_now()
    envelope = sign_envelope(tag_statement(digest, issued=now, expires=now + YEAR).encode(), publisher())
    statement = tag_statement(digest)
    with ThreadPoolExecutor(25) as pool:
        statuses = list(
            pool.map(lambda _: registry.put_envelope(envelope, statement.repository, statement.tag).status, range(50))
        )
    assert sorted(statuses) == [200] * 49 + [201]


def test_a_release_committed_by_many_at_once_exists_once(registry: RunningRegistry) -> None:
    registry.publish()
    registry.publish({"other.json": b"{}"})
    envelope, manifest = release({"third.json": b"[]"})
    for content in (manifest, b"[]"):
        registry.upload(content)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: registry.post_release(envelope).status, range(16)))
    assert sorted(statuses) == [200] * 15 + [201]
    assert len(registry.get("/v1/repos/acme/minilm").json["releases"]) == 3


def test_a_tag_statement_cannot_be_played_back(registry: RunningRegistry) -> None:
    first, second = registry.publish(), registry.publish({"other.json": b"{}"})
    now = utc_now()
    statement = tag_statement(first, issued=now, expires=now + YEAR)
    one = sign_envelope(statement.encode(), publisher())
    assert registry.put_envelope(one, statement.repository, statement.tag).status == 201
    assert registry.put_tag(second, sequence=2, previous=one.payload_digest).status == 201
    # The old one again: it is recorded, so this is the answer to a repeated request; the tag does not move back.
    assert registry.put_envelope(one, statement.repository, statement.tag).status == 200
    assert registry.get("/v1/repos/acme/minilm").json["tags"][0]["target"] == str(second)


def test_the_prefix_of_the_hubs_tokens_makes_no_other_token(registry: RunningRegistry) -> None:
    token = registry.admin_token
    tried = {f"hf_{token}": 200, f"hf_hf_{token}": 401, f"{token}hf_": 401, "hf_": 401, f"hf_{token[6:]}": 401}
    assert {text: registry.with_token(text).get("/v1/whoami").status for text in tried} == tried
