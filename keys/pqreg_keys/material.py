# SPDX-License-Identifier: Apache-2.0
"""What the kinds of secret key files hold: values and the bytes of a body (docs/spec/keys.md). No files, no ciphers.

======================  ==================================================================
magic                   body
======================  ==================================================================
``pqreg secret key``    an identity: EC half, PQ half, recipient seed
``pqreg pkcs11 key``    an identity whose EC half is in a PKCS#11 token: where, its public key, PQ half, recipient seed
``pqreg unseal key``    a recipient: its seed
``pqreg slhdsa key``    an SLH-DSA key for trust files
======================  ==================================================================

A field of variable length is preceded by its length as u16be. The caller of ``body`` and ``parse`` wipes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from pq_registry import limits
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.slhdsa import SUITES
from pq_registry.crypto.suites import Profile
from pq_registry.errors import FormatError

RECIPIENT_SEED_BYTES: Final = 32
_LENGTH: Final = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """An identity. The caller wipes it."""

    magic: ClassVar[bytes] = b"pqreg secret key v1\n"

    profile: Profile
    identity_id: str
    ec_pkcs8: SecretBytes
    pq_pkcs8: SecretBytes
    recipient_seed: SecretBytes

    @property
    def key_id(self) -> str:
        """The identity's id."""
        return self.identity_id

    def body(self) -> SecretBytes:
        """The body of its file."""
        return _joined((self.ec_pkcs8, self.pq_pkcs8), self.recipient_seed)

    @classmethod
    def parse(cls, profile: Profile, key_id: str, body: memoryview) -> KeyMaterial:
        """Read a body."""
        ec, pq, seed = _split(body, 2, RECIPIENT_SEED_BYTES)
        return cls(profile, key_id, ec, pq, seed)

    def wipe(self) -> None:
        """Overwrite the secrets."""
        for secret in (self.ec_pkcs8, self.pq_pkcs8, self.recipient_seed):
            secret.wipe()


@dataclass(frozen=True, slots=True)
class TokenMaterial:
    """An identity whose EC half never leaves a PKCS#11 token. The caller wipes it."""

    magic: ClassVar[bytes] = b"pqreg pkcs11 key v1\n"

    profile: Profile
    identity_id: str
    uri: str
    ec_spki: bytes
    pq_pkcs8: SecretBytes
    recipient_seed: SecretBytes

    @property
    def key_id(self) -> str:
        """The identity's id."""
        return self.identity_id

    def body(self) -> SecretBytes:
        """The body of its file."""
        return _joined((self.uri.encode("ascii"), self.ec_spki, self.pq_pkcs8), self.recipient_seed)

    @classmethod
    def parse(cls, profile: Profile, key_id: str, body: memoryview) -> TokenMaterial:
        """Read a body."""
        uri, ec_spki, pq, seed = _split(body, 3, RECIPIENT_SEED_BYTES)
        if len(uri) > limits.PKCS11_URI_BYTES or not uri.isascii():
            raise damaged("a PKCS#11 URI that is too long or not ASCII")
        return cls(profile, key_id, uri.decode("ascii"), bytes(ec_spki), pq, seed)

    def wipe(self) -> None:
        """Overwrite the secrets."""
        for secret in (self.pq_pkcs8, self.recipient_seed):
            secret.wipe()


@dataclass(frozen=True, slots=True)
class RecipientMaterial:
    """A recipient that signs nothing. The caller wipes it."""

    magic: ClassVar[bytes] = b"pqreg unseal key v1\n"

    profile: Profile
    recipient_id: str
    recipient_seed: SecretBytes

    @property
    def key_id(self) -> str:
        """The recipient's id."""
        return self.recipient_id

    def body(self) -> SecretBytes:
        """The body of its file."""
        return _joined((), self.recipient_seed)

    @classmethod
    def parse(cls, profile: Profile, key_id: str, body: memoryview) -> RecipientMaterial:
        """Read a body."""
        (seed,) = _split(body, 0, RECIPIENT_SEED_BYTES)
        return cls(profile, key_id, seed)

    def wipe(self) -> None:
        """Overwrite the secret."""
        self.recipient_seed.wipe()


@dataclass(frozen=True, slots=True)
class SlhMaterial:
    """An SLH-DSA key. The caller wipes it."""

    magic: ClassVar[bytes] = b"pqreg slhdsa key v1\n"

    profile: Profile
    slh_id: str
    secret: SecretBytes

    @property
    def key_id(self) -> str:
        """SHA-256 of its SPKI."""
        return self.slh_id

    def body(self) -> SecretBytes:
        """The body of its file."""
        return _joined((), self.secret)

    @classmethod
    def parse(cls, profile: Profile, key_id: str, body: memoryview) -> SlhMaterial:
        """Read a body."""
        (secret,) = _split(body, 0, SUITES[profile].secret_bytes)
        return cls(profile, key_id, secret)

    def wipe(self) -> None:
        """Overwrite the secret."""
        self.secret.wipe()


Material = KeyMaterial | TokenMaterial | RecipientMaterial | SlhMaterial
KINDS: Final[tuple[type[Material], ...]] = (KeyMaterial, TokenMaterial, RecipientMaterial, SlhMaterial)
MAGICS: Final = tuple(kind.magic for kind in KINDS)


def damaged(found: str) -> FormatError:
    """The error for bytes that cannot be a key file's."""
    return FormatError("the key file is damaged", expected="the layout of docs/spec/keys.md", found=found,
                       hint="restore it from your backup")  # fmt: skip


def _joined(fields: tuple[bytes | bytearray, ...], last: SecretBytes) -> SecretBytes:
    body = SecretBytes()
    for field in fields:
        body += _LENGTH.pack(len(field))
        body += field
    body += last
    return body


def _split(body: memoryview, count: int, last_bytes: int) -> list[SecretBytes]:
    """``count`` fields of stated length, then one of ``last_bytes``, and nothing else."""
    parts = []
    position = 0
    for _field in range(count):
        if len(body) < position + _LENGTH.size:
            raise damaged("it is cut short")
        (length,) = _LENGTH.unpack_from(body, position)
        position += _LENGTH.size
        parts.append(SecretBytes(body[position : position + length]))
        position += length
    if len(body) - position != last_bytes:
        raise damaged("its body has a wrong length")
    parts.append(SecretBytes(body[position:]))
    return parts
