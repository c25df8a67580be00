# SPDX-License-Identifier: Apache-2.0
"""The pure verifier: every refusal of steps 0 to 6, each with its class and its step."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pq_registry.client.trust import SeenTag, Verifier, target_of
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    DigestMismatch,
    FormatError,
    IdentityLapsed,
    ManifestMismatch,
    NameMismatch,
    PqregError,
    ProfileTooLow,
    SignatureInvalid,
    StatementMismatch,
    StatusUnavailable,
    TagEquivocation,
    TagExpired,
    TagRollback,
    TagWithdrawn,
    TrustExpired,
    TrustMissing,
    UntrustedSigner,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Reference, RepositoryName
from pq_registry.format.release import statement_of
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from tests import samples
from tests.samples import NOW, REPOSITORY, YEAR, namespace_trust, publisher, trust_file, trusted

SECOND = timedelta(seconds=1)
V1 = Reference.parse("acme/minilm:v1")
TARGET = Digest("ab" * 32)


def verifier(trust: TrustFile | None = None, *, now=NOW, online: bool = True) -> Verifier:
    return Verifier((trust or trust_file()).encode(), now, online=online)


def check_release(
    judge: Verifier,
    envelope: Envelope,
    manifest_bytes: bytes,
    *,
    name: RepositoryName | None = REPOSITORY,
    digest: Digest | None = None,
):
    return judge.release(envelope.encode(), manifest_bytes, expected_name=name, expected_digest=digest)


def refused(kind: type[PqregError], step: int) -> pytest.RaisesExc[PqregError]:
    return pytest.raises(kind, check=lambda error: error.step == step)


def sign_tag(statement: TagStatement, name: str = "alice") -> bytes:
    return sign_envelope(statement.encode(), publisher(name)).encode()


# -- step 0 ------------------------------------------------------------------------------------------------------------
def test_without_trust_nothing_is_believed() -> None:
    with refused(TrustMissing, 0) as caught:
        Verifier(None, NOW, online=True)
    assert "pqreg trust init" in (caught.value.hint or "")


def test_malformed_trust_is_step_0() -> None:
    with refused(FormatError, 0):
        Verifier(b"{}", NOW, online=True)


@pytest.mark.parametrize(("online", "grace"), [(True, 0), (True, 7), (False, 0)])
def test_expired_trust(online: bool, grace: int) -> None:
    trust = trust_file(grace_days=grace)
    verifier(trust, now=trust.expires - SECOND, online=online)
    with refused(TrustExpired, 0):
        verifier(trust, now=trust.expires, online=online)


def test_grace_is_for_those_who_are_offline() -> None:
    trust = trust_file(grace_days=7)
    verifier(trust, now=trust.expires + timedelta(days=7) - SECOND, online=False)
    with refused(TrustExpired, 0):
        verifier(trust, now=trust.expires + timedelta(days=7), online=False)


# -- releases: steps 2 to 6 --------------------------------------------------------------------------------------------
def test_a_genuine_release_passes_and_says_what_was_not_checked() -> None:
    envelope, manifest_bytes = samples.release()
    verified = check_release(verifier(), envelope, manifest_bytes, digest=envelope.payload_digest)
    assert verified.release.digest == envelope.payload_digest
    assert verified.signer == publisher().identity
    assert [note.split(":")[0] for note in verified.notes] == ["transparency log", "revocation"]


def test_a_stranger_is_not_believed() -> None:
    envelope, manifest_bytes = samples.release(signer=publisher("mallory"))
    with refused(UntrustedSigner, 2):
        check_release(verifier(), envelope, manifest_bytes)


@pytest.mark.parametrize("half", ["ec_signature", "pq_signature"])
def test_one_genuine_half_is_not_enough(half: str) -> None:
    envelope, manifest_bytes = samples.release()
    again, _ = samples.release(files={"other": b""})
    with refused(SignatureInvalid, 2) as caught:
        check_release(verifier(), replace(envelope, **{half: getattr(again, half)}), manifest_bytes)
    assert ("EC" if half == "ec_signature" else "post-quantum") in caught.value.message


def test_an_identity_of_another_namespace_may_not_sign_for_this_one() -> None:
    trust = trust_file(namespace_trust(publisher("alice")), namespace_trust(publisher("bob"), name="rival"))
    envelope, manifest_bytes = samples.release(signer=publisher("bob"))
    with refused(UntrustedSigner, 2):
        check_release(verifier(trust), envelope, manifest_bytes)


def test_only_publishers_sign_releases() -> None:
    entry = namespace_trust(publisher("alice"), publisher("revoker"))
    entry = replace(entry, publishers=entry.publishers[:1], revokers=entry.publishers[1:])
    envelope, manifest_bytes = samples.release(signer=publisher("revoker"))
    with refused(UntrustedSigner, 2):
        check_release(verifier(trust_file(entry)), envelope, manifest_bytes)


def test_the_stated_signer_must_be_the_one_who_signed() -> None:
    trust = trust_file(namespace_trust(publisher("alice"), publisher("bob")))
    made = samples.manifest(signer=publisher("alice"))
    data = made.encode()
    envelope = sign_envelope(statement_of(made, data).encode(), publisher("bob"))
    with refused(UntrustedSigner, 2):
        check_release(verifier(trust), envelope, data)


def test_a_namespace_the_trust_file_does_not_know() -> None:
    envelope, manifest_bytes = samples.release(name=RepositoryName.parse("other/minilm"))
    with refused(TrustMissing, 0):
        check_release(verifier(), envelope, manifest_bytes, name=None)


def test_another_manifest_is_refused_before_it_is_parsed() -> None:
    envelope, _ = samples.release()
    with refused(ManifestMismatch, 3):
        check_release(verifier(), envelope, b"not even JSON")


def test_a_tag_statement_is_not_a_release() -> None:
    envelope = Envelope.parse(sign_tag(samples.tag_statement(TARGET)))
    with refused(StatementMismatch, 3):
        check_release(verifier(), envelope, b"{}")


def test_min_profile() -> None:
    weak = publisher("weak", 3)
    envelope, manifest_bytes = samples.release(signer=weak)
    entry = namespace_trust(weak)
    check_release(verifier(trust_file(entry)), envelope, manifest_bytes)
    with refused(ProfileTooLow, 3):
        check_release(verifier(trust_file(replace(entry, min_profile=5))), envelope, manifest_bytes)


def test_validity_window_and_pin() -> None:
    alice = publisher()
    entry = replace(namespace_trust(alice), identities=(trusted(alice, NOW, NOW + SECOND),))
    envelope, manifest_bytes = samples.release()
    check_release(verifier(trust_file(entry)), envelope, manifest_bytes)
    for now in (NOW - SECOND, NOW + SECOND):
        with refused(IdentityLapsed, 4):
            check_release(verifier(trust_file(entry), now=now), envelope, manifest_bytes)
    pinned = replace(entry, pinned=frozenset({envelope.payload_digest}))
    check_release(verifier(trust_file(pinned), now=NOW + YEAR / 2), envelope, manifest_bytes)


def test_without_a_status_statement_the_place_and_the_trust_file_decide() -> None:
    entry = namespace_trust(publisher())
    entry = replace(entry, revokers=entry.publishers)
    envelope, manifest_bytes = samples.release()
    verified = check_release(verifier(trust_file(entry), online=False), envelope, manifest_bytes)
    assert any("no status statement" in note for note in verified.unchecked)
    with refused(StatusUnavailable, 5):
        check_release(verifier(trust_file(entry, offline_status="require"), online=False), envelope, manifest_bytes)
    with refused(StatusUnavailable, 5):
        check_release(verifier(trust_file(entry)), envelope, manifest_bytes)


def test_expectations_are_enforced() -> None:
    envelope, manifest_bytes = samples.release()
    with refused(NameMismatch, 6):
        check_release(verifier(), envelope, manifest_bytes, name=RepositoryName.parse("acme/other"))
    with refused(DigestMismatch, 6):
        check_release(verifier(), envelope, manifest_bytes, digest=TARGET)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 10_000, b'{"payload":""}'])
def test_junk_is_step_2(data: bytes) -> None:
    with refused(FormatError, 2):
        verifier().release(data, b"", expected_name=None, expected_digest=None)


# -- tags: step 1 ------------------------------------------------------------------------------------------------------
def test_a_genuine_tag_leads_to_its_target() -> None:
    statement = verifier().tag(sign_tag(samples.tag_statement(TARGET)), V1, None)
    assert target_of(statement) == TARGET


def test_tag_of_another_name() -> None:
    with refused(StatementMismatch, 3):
        verifier().tag(sign_tag(samples.tag_statement(TARGET)), Reference.parse("acme/minilm:v2"), None)


def test_tag_signed_by_a_stranger() -> None:
    with refused(UntrustedSigner, 2):
        verifier().tag(sign_tag(samples.tag_statement(TARGET), "mallory"), V1, None)


def test_expired_tag() -> None:
    envelope = sign_tag(samples.tag_statement(TARGET, expires=NOW + SECOND))
    verifier().tag(envelope, V1, None)
    with refused(TagExpired, 1):
        verifier(now=NOW + SECOND).tag(envelope, V1, None)
    lenient = trust_file(grace_days=1)
    verifier(lenient, now=NOW + SECOND, online=False).tag(envelope, V1, None)


def test_a_tag_from_the_future() -> None:
    envelope = sign_tag(samples.tag_statement(TARGET, issued=NOW + timedelta(seconds=300)))
    verifier().tag(envelope, V1, None)
    with refused(StatementMismatch, 3):
        verifier(now=NOW - SECOND).tag(envelope, V1, None)


def test_rollback_and_equivocation() -> None:
    statement = samples.tag_statement(TARGET, sequence=5, previous=TARGET)
    payload = Digest.of(statement.encode())
    envelope = sign_tag(statement)
    for seen in (None, SeenTag(4, TARGET), SeenTag(5, payload)):
        verifier().tag(envelope, V1, seen)
    with refused(TagRollback, 1):
        verifier().tag(envelope, V1, SeenTag(6, TARGET))
    with refused(TagEquivocation, 1):
        verifier().tag(envelope, V1, SeenTag(5, TARGET))


def test_a_withdrawn_tag_is_remembered_but_leads_nowhere() -> None:
    statement = verifier().tag(sign_tag(samples.tag_statement(None, sequence=2, previous=TARGET)), V1, None)
    with refused(TagWithdrawn, 1):
        target_of(statement)
