# SPDX-License-Identifier: Apache-2.0
"""The second provider: ML-DSA and ML-KEM of liboqs against OpenSSL's, in both directions, and SLH-DSA."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem

from pq_registry.crypto import liboqs, slhdsa
from pq_registry.crypto.liboqs import LibOqsProvider, MlKem
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.providers import provider_named
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.signing import sign_envelope, verify_envelope
from pq_registry.crypto.slhdsa import SlhPublic, SlhSecret
from pq_registry.crypto.suites import Profile
from pq_registry.errors import FormatError, ProviderUnavailable, SettingError, SignatureInvalid
from pqreg_keys import custody
from tests import slhdsa_reference
from tests.oqs_site import library, needs_liboqs

pytestmark = needs_liboqs
MESSAGE = b"the same message for both"
KEMS: dict[int, Any] = {768: mlkem.MLKEM768PrivateKey, 1024: mlkem.MLKEM1024PrivateKey}


@pytest.fixture(scope="module")
def provider() -> LibOqsProvider:
    return LibOqsProvider(library())


@pytest.mark.parametrize("profile", Profile)
def test_liboqs_verifies_what_openssl_signed(provider: LibOqsProvider, profile: Profile) -> None:
    key = OPENSSL.generate(profile, "pq")
    signature = key.sign(MESSAGE)
    assert provider.verify_mldsa(profile, key.spki, MESSAGE, signature) is True
    for message, damaged in ((MESSAGE + b".", signature), (MESSAGE, bytes(len(signature))), (MESSAGE, signature[:-1])):
        with pytest.raises(SignatureInvalid):
            provider.verify_mldsa(profile, key.spki, message, damaged)


@pytest.mark.parametrize("profile", Profile)
def test_openssl_verifies_what_liboqs_signed(profile: Profile) -> None:
    oqs: Any = liboqs.load(library())
    with oqs.Signature(profile.pq.algorithm) as signer:
        public = signer.generate_keypair()
        signature = signer.sign(MESSAGE)
    spki = profile.pq.spki_prefix + public
    assert OPENSSL.verify_mldsa(profile, spki, MESSAGE, signature) is True
    with pytest.raises(SignatureInvalid):
        OPENSSL.verify_mldsa(profile, spki, MESSAGE + b".", signature)


def test_a_context_is_refused_by_liboqs_too(provider: LibOqsProvider) -> None:
    key = mldsa.MLDSA87PrivateKey.generate()
    spki = Profile.LEVEL_5.pq.spki_prefix + key.public_key().public_bytes_raw()
    with pytest.raises(SignatureInvalid):
        provider.verify_mldsa(Profile.LEVEL_5, spki, MESSAGE, key.sign(MESSAGE, b"context"))


@pytest.mark.parametrize("profile", Profile)
def test_envelopes_verify_with_either_provider(provider: LibOqsProvider, profile: Profile) -> None:
    alice, bob = custody.generate(profile), custody.generate(profile)
    envelope = sign_envelope(b"{}", alice)
    verify_envelope(envelope, alice.identity, provider=provider)
    with pytest.raises(SignatureInvalid, match="both halves"):
        verify_envelope(envelope, bob.identity, provider=provider)
    assert provider_named("openssl") is OPENSSL
    assert provider_named("liboqs").name == "liboqs"
    with pytest.raises(SettingError):
        provider_named("both")


def test_the_wrong_key_is_an_error_not_a_short_read(provider: LibOqsProvider) -> None:
    key = OPENSSL.generate(Profile.LEVEL_5, "pq")
    with pytest.raises(FormatError):
        provider.verify_mldsa(Profile.LEVEL_5, key.spki[:-1], MESSAGE, key.sign(MESSAGE))
    with pytest.raises(FormatError):
        provider.verify_mldsa(Profile.LEVEL_3, key.spki, MESSAGE, key.sign(MESSAGE))


@pytest.mark.parametrize("parameters", [768, 1024])
def test_ml_kem_agrees_in_both_directions(parameters: Literal[768, 1024]) -> None:
    seed = secrets.token_bytes(64)
    theirs = KEMS[parameters].from_seed_bytes(seed)
    ours = MlKem(parameters, library())
    public, secret = ours.key_pair(seed)
    assert public == theirs.public_key().public_bytes_raw()
    shared, ciphertext = ours.encapsulate(public)
    assert theirs.decapsulate(ciphertext) == shared
    shared, ciphertext = theirs.public_key().encapsulate()
    assert ours.decapsulate(secret, ciphertext) == shared
    assert ours.decapsulate(secret, bytes(len(ciphertext))) != shared  # implicit rejection, no error


@pytest.fixture(scope="module", params=list(Profile), ids=str)
def slh(request: pytest.FixtureRequest) -> SlhSecret:
    library()
    return SlhSecret.generate(request.param)


def test_slh_dsa_signs_and_verifies(slh: SlhSecret) -> None:
    signature = slh.sign(MESSAGE)
    assert len(signature) == slh.public.suite.signature_bytes
    slh.public.verify(MESSAGE, signature)
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    other = SlhSecret.generate(slh.public.profile).public
    for public, message, made in (
        (slh.public, MESSAGE + b".", signature),
        (slh.public, MESSAGE, flipped),
        (slh.public, MESSAGE, signature[:-1]),
        (other, MESSAGE, signature),
    ):
        with pytest.raises(SignatureInvalid, match="SLH-DSA signature is invalid"):
            public.verify(message, made)


def test_slh_dsa_is_that_of_fips_205(slh: SlhSecret) -> None:
    """A second implementation, from the standard alone, accepts our signatures and nothing near them."""
    signature = slh.sign(MESSAGE)
    reference = slhdsa_reference.Verifier(slh.public.profile.level, slh.public.key)
    assert reference.verify(MESSAGE, signature)
    assert not reference.verify(MESSAGE + b".", signature)
    assert not reference.verify(MESSAGE, signature, b"context")
    assert not reference.verify(MESSAGE, signature[:-1] + bytes([signature[-1] ^ 1]))


def test_slh_dsa_public_files_are_what_was_written(slh: SlhSecret) -> None:
    pem = slh.public.to_pem()
    assert SlhPublic.from_pem(pem) == slh.public
    for damaged in (pem + b"\n", pem.replace(b"\n", b"\r\n"), pem * 2, pem[:-1], custody.generate().identity.pq_pem):
        with pytest.raises(FormatError):
            SlhPublic.from_pem(damaged)


def test_slh_dsa_secret_keys_survive_their_bytes(slh: SlhSecret) -> None:
    again = SlhSecret.from_bytes(slh.public.profile, slh.secret())
    assert again.public == slh.public
    assert slh.secret().hex() not in repr(slh)
    with pytest.raises(FormatError):
        SlhSecret.from_bytes(slh.public.profile, SecretBytes(slh.secret()[:-1]))


def test_a_library_that_answers_anything_but_yes_is_a_refusal(slh: SlhSecret, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def verify(self, *_: object) -> object:
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

    signature = bytes(slh.public.suite.signature_bytes)
    for answer in (None, 1, 0, "yes", False, SystemExit(0), ValueError()):
        monkeypatch.setattr(slhdsa, "_backend", lambda *_, answer=answer: Odd(answer))
        with pytest.raises(SignatureInvalid):
            slh.public.verify(MESSAGE, signature)


def test_a_file_that_is_no_library_is_an_error_of_ours(tmp_path: Path) -> None:
    junk = tmp_path / "liboqs.so"
    junk.write_bytes(b"\x7fELF, or so it says")
    with pytest.raises(ProviderUnavailable, match="cannot be loaded"):
        LibOqsProvider(junk)
