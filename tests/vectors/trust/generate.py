# SPDX-License-Identifier: Apache-2.0
"""Writes the vectors of ``trust.json.sig`` beside it (``make vectors``): signed trust files, with and without SLH-DSA.

Identities and payloads are made from labels, so that running it again gives the same. ML-DSA and SLH-DSA are hedged,
and an SLH-DSA key cannot be made from a label without an implementation: those that are there already and verify are
kept. Only what is not there, or does not verify any more, needs liboqs.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.slhdsa import SlhPublic, SlhSecret
from pq_registry.crypto.suites import Profile
from pq_registry.crypto.trustsigning import TrustSigner, verify_trust
from pq_registry.errors import PqregError
from pq_registry.format.name import Namespace
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile, TrustRoot
from pq_registry.format.trustsignature import TrustSignature, message
from tests import slhdsa_reference

HERE = Path(__file__).resolve().parent
NAME = "signatures.json"
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
LATER = datetime(2027, 11, 21, 12, 0, 0, tzinfo=UTC)
CASES = (("two signatures", Profile.LEVEL_5, False), ("three signatures", Profile.LEVEL_5, True),
         ("three signatures, level 3", Profile.LEVEL_3, True))  # fmt: skip


def labelled(label: str, length: int) -> bytes:
    """Bytes that everybody can make again: SHAKE256 of the label."""
    return hashlib.shake_256(label.encode()).digest(length)


class Root:
    """The identity of a level that signs, from labels."""

    def __init__(self, profile: Profile) -> None:
        level5 = profile is Profile.LEVEL_5
        curve: ec.EllipticCurve = ec.SECP384R1() if level5 else ec.SECP256R1()
        scalar = int.from_bytes(labelled(f"root ec {profile.level}", 48 if level5 else 32), "big") >> 1
        self._hash: hashes.HashAlgorithm = hashes.SHA384() if level5 else hashes.SHA256()
        self._ec = ec.derive_private_key(scalar, curve)
        kind = mldsa.MLDSA87PrivateKey if level5 else mldsa.MLDSA65PrivateKey
        self._pq = kind.from_seed_bytes(labelled(f"root pq {profile.level}", 32))
        spki = [key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                for key in (self._ec, self._pq)]  # fmt: skip
        self.identity = PublicIdentity(profile, *spki)

    def sign(self, signed: bytes) -> tuple[bytes, bytes]:
        """The EC half's signature, which is deterministic here, and the ML-DSA half's, which is not."""
        made = self._ec.sign(signed, ec.ECDSA(self._hash, deterministic_signing=True))
        return made, self._pq.sign(signed)


def slh_key(profile: Profile, known: dict[str, Any]) -> SlhSecret:
    """The SLH-DSA key of a level: the one that is there, or a fresh one."""
    try:
        return SlhSecret.from_bytes(profile, SecretBytes.fromhex(known["slh_secret"]))
    except (PqregError, KeyError, TypeError):
        return SlhSecret.generate(profile)


def trust_file(root: PublicIdentity, slh: SlhPublic | None) -> bytes:
    """A trust file whose only identity is its root."""
    pem = root.to_pem().decode("ascii")
    namespace = NamespaceTrust(Namespace("acme"), (TrustedIdentity(root.id, pem),), (root.id,), min_profile=3)
    return TrustFile(
        version=2, created=NOW, expires=LATER, namespaces={"acme": namespace},
        root=TrustRoot(root.id, pem, None if slh is None else slh.to_pem().decode("ascii")),
    ).encode()  # fmt: skip


def kept(known: dict[str, Any], payload: bytes, root: PublicIdentity, slh: SlhPublic | None) -> TrustSignature | None:
    """The signature file that is there, if it is of this payload and verifies."""
    try:
        signature = TrustSignature.parse(known["signature_file"].encode())
        verify_trust(payload, signature, TrustSigner(root))
    except (PqregError, KeyError):
        return None
    if (signature.slh_signature is None) != (slh is None):
        return None
    if slh is not None and signature.slh_signature is not None:
        reference = slhdsa_reference.Verifier(slh.profile.level, slh.key)
        if not reference.verify(message(payload), signature.slh_signature):
            return None
    return signature


def case(name: str, profile: Profile, with_slh: bool, known: dict[str, Any]) -> dict[str, Any]:
    """One signed trust file."""
    root = Root(profile)
    secret = slh_key(profile, known) if with_slh else None
    slh = None if secret is None else secret.public
    payload = trust_file(root.identity, slh)
    signature = kept(known, payload, root.identity, slh)
    if signature is None:
        signed = message(payload)
        signature = TrustSignature(payload, *root.sign(signed), None if secret is None else secret.sign(signed))
    return {
        "name": name,
        "level": profile.level,
        "root_id": root.identity.id,
        "root_public_file": root.identity.to_pem().decode("ascii"),
        "slh_id": None if slh is None else slh.id,
        "slh_public_file": None if slh is None else slh.to_pem().decode("ascii"),
        "slh_secret": None if secret is None else secret.secret().hex(),
        "trust_file": payload.decode(),
        "message_sha256": hashlib.sha256(message(payload)).hexdigest(),
        "signature_file": signature.encode().decode("ascii"),
    }


def main() -> None:
    """Write them."""
    path = HERE / NAME
    known = {one["name"]: one for one in json.loads(path.read_text("utf-8"))} if path.exists() else {}
    cases = [case(name, profile, with_slh, known.get(name, {})) for name, profile, with_slh in CASES]
    path.write_text(json.dumps(cases, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
