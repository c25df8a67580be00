# SPDX-License-Identifier: Apache-2.0
"""Attacks on what a registry keeps for sealed releases, over HTTP: substituted keys, moved grants, forks of a chain.

None of this is what clients rely on. It keeps one tenant, or a thief with a token, from spoiling it for the others.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.recipientfile import Kem
from pq_registry.format.statement import predicate_type
from tests.samples import YEAR, publisher, tag_statement
from tests.sealing_samples import SECRET, Sealed, seal
from tests.sealing_service import certificate, publish_sealed, put_grant, put_key
from tests.server_harness import Api, RunningRegistry


@pytest.fixture(scope="module")
def releases(shared_registry: RunningRegistry) -> tuple[Sealed, Sealed]:
    """Two sealed releases of one repository."""
    found = seal({"a.json": b"{}"}), seal({"a.json": b"[]"}, release_id="5f" * 16)
    for release in found:
        publish_sealed(shared_registry, release)
    return found


@pytest.fixture
def node() -> SecretRecipient:
    return SecretRecipient.generate(Kem.MLKEM768_X25519)


def keys_of(api: Api, namespace: str = "acme") -> set[str]:
    return {item["recipient"] for item in api.get(f"/v1/namespaces/{namespace}/keys?limit=1000").json["items"]}


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_statement_nobody_of_the_namespace_signed(
    shared_registry: RunningRegistry, releases: object, node: SecretRecipient
) -> None:
    mallory = publisher("mallory")
    for signer in (mallory.identity.id, publisher().identity.id):
        forged = sign_envelope(certificate(node, signer=signer).encode(), mallory)
        assert put_key(shared_registry, forged, node.public.id).code == "access-denied"
    assert node.public.id not in keys_of(shared_registry)


def test_a_key_statement_with_half_a_signature_or_none(
    shared_registry: RunningRegistry, releases: object, node: SecretRecipient
) -> None:
    genuine = sign_envelope(certificate(node).encode(), publisher())
    forged = sign_envelope(genuine.payload, publisher("mallory"))
    for half in ({"pq_signature": forged.pq_signature}, {"ec_signature": forged.ec_signature}):
        assert put_key(shared_registry, replace(genuine, **half), node.public.id).code == "signature-invalid"
    path = f"/v1/namespaces/acme/keys/{node.public.id}"
    body = genuine.encode()
    stripped = body[: body.index(b'"signatures"')] + b'"signatures":[]}'
    kind = {"Content-Type": "application/vnd.dsse.envelope.v1+json"}
    assert shared_registry.request("PUT", path, stripped, kind).status == 422
    assert shared_registry.request("PUT", path, genuine.payload, kind).status == 422
    assert node.public.id not in keys_of(shared_registry)


def test_a_key_under_another_recipients_id(
    shared_registry: RunningRegistry, releases: object, node: SecretRecipient
) -> None:
    substitute = SecretRecipient.generate(Kem.MLKEM768_X25519)
    answer = put_key(shared_registry, certificate(substitute), node.public.id)
    assert answer.code == "statement-mismatch"
    payload = certificate(substitute).encode().replace(substitute.public.id.encode(), node.public.id.encode())
    claimed = sign_envelope(payload, publisher())
    for recipient in (node.public.id, substitute.public.id):
        assert put_key(shared_registry, claimed, recipient).code == "statement-mismatch"
    assert not {node.public.id, substitute.public.id} & keys_of(shared_registry)


def test_a_key_of_one_namespace_in_another(
    shared_registry: RunningRegistry, releases: object, node: SecretRecipient
) -> None:
    assert shared_registry.register(publisher(), "lab").status in (200, 201)
    assert put_key(shared_registry, certificate(node), node.public.id, "lab").code == "statement-mismatch"
    assert node.public.id not in keys_of(shared_registry, "lab")


# -- grants ------------------------------------------------------------------------------------------------------------


def test_a_grant_of_one_release_under_another(
    shared_registry: RunningRegistry, releases: tuple[Sealed, Sealed], node: SecretRecipient
) -> None:
    first, second = releases
    grant = first.grant(node, issued=utc_now(), expires=None)
    assert put_grant(shared_registry, grant, second.release, node.public.id).code == "grant-mismatch"
    other = SecretRecipient.generate(Kem.MLKEM768_X25519).public.id
    assert put_grant(shared_registry, grant, first.release, other).code == "grant-mismatch"
    found = shared_registry.get(f"/v1/repos/{SECRET}/grants?recipient={node.public.id}").json["items"]
    assert found == []


def test_other_statements_are_no_grants_and_grants_no_others(
    shared_registry: RunningRegistry, releases: tuple[Sealed, Sealed], node: SecretRecipient
) -> None:
    release = releases[0].release
    now = utc_now()
    tag = tag_statement(release, repository=SECRET, issued=now, expires=now + YEAR)
    envelope = sign_envelope(tag.encode(), publisher())
    key = sign_envelope(certificate(node).encode(), publisher())
    grant = sign_envelope(releases[0].grant(node, issued=now).encode(), publisher())
    assert len({predicate_type(found.payload) for found in (envelope, key, grant)}) == 3
    for wrong in (envelope, key, releases[0].envelope()):
        assert put_grant(shared_registry, wrong, release, node.public.id).code == "statement-mismatch"
    for wrong in (envelope, grant, releases[0].envelope()):
        assert put_key(shared_registry, wrong, node.public.id).code == "statement-mismatch"
    for wrong in (key, grant):
        assert shared_registry.put_envelope(wrong, SECRET, tag.tag).code == "statement-mismatch"
        assert shared_registry.post_release(wrong, SECRET).status in (403, 422)


def test_withdrawn_and_granted_again(
    shared_registry: RunningRegistry, releases: tuple[Sealed, Sealed], node: SecretRecipient
) -> None:
    sealed, recipient = releases[0], node.public.id
    path = f"/v1/repos/{SECRET}/grants/{sealed.release.hex}/{recipient}"
    assert shared_registry.get(path).code == "not-found"
    statement = sealed.grant(node, issued=utc_now(), expires=None)
    sent: list[Envelope] = []
    for sequence, wrapped in enumerate((statement.wrapped, None, statement.wrapped, None, statement.wrapped), 1):
        previous = sent[-1].payload_digest if sent else None
        following = replace(statement, sequence=sequence, previous=previous, wrapped=wrapped)
        sent.append(sign_envelope(following.encode(), publisher()))
        assert put_grant(shared_registry, sent[-1], sealed.release, recipient).status == 201
        answer = shared_registry.get(path)
        assert answer.body == sent[-1].encode()
        assert answer.headers["etag"] == f'"{sent[-1].payload_digest.hex}"'
        assert shared_registry.get(path, {"If-None-Match": answer.headers["etag"]}).status == 304
    # None of the earlier ones comes back into force, and a replayed withdrawal does not count either.
    for old in sent[:-1]:
        assert put_grant(shared_registry, old, sealed.release, recipient).status == 200
    assert shared_registry.get(path).body == sent[-1].encode()
    fork = replace(statement, sequence=2, previous=sent[0].payload_digest, wrapped=None, issued=utc_now() - YEAR)
    assert put_grant(shared_registry, fork, sealed.release, recipient).code == "sequence-used"


def test_of_fifty_at_once_one_is_recorded(
    shared_registry: RunningRegistry, releases: tuple[Sealed, Sealed], node: SecretRecipient
) -> None:
    sealed, recipient = releases[1], node.public.id
    envelopes = [
        sign_envelope(sealed.grant(node, issued=utc_now(), expires=None).encode(), publisher()) for _ in range(50)
    ]  # wrapping is randomised: fifty different payloads
    assert len({envelope.payload_digest for envelope in envelopes}) == 50
    with ThreadPoolExecutor(50) as pool:
        answers = list(
            pool.map(lambda one: put_grant(shared_registry, one, sealed.release, recipient), envelopes)
        )  # fmt: skip
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 49}
    assert {answer.code for answer in answers if answer.status == 409} == {"sequence-used"}
    [winner] = [one for one, answer in zip(envelopes, answers, strict=True) if answer.status == 201]
    path = f"/v1/repos/{SECRET}/grants/{sealed.release.hex}/{recipient}"
    assert shared_registry.get(path).body == winner.encode()


def test_strangers_see_neither_grants_nor_keys_nor_their_statements(
    shared_registry: RunningRegistry, releases: tuple[Sealed, Sealed], node: SecretRecipient
) -> None:
    sealed = releases[0]
    grant = put_grant(
        shared_registry, sealed.grant(node, issued=utc_now(), expires=None), sealed.release, node.public.id
    )
    key = put_key(shared_registry, certificate(node), node.public.id)
    statements = [Digest.parse(answer.json["digest"]).hex for answer in (grant, key)]
    reader, stranger = shared_registry.as_role("reader", "acme"), shared_registry.as_role("owner", "lab")
    for statement in statements:
        assert reader.get(f"/v1/statements/{statement}").status == 200
        assert stranger.get(f"/v1/statements/{statement}").code == "not-found"
    for path in (
        f"/v1/repos/{SECRET}/grants",
        f"/v1/repos/{SECRET}/grants/{sealed.release.hex}/{node.public.id}",
        "/v1/namespaces/acme/keys",
        f"/v1/namespaces/acme/keys/{node.public.id}",
    ):
        assert reader.get(path).status == 200
        assert stranger.get(path).code == "access-denied"


def test_listings_over_http(shared_registry: RunningRegistry, releases: tuple[Sealed, Sealed]) -> None:
    nodes = [SecretRecipient.generate(Kem.MLKEM768_X25519) for _ in range(3)]
    sealed = releases[0]
    for one in nodes:
        grant = sealed.grant(one, issued=utc_now(), expires=utc_now() + YEAR)
        assert put_grant(shared_registry, grant, sealed.release, one.public.id).status == 201
        assert put_key(shared_registry, certificate(one), one.public.id).status == 201
    for listing in (f"/v1/repos/{SECRET}/grants?release={sealed.release.hex}", "/v1/namespaces/acme/keys?x=1"):
        seen: list[str] = []
        after = ""
        while True:
            page = shared_registry.get(f"{listing}&limit=2{after}").json
            seen += [item["recipient"] for item in page["items"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert seen == sorted(seen)
        assert {one.public.id for one in nodes} <= set(seen)
        for wrong in ("limit=0", "limit=1001", "after=x", f"after={'0' * 63}"):
            assert shared_registry.get(f"{listing}&{wrong}").status in (400, 422)
    assert shared_registry.get(f"/v1/repos/{SECRET}/grants?release=x").status in (400, 422)
    found = shared_registry.get(f"/v1/repos/{SECRET}").json["releases"]
    assert [item["sealed"] for item in found] == [True, True]
