# SPDX-License-Identifier: Apache-2.0
"""The keys of a trust file: what is refused when they are loaded, and which of them an envelope matches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import pytest

from pq_registry.crypto.openssl import OpenSslProvider
from pq_registry.crypto.signing import sign_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.crypto.trustkeys import TrustStore
from pq_registry.errors import FormatError, SignatureInvalid, UntrustedSigner
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Namespace
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile
from pqreg_keys import custody
from pqreg_keys.custody import SecretIdentity

ALICE, BOB, CAROL = custody.generate(), custody.generate(), custody.generate(Profile.LEVEL_3)
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def trusted(secret: SecretIdentity, *, pem: str | None = None) -> TrustedIdentity:
    return TrustedIdentity(secret.identity.id, secret.identity.to_pem().decode() if pem is None else pem)


def trust(**namespaces: list[TrustedIdentity]) -> TrustFile:
    entries = {
        name: NamespaceTrust(Namespace(name), tuple(items), tuple(item.id for item in items), 3)
        for name, items in namespaces.items()
    }
    return TrustFile(version=1, created=START, expires=END, namespaces=entries)


class Counting(OpenSslProvider):
    """The real provider, counting."""

    def __init__(self) -> None:
        self.pq = 0

    def verify_mldsa(self, profile: Profile, spki: bytes, message: bytes, signature: bytes) -> Literal[True]:
        self.pq += 1
        return super().verify_mldsa(profile, spki, message, signature)


def test_every_pair_that_verifies_is_kept() -> None:
    store = TrustStore.from_trust_file(trust(acme=[trusted(ALICE), trusted(BOB)], other=[trusted(ALICE)]))
    kept = store.matching(sign_envelope(b"{}", ALICE))
    assert [(str(pair.namespace), pair.identity.id) for pair in kept] == [
        ("acme", ALICE.identity.id),
        ("other", ALICE.identity.id),
    ]
    assert [pair.trusted.id for pair in store.identities(Namespace("ACME"))] == [
        ALICE.identity.id,
        BOB.identity.id,
    ]
    assert store.identities(Namespace("nobody")) == ()


def test_identities_of_both_profiles_live_together() -> None:
    store = TrustStore.from_trust_file(trust(acme=[trusted(ALICE), trusted(CAROL)]))
    (pair,) = store.matching(sign_envelope(b"{}", CAROL))
    assert pair.identity.profile is Profile.LEVEL_3


def test_a_strangers_envelope_is_refused() -> None:
    store = TrustStore.from_trust_file(trust(acme=[trusted(ALICE)]))
    with pytest.raises(UntrustedSigner) as caught:
        store.matching(sign_envelope(b"{}", BOB))
    assert caught.value.step == 2
    with pytest.raises(UntrustedSigner):
        TrustStore(()).matching(sign_envelope(b"{}", ALICE))


@pytest.mark.parametrize(("half", "name"), [(0, "EC half"), (1, "post-quantum half")])
def test_the_half_that_is_wrong_is_named(half: int, name: str) -> None:
    genuine, foreign = sign_envelope(b"{}", ALICE), sign_envelope(b"{}", BOB)
    halves = [genuine.ec_signature, genuine.pq_signature]
    halves[half] = (foreign.ec_signature, foreign.pq_signature)[half]
    store = TrustStore.from_trust_file(trust(acme=[trusted(ALICE)]))
    with pytest.raises(SignatureInvalid, match=f"the {name} of the signature is invalid; the other half is genuine"):
        store.matching(Envelope(b"{}", halves[0], halves[1]))


def test_halves_of_two_trusted_identities_do_not_add_up() -> None:
    alice, bob = sign_envelope(b"{}", ALICE), sign_envelope(b"{}", BOB)
    store = TrustStore.from_trust_file(trust(acme=[trusted(ALICE), trusted(BOB)]))
    with pytest.raises(SignatureInvalid):
        store.matching(Envelope(b"{}", alice.ec_signature, bob.pq_signature))


def test_identities_that_cannot_match_cost_one_verification() -> None:
    crowd = [trusted(custody.generate()) for _ in range(5)]
    provider = Counting()
    store = TrustStore.from_trust_file(trust(acme=[*crowd, trusted(ALICE)]), provider=provider)
    store.matching(sign_envelope(b"{}", ALICE))
    assert provider.pq == 1


def test_an_id_that_is_not_that_of_the_keys_is_refused() -> None:
    with pytest.raises(FormatError, match="namespace acme"):
        TrustStore.from_trust_file(trust(acme=[trusted(ALICE, pem=BOB.identity.to_pem().decode())]))


@pytest.mark.parametrize("pem", ["junk", "-----BEGIN PUBLIC KEY-----\n", "schlüssel", ALICE.identity.ec_pem.decode()])
def test_a_pem_that_is_no_identity_is_named(pem: str) -> None:
    with pytest.raises(FormatError, match=f"namespace acme: identity {ALICE.identity.id}"):
        TrustStore.from_trust_file(trust(acme=[trusted(ALICE, pem=pem)]))
