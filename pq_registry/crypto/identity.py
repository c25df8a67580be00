# SPDX-License-Identifier: Apache-2.0
"""Public identities: two public keys of one profile, and the id that names them (docs/spec/identities.md).

::

    id = hex SHA-256( u32be(len(spki_ec)) || spki_ec || u32be(len(spki_pq)) || spki_pq )

The public file (``.pqpub``) is both SPKI blocks as PEM, EC first, and nothing else: what ``from_pem`` accepts is
exactly what ``to_pem`` writes, so two different files are never the same identity.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.suites import HALVES, Half, Profile, profile_of_keys
from pq_registry.errors import FormatError
from pq_registry.format.recipientfile import is_recipient_file

_BEGIN: Final = b"-----BEGIN PUBLIC KEY-----\n"
_END: Final = b"-----END PUBLIC KEY-----\n"
_BLOCK: Final = re.compile(re.escape(_BEGIN) + rb"([A-Za-z0-9+/=\n]+)" + re.escape(_END))
_PEM_COLUMNS: Final = 64


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """A pair of public keys of one profile; both are valid keys in their one DER form."""

    profile: Profile
    ec_spki: bytes
    pq_spki: bytes

    def __post_init__(self) -> None:
        """Check both keys.

        Raises:
            FormatError: if a key is invalid, not in its one DER form, or not of ``profile``.
        """
        for half in HALVES:
            OPENSSL.check_public(self.profile, half, self.spki(half))

    @classmethod
    def from_spki(cls, ec_spki: bytes, pq_spki: bytes) -> PublicIdentity:
        """The identity of two public keys; they determine the profile.

        Raises:
            FormatError: if a key is invalid, or they are not both of one profile.
        """
        return cls(profile_of_keys(ec_spki, pq_spki), ec_spki, pq_spki)

    @classmethod
    def from_pem(cls, data: bytes) -> PublicIdentity:
        """Read a public file.

        Raises:
            FormatError: if ``data`` is not exactly what ``to_pem`` writes for the identity in it.
        """
        if len(data) > limits.IDENTITY_FILE_BYTES:
            raise FormatError(
                "not a public identity",
                expected=f"at most {limits.IDENTITY_FILE_BYTES} bytes",
                found=f"{len(data)} bytes",
            )
        blocks = [_unarmoured(match[1]) for match in _BLOCK.finditer(data)]
        if len(blocks) != len(HALVES):
            raise _not_public_file(data, f"{len(blocks)} such blocks")
        identity = cls.from_spki(blocks[0], blocks[1])
        if identity.to_pem() != data:
            raise _not_public_file(data, "additional or differently written text")
        return identity

    def to_pem(self) -> bytes:
        """The public file: both halves as PEM, EC first."""
        return self.ec_pem + self.pq_pem

    @property
    def ec_pem(self) -> bytes:
        """The EC half's SPKI as PEM; stock Model Signing tools verify with it."""
        return _armoured(self.ec_spki)

    @property
    def pq_pem(self) -> bytes:
        """The post-quantum half's SPKI as PEM."""
        return _armoured(self.pq_spki)

    def spki(self, half: Half) -> bytes:
        """A half's SPKI by its name."""
        return self.ec_spki if half == "ec" else self.pq_spki

    @property
    def id(self) -> str:
        """64 lowercase hex digits that name this pair of keys."""
        digest = hashlib.sha256()
        for half in HALVES:
            digest.update(struct.pack(">I", len(self.spki(half))) + self.spki(half))
        return digest.hexdigest()

    @property
    def half_ids(self) -> tuple[str, str]:
        """Hex SHA-256 of each half's SPKI, EC first: no half may occur in two identities."""
        return hashlib.sha256(self.ec_spki).hexdigest(), hashlib.sha256(self.pq_spki).hexdigest()

    def __repr__(self) -> str:
        return f"PublicIdentity(id={self.id!r}, level={self.profile.level})"


def _armoured(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = b"".join(text[start : start + _PEM_COLUMNS] + b"\n" for start in range(0, len(text), _PEM_COLUMNS))
    return _BEGIN + lines + _END


def _unarmoured(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.replace(b"\n", b""), validate=True)
    except ValueError:
        raise FormatError("not a public identity", expected="base64 inside its PEM blocks") from None


def _not_public_file(data: bytes, found: str) -> FormatError:
    hint = "write it again with: pqreg key export"
    if is_recipient_file(data):
        hint = "this is a recipient's public file; give that of a signing identity"
    elif b"PRIVATE KEY" in data or data.startswith((b"pqreg secret key", b"pqreg unseal key")):
        hint = "this looks like a secret key; give the public file (.pqpub)"
    elif b"\r" in data:
        hint = "its line endings were converted; " + hint
    return FormatError(
        "not a public identity", expected="two PEM blocks PUBLIC KEY, EC half first", found=found, hint=hint
    )
