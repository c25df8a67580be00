# SPDX-License-Identifier: Apache-2.0
r"""Recipients as bytes: the KEMs, the id of a public key, and the public file (docs/spec/recipients.md).

::

    id   = hex SHA-256( "pqreg/v1/recipient" || 00 || u16be(kem_id) || public key )
    file = "-----BEGIN PQREG RECIPIENT-----\n" || base64( u16be(kem_id) || public key ), 64 columns, each line
           ended by "\n" || "-----END PQREG RECIPIENT-----\n"

There is exactly one such file per recipient: what ``parse_file`` accepts is what ``encode_file`` writes. Whether the
key is a point of its curve and a key of ML-KEM is for ``crypto.recipient`` to say.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError

_BEGIN: Final = b"-----BEGIN PQREG RECIPIENT-----\n"
_END: Final = b"-----END PQREG RECIPIENT-----\n"
_COLUMNS: Final = 64
_ID_DOMAIN: Final = b"pqreg/v1/recipient\0"
CONTENT_KEY_BYTES: Final = 32
_AEAD_TAG_BYTES: Final = 16


class Kem(enum.IntEnum):
    """The key encapsulations of the two profiles, by their HPKE identifiers."""

    MLKEM1024_P384 = 0x0051
    MLKEM768_X25519 = 0x647A

    @property
    def algorithm(self) -> str:
        """Its name."""
        return "MLKEM1024-P384" if self is Kem.MLKEM1024_P384 else "MLKEM768-X25519"

    @property
    def level(self) -> int:
        """The profile it belongs to: 5 or 3."""
        return 5 if self is Kem.MLKEM1024_P384 else 3

    @property
    def public_bytes(self) -> int:
        """Length of a public key."""
        return 1665 if self is Kem.MLKEM1024_P384 else 1216

    @property
    def encapsulated_bytes(self) -> int:
        """Length of HPKE's ``enc``."""
        return 1665 if self is Kem.MLKEM1024_P384 else 1120

    @property
    def wrapped_bytes(self) -> int:
        """Length of a wrapped content key: ``enc``, ciphertext and tag."""
        return self.encapsulated_bytes + CONTENT_KEY_BYTES + _AEAD_TAG_BYTES


def kem_of(kem_id: int) -> Kem:
    """The KEM with an identifier.

    Raises:
        FormatError: if it is none of ours (true and false are none).
    """
    for kem in Kem:
        if not isinstance(kem_id, bool) and kem_id == kem.value:
            return kem
    raise FormatError(
        "unknown key encapsulation",
        expected=" or ".join(f"{kem.value} ({kem.algorithm})" for kem in Kem),
        found=repr(kem_id)[:40],
    )


def recipient_id(kem: Kem, public_key: bytes) -> str:
    """64 lowercase hex digits that name a recipient's key."""
    return hashlib.sha256(_ID_DOMAIN + kem.value.to_bytes(2, "big") + public_key).hexdigest()


def check_public_key(kem: Kem, public_key: bytes) -> None:
    """Refuse a public key of another length.

    Raises:
        FormatError: if ``public_key`` has not the length of its KEM's keys.
    """
    if len(public_key) != kem.public_bytes:
        raise FormatError(
            f"not a public key of {kem.algorithm}",
            expected=f"{kem.public_bytes} bytes",
            found=f"{len(public_key)} bytes",
        )


def is_recipient_file(data: bytes) -> bool:
    """Whether ``data`` begins like a recipient's public file, so that a reader can choose the parser."""
    return data.startswith(_BEGIN)


def encode_file(kem: Kem, public_key: bytes) -> bytes:
    """The public file of a recipient."""
    text = base64.b64encode(kem.value.to_bytes(2, "big") + public_key)
    lines = b"".join(text[start : start + _COLUMNS] + b"\n" for start in range(0, len(text), _COLUMNS))
    return _BEGIN + lines + _END


def parse_file(data: bytes) -> tuple[Kem, bytes]:
    """Read a recipient's public file: its KEM and public key.

    Raises:
        FormatError: if ``data`` is not exactly what ``encode_file`` writes.
    """
    if len(data) > limits.RECIPIENT_FILE_BYTES:
        raise _not_recipient(data, f"{len(data)} bytes")
    if not data.startswith(_BEGIN) or not data.endswith(_END):
        raise _not_recipient(data, "something else")
    try:
        body = base64.b64decode(data[len(_BEGIN) : -len(_END)].replace(b"\n", b""), validate=True)
    except ValueError:
        raise _not_recipient(data, "text that is not base64") from None
    kem, public_key = kem_of(int.from_bytes(body[:2], "big")), body[2:]
    check_public_key(kem, public_key)
    if encode_file(kem, public_key) != data:
        raise _not_recipient(data, "additional or differently written text")
    return kem, public_key


def _not_recipient(data: bytes, found: str) -> FormatError:
    hint = "write it again with: pqreg key export --recipient"
    if data.startswith((b"pqreg secret key", b"pqreg unseal key")):
        hint = "this is a secret key file; give the public file (.pqpub)"
    elif b"BEGIN PUBLIC KEY" in data:
        hint = "this is a signing identity; its owner makes its recipient file with: pqreg key export --recipient"
    elif b"\r" in data:
        hint = "its line endings were converted; " + hint
    return FormatError("not a recipient file", expected="one block PQREG RECIPIENT", found=found, hint=hint)
