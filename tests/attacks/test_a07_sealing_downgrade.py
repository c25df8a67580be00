# SPDX-License-Identifier: Apache-2.0
"""A7, downgrade, for sealing: no document chooses an algorithm, and a sealed release is never read as a plain one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient
from pq_registry.crypto.signing import sign_envelope, verify_envelope
from pq_registry.errors import FormatError, GrantInvalid, SignatureInvalid, StatementMismatch
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import Namespace
from pq_registry.format.recipientfile import Kem, encode_file
from tests.format_samples import changed, put
from tests.samples import NOW, publisher
from tests.sealing_samples import seal

NODES = {kem: SecretRecipient.generate(kem) for kem in Kem}
SEALED = seal({"a": b"secret"})
GRANT = SEALED.grant(NODES[Kem.MLKEM1024_P384])


@pytest.mark.parametrize("half", ["ec", "pq"])
def test_a7_a_grant_needs_both_halves(half: str) -> None:
    envelope = sign_envelope(GRANT.encode(), publisher())
    verify_envelope(envelope, publisher().identity)
    other = sign_envelope(replace(GRANT, expires=None).encode(), publisher())
    mixed = (
        Envelope(envelope.payload, other.ec_signature, envelope.pq_signature)
        if half == "ec"
        else Envelope(envelope.payload, envelope.ec_signature, other.pq_signature)
    )
    with pytest.raises(SignatureInvalid):
        verify_envelope(mixed, publisher().identity)


@pytest.mark.parametrize("field", ["kem", "kem_id", "kdf_id", "aead_id", "suite", "alg", "profile"])
def test_a7_a_grant_names_no_algorithm(field: str) -> None:
    with pytest.raises(FormatError, match="unknown fields"):
        GrantStatement.parse(changed(GRANT.encode(), put("predicate", field, value=1)))


def test_a7_what_was_wrapped_at_one_level_opens_at_no_other() -> None:
    low = NODES[Kem.MLKEM768_X25519]
    wrapped = low.public.wrap(SEALED.content_key, SEALED.release)
    for key in (NODES[Kem.MLKEM1024_P384], SecretRecipient(Kem.MLKEM1024_P384, low.seed())):
        with pytest.raises(GrantInvalid):
            key.unwrap(wrapped, SEALED.release)


def test_a7_half_of_a_wrapped_key_does_not_open() -> None:
    # Either half of the hybrid replaced by one whose secret the attacker knows.
    high = NODES[Kem.MLKEM1024_P384]
    one, two = (high.public.wrap(SEALED.content_key, SEALED.release) for _ in range(2))
    for mixed in (one[:1568] + two[1568:], two[:1568] + one[1568:1665] + two[1665:]):
        with pytest.raises(GrantInvalid):
            high.unwrap(mixed, SEALED.release)


def test_a7_a_recipient_cannot_be_relabelled() -> None:
    public = NODES[Kem.MLKEM1024_P384].public
    lattice_only = public.public_key[:1568]
    for kem, key in (
        (Kem.MLKEM768_X25519, public.public_key),
        (Kem.MLKEM1024_P384, lattice_only),
        (Kem.MLKEM1024_P384, lattice_only + bytes(97)),
    ):
        with pytest.raises(FormatError):
            PublicRecipient(kem, key)
        with pytest.raises(FormatError):
            PublicRecipient.from_file(encode_file(kem, key))


def test_a7_a_certificate_cannot_be_relabelled() -> None:
    statement = KeyStatement(
        signer=publisher().identity.id, namespace=Namespace("acme"), node="n", kem=Kem.MLKEM1024_P384,
        public_key=NODES[Kem.MLKEM1024_P384].public.public_key, issued=NOW, not_after=None,
    )  # fmt: skip
    with pytest.raises((FormatError, StatementMismatch)):
        KeyStatement.parse(changed(statement.encode(), put("predicate", "kem_id", value=Kem.MLKEM768_X25519.value)))


def test_a7_a_sealed_release_is_not_read_as_a_plain_one() -> None:
    value = json.loads(SEALED.manifest_bytes)
    assert value["sealing"] is not None
    with pytest.raises(FormatError):
        Manifest.parse(changed(SEALED.manifest_bytes, put("sealing", value=None)))
    with pytest.raises(FormatError):
        Manifest.parse(changed(SEALED.manifest_bytes, put("sealing", "cipher", value="none")))
