# SPDX-License-Identifier: Apache-2.0
"""A3, trust by key id (CVE-2025-24976): keys are matched by their material; no name in any document selects one."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.signing import sign_envelope, verify_envelope
from pq_registry.crypto.trustkeys import TrustStore
from pq_registry.errors import FormatError, SignatureInvalid, UntrustedSigner
from pq_registry.format.bundle import encode_bundle, envelope_from_bundles, parse_bundle
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Namespace
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile
from pqreg_keys import custody

ALICE, MALLORY = custody.generate(), custody.generate()
PAYLOAD = b"{}"


def store_of(identity_id: str, identity: PublicIdentity) -> TrustStore:
    trusted = TrustedIdentity(identity_id, identity.to_pem().decode())
    return TrustStore.from_trust_file(
        TrustFile(
            version=1,
            created=datetime(2026, 1, 1, tzinfo=UTC),
            expires=datetime(2027, 1, 1, tzinfo=UTC),
            namespaces={"acme": NamespaceTrust(Namespace("acme"), (trusted,), (identity_id,), 5)},
        )
    )


def rewritten(envelope: Envelope, keyid: str) -> bytes:
    document = json.loads(envelope.encode())
    for entry in document["signatures"]:
        entry["keyid"] = keyid
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def test_a3_mallorys_signature_under_alices_name_is_refused() -> None:
    forged = sign_envelope(PAYLOAD, MALLORY)
    with pytest.raises(UntrustedSigner):
        store_of(ALICE.identity.id, ALICE.identity).matching(forged)
    for keyid in (ALICE.identity.id, *ALICE.identity.half_ids, "alice"):
        with pytest.raises(FormatError):
            Envelope.parse(rewritten(forged, keyid))


def test_a3_alices_id_over_mallorys_keys_does_not_load() -> None:
    with pytest.raises(FormatError, match="id is not that of its keys"):
        store_of(ALICE.identity.id, MALLORY.identity)


def test_a3_a_bundles_hint_selects_nothing() -> None:
    """Alice's hint on Mallory's signature is still Mallory's; Mallory's hint on Alice's is still Alice's."""
    for signer, hinted in ((MALLORY, ALICE), (ALICE, MALLORY)):
        envelope = sign_envelope(PAYLOAD, signer)
        ec = encode_bundle(envelope, "ec", hinted.identity.ec_pem)
        pq = encode_bundle(envelope, "pq", hinted.identity.pq_pem)
        assert parse_bundle(ec).hint == parse_bundle(encode_bundle(envelope, "ec", hinted.identity.ec_pem)).hint
        again = envelope_from_bundles(ec, pq)
        verify_envelope(again, signer.identity)
        with pytest.raises(SignatureInvalid):
            verify_envelope(again, hinted.identity)
        store = store_of(ALICE.identity.id, ALICE.identity)
        if signer is ALICE:
            assert [pair.identity for pair in store.matching(again)] == [ALICE.identity]
        else:
            with pytest.raises(UntrustedSigner):
                store.matching(again)


@pytest.mark.parametrize("extra", ["x509CertificateChain", "certificate"])
def test_a3_a_bundle_cannot_bring_its_own_key(extra: str) -> None:
    envelope = sign_envelope(PAYLOAD, MALLORY)
    document = json.loads(encode_bundle(envelope, "ec", MALLORY.identity.ec_pem))
    document["verificationMaterial"][extra] = {"rawBytes": ""}
    with pytest.raises(FormatError):
        parse_bundle(json.dumps(document).encode())


def test_a3_an_envelope_cannot_bring_its_own_key() -> None:
    document = json.loads(sign_envelope(PAYLOAD, MALLORY).encode())
    document["signatures"][0]["publicKey"] = MALLORY.identity.ec_pem.decode()
    with pytest.raises(FormatError):
        Envelope.parse(json.dumps(document, separators=(",", ":"), sort_keys=True).encode())
