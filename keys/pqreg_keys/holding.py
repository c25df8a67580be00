# SPDX-License-Identifier: Apache-2.0
"""Secret keys in this process's memory, and how fresh ones are made. No files; ``custody`` reads and writes those.

A ``SecretIdentity`` shows its id and nothing else: not in ``repr``, not in a traceback, and it cannot be pickled.
"""

from __future__ import annotations

import secrets
from typing import NoReturn

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import PrivateHalf, Provider
from pq_registry.crypto.recipient import SecretRecipient, kem_for
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.slhdsa import SlhSecret
from pq_registry.crypto.suites import DEFAULT_PROFILE, Profile, profile_of
from pqreg_keys import pkcs11
from pqreg_keys.material import (
    RECIPIENT_SEED_BYTES,
    KeyMaterial,
    Material,
    RecipientMaterial,
    SlhMaterial,
    TokenMaterial,
)
from pqreg_keys.pkcs11 import TokenAccess, TokenEcHalf, TokenKey


class SecretIdentity:
    """A signer whose keys are in this process's memory. Implements ``crypto.signing.Signer``."""

    __slots__ = ("_ec", "_identity", "_pq", "_recipient_seed")

    def __init__(self, profile: Profile, ec: PrivateHalf, pq: PrivateHalf, recipient_seed: SecretBytes) -> None:
        self._identity = PublicIdentity(profile, ec.spki, pq.spki)
        self._ec = ec
        self._pq = pq
        self._recipient_seed = recipient_seed

    @property
    def identity(self) -> PublicIdentity:
        """The public part."""
        return self._identity

    @property
    def recipient(self) -> SecretRecipient:
        """Its own recipient key, of the same profile."""
        return SecretRecipient(kem_for(self._identity.profile), self._recipient_seed)

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        """The EC half's signature (DER) and the post-quantum half's over ``message``."""
        return self._ec.sign(message), self._pq.sign(message)

    def material(self) -> KeyMaterial:
        """What is written to a key file that holds all of it; the caller wipes it.

        Raises:
            KeyCustodyError: if the EC half is in a PKCS#11 token.
        """
        return KeyMaterial(
            profile=self._identity.profile,
            identity_id=self._identity.id,
            ec_pkcs8=self._ec.pkcs8(),
            pq_pkcs8=self._pq.pkcs8(),
            recipient_seed=SecretBytes(self._recipient_seed),
        )

    def token_material(self) -> TokenMaterial | None:
        """What is written to the key file of an identity whose EC half is in a token; None for any other."""
        if not isinstance(self._ec, TokenEcHalf):
            return None
        return TokenMaterial(
            profile=self._identity.profile,
            identity_id=self._identity.id,
            uri=self._ec.key.uri,
            ec_spki=self._ec.spki,
            pq_pkcs8=self._pq.pkcs8(),
            recipient_seed=SecretBytes(self._recipient_seed),
        )

    def __repr__(self) -> str:
        # Also while __init__ runs: a traceback that shows locals must not fail on the way.
        identity = getattr(self, "_identity", None)
        return f"<SecretIdentity {identity.id if identity else 'in the making'}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret identity is neither pickled nor copied")


AnySecret = SecretIdentity | SecretRecipient | SlhSecret
"""What a secret key file can hold."""


def generate(profile: Profile = DEFAULT_PROFILE, *, provider: Provider = OPENSSL) -> SecretIdentity:
    """A fresh identity of ``profile``, with a recipient seed of its own."""
    return SecretIdentity(
        profile,
        provider.generate(profile, "ec"),
        provider.generate(profile, "pq"),
        SecretBytes(secrets.token_bytes(RECIPIENT_SEED_BYTES)),
    )


def generate_recipient(profile: Profile = DEFAULT_PROFILE) -> SecretRecipient:
    """A fresh recipient of ``profile`` that signs nothing."""
    return SecretRecipient.generate(kem_for(profile))


def generate_on_token(
    profile: Profile, uri: str, access: TokenAccess, *, create: bool = False, provider: Provider = OPENSSL
) -> SecretIdentity:
    """An identity whose EC half is the key that ``uri`` names; ``create`` makes it in the token first.

    Raises:
        UsageError: if ``uri`` is not a PKCS#11 URI of a key.
        KeyCustodyError: if the token cannot be used.
        FormatError: if the key is not one of ``profile``.
    """
    key = TokenKey.parse(uri)
    spki = pkcs11.public_key(profile, key, access, create=create)
    return SecretIdentity(
        profile,
        TokenEcHalf(profile, key, spki, access),
        provider.generate(profile, "pq"),
        SecretBytes(secrets.token_bytes(RECIPIENT_SEED_BYTES)),
    )


def public_file(secret: AnySecret) -> bytes:
    """The content of the public file of ``secret``."""
    if isinstance(secret, SecretIdentity):
        return secret.identity.to_pem()
    return secret.public.to_pem() if isinstance(secret, SlhSecret) else secret.public.to_file()


def material_of(secret: AnySecret) -> Material:
    """What is written to the key file of ``secret``; the caller wipes it."""
    if isinstance(secret, SecretIdentity):
        return secret.token_material() or secret.material()
    if isinstance(secret, SlhSecret):
        return SlhMaterial(secret.public.profile, secret.public.id, secret.secret())
    return RecipientMaterial(profile_of(secret.public.kem.level), secret.public.id, secret.seed())
