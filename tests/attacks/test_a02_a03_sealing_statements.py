# SPDX-License-Identifier: Apache-2.0
"""A2 and A3 for grants and certificates: no statement passes for one of another kind, and no id is believed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.crypto.trustkeys import TrustStore
from pq_registry.errors import FormatError, GrantInvalid, StatementMismatch, UntrustedSigner
from pq_registry.format.digest import Digest
from pq_registry.format.grant import GrantStatement
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.name import Namespace
from pq_registry.format.recipientfile import Kem
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.tag import TagStatement
from tests.format_samples import changed, put
from tests.samples import NOW, publisher, tag_statement, trust_file
from tests.sealing_samples import seal

NODE = SecretRecipient.generate(Kem.MLKEM768_X25519)
SEALED = seal({"a": b"secret"})
GRANT = SEALED.grant(NODE)
CERTIFICATE = KeyStatement(
    signer=publisher().identity.id, namespace=Namespace("acme"), node="node1", kem=NODE.public.kem,
    public_key=NODE.public.public_key, issued=NOW, not_after=None,
)  # fmt: skip
KINDS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "release": (SEALED.payload, ReleaseStatement.parse),
    "tag": (tag_statement(SEALED.release).encode(), TagStatement.parse),
    "grant": (GRANT.encode(), GrantStatement.parse),
    "key": (CERTIFICATE.encode(), KeyStatement.parse),
}


@pytest.mark.parametrize(("made", "read"), list(permutations(KINDS, 2)))
def test_a2_a_statement_of_one_kind_is_none_of_another(made: str, read: str) -> None:
    KINDS[made][1](KINDS[made][0])
    with pytest.raises(StatementMismatch):
        KINDS[read][1](KINDS[made][0])


@pytest.mark.parametrize(("made", "read"), list(permutations(KINDS, 2)))
def test_a2_relabelling_the_predicate_is_not_enough(made: str, read: str) -> None:
    kind = {"release": "https://model_signing/signature/v1.0"}.get(read, f"urn:pq-registry:{read}:v1")
    with pytest.raises((FormatError, StatementMismatch)):
        KINDS[read][1](changed(KINDS[made][0], put("predicateType", value=kind)))


def test_a2_wrapped_keys_are_wrapped_for_a_grant_and_nothing_else() -> None:
    from cryptography.hazmat.primitives import hpke

    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    public = NODE._key.public_key()
    bound = SEALED.release.raw + bytes.fromhex(NODE.public.id)
    right = suite.encrypt(SEALED.content_key, public, info=b"pqreg/v1/grant\0" + bound)
    assert NODE.unwrap(right, SEALED.release) == SEALED.content_key
    for info in (b"", b"pqreg/v1/grant" + bound, b"pqreg/v2/grant\0" + bound, b"pqreg/v1/grant\0" + bound[:32], bound):
        with pytest.raises(GrantInvalid):
            NODE.unwrap(suite.encrypt(SEALED.content_key, public, info=info), SEALED.release)


@pytest.mark.parametrize("payload", [GRANT.encode(), CERTIFICATE.encode()], ids=["grant", "key"])
def test_a3_a_strangers_statement_in_a_publishers_name_is_refused(payload: bytes) -> None:
    store = TrustStore.from_trust_file(trust_file())
    assert [pair.identity.id for pair in store.matching(sign_envelope(payload, publisher()))] == [
        publisher().identity.id
    ]
    with pytest.raises(UntrustedSigner):
        store.matching(sign_envelope(payload, publisher("mallory")))


def test_a3_a_certificate_is_of_the_key_in_it() -> None:
    mallory = SecretRecipient.generate(Kem.MLKEM768_X25519)
    for change in (
        put("subject", 0, "name", value=mallory.public.id),
        put("subject", 0, "digest", "sha256", value=mallory.public.id),
        put("predicate", "recipient", value=mallory.public.id),
    ):
        with pytest.raises(StatementMismatch):
            KeyStatement.parse(changed(CERTIFICATE.encode(), change))
    assert Digest(CERTIFICATE.recipient).hex == NODE.public.id
