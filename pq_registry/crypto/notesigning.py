# SPDX-License-Identifier: Apache-2.0
"""Signing and verifying the lines of checkpoints: Ed25519 (0x01, 0x04) and ML-DSA-44 (0x06).

What each type signs is in ``format.cosignature``; the three messages begin differently, so a signature of one type is
none of another, and none of them begins like DSSE's pre-authentication encoding. Note keys sign checkpoints and nothing
else: a signer takes a ``Checkpoint``, never bytes. ML-DSA is pure, hedged, with an empty context.

Every line is verified before ``sign`` returns it: a fault while signing must not be published.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pq_registry.crypto.secret import SecretBytes
from pq_registry.errors import CheckpointInvalid, FormatError, PolicyError
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.cosignature import (
    check_timestamp,
    ed25519_message,
    join_cosignature,
    split_cosignature,
    subtree_message,
)
from pq_registry.format.note import NoteKeyType, SignatureLine, VerifierKey, known_type

SEED_BYTES = 32
_PREFIX = "PRIVATE+KEY+"
_Private = ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey


class NoteSigner:
    """A secret note key. It prints as its public key, and is neither pickled nor copied."""

    __slots__ = ("_key", "_seed", "key")

    def __init__(self, name: str, type_: NoteKeyType, seed: bytes | bytearray) -> None:
        """Load the key of ``seed``.

        Raises:
            FormatError: if the name cannot be a key's, or ``seed`` has not 32 bytes.
            PolicyError: if this build of OpenSSL lacks ML-DSA.
        """
        if len(seed) != SEED_BYTES:
            raise FormatError("not the seed of a note key", expected=f"{SEED_BYTES} bytes", found=f"{len(seed)} bytes")
        self._seed = SecretBytes(seed)
        self._key = _private(type_, self._seed)
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key = VerifierKey(name, type_, public)

    @classmethod
    def generate(cls, name: str, type_: NoteKeyType) -> NoteSigner:
        """A fresh key from the system's randomness.

        Raises:
            FormatError: if the name cannot be a key's.
            PolicyError: if this build of OpenSSL lacks ML-DSA.
        """
        return cls(name, type_, secrets.token_bytes(SEED_BYTES))

    @classmethod
    def from_text(cls, text: str) -> NoteSigner:
        """Read ``PRIVATE+KEY+<name>+<hex8>+<base64(type || seed)>``. No message quotes it.

        Raises:
            FormatError: if ``text`` is anything else, or the id is that of another key.
            PolicyError: if this build of OpenSSL lacks ML-DSA.
        """
        parts = text.removeprefix(_PREFIX).split("+", 2)
        if not text.startswith(_PREFIX) or len(parts) != 3:
            raise _not_a_key()
        try:
            material = SecretBytes(base64.b64decode(parts[2], validate=True))
        except (binascii.Error, ValueError):
            raise _not_a_key() from None
        with material:
            signer = cls(parts[0], known_type(bytes(material[:1]), "the secret note key"), material[1:])
        if signer.to_text() != text:
            raise _not_a_key()
        return signer

    def to_text(self) -> str:
        """The secret key as text; it reveals it."""
        encoded = base64.b64encode(bytes([self.key.type]) + bytes(self._seed)).decode("ascii")
        return f"{_PREFIX}{self.key.name}+{self.key.key_id.hex()}+{encoded}"

    def sign(self, checkpoint: Checkpoint, timestamp: int) -> SignatureLine:
        """A line over ``checkpoint``. A log's Ed25519 signature (0x01) says no time; the others say ``timestamp``.

        Raises:
            FormatError: if ``timestamp`` is impossible.
            CheckpointInvalid: if what was signed does not verify.
        """
        if self.key.type is NoteKeyType.ED25519:
            signature = self._key.sign(checkpoint.encode())
        else:
            message = _cosigned(self.key, checkpoint, check_timestamp(timestamp))
            signature = join_cosignature(timestamp, self._key.sign(message))
        line = SignatureLine(self.key.name, self.key.key_id, signature)
        verify_line(self.key, checkpoint, line)
        return line

    def __repr__(self) -> str:
        return f"<NoteSigner {self.key}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret key is neither pickled nor copied")


def verify_line(key: VerifierKey, checkpoint: Checkpoint, line: SignatureLine) -> int | None:
    """Verify that ``line`` is ``key``'s over ``checkpoint``; answers the time it says, None for type 0x01.

    Raises:
        CheckpointInvalid: if it is of another key, malformed, without a time, or not valid.
    """
    if line.name != key.name or line.key_id != key.key_id:
        raise CheckpointInvalid("the signature line is of another key", expected=key.name, found=line.name)
    if len(line.signature) != key.type.signature_bytes:
        raise _invalid(key, f"{len(line.signature)} bytes")
    if key.type is NoteKeyType.ED25519:
        _verify(key, line.signature, checkpoint.encode())
        return None
    try:
        timestamp, signature = split_cosignature(line.signature)
    except FormatError as error:
        raise _invalid(key, str(error)) from None
    _verify(key, signature, _cosigned(key, checkpoint, timestamp))
    return timestamp


def _cosigned(key: VerifierKey, checkpoint: Checkpoint, timestamp: int) -> bytes:
    if key.type is NoteKeyType.ED25519_COSIGNATURE:
        return ed25519_message(checkpoint.encode(), timestamp)
    return subtree_message(
        cosigner=key.name,
        timestamp=timestamp,
        origin=checkpoint.origin,
        start=0,
        end=checkpoint.size,
        root=checkpoint.root,
    )


def _verify(key: VerifierKey, signature: bytes, message: bytes) -> None:
    loader = mldsa.MLDSA44PublicKey if key.type is NoteKeyType.MLDSA44_COSIGNATURE else ed25519.Ed25519PublicKey
    try:
        loader.from_public_bytes(key.public_key).verify(signature, message)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        raise _invalid(key, "an invalid signature") from None


def _private(type_: NoteKeyType, seed: SecretBytes) -> _Private:
    try:
        if type_ is NoteKeyType.MLDSA44_COSIGNATURE:
            return mldsa.MLDSA44PrivateKey.from_seed_bytes(bytes(seed))
        return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(seed))
    except UnsupportedAlgorithm:
        hint = "install the wheel of cryptography from PyPI"
        raise PolicyError("this build of cryptography has no ML-DSA", expected="OpenSSL 3.5", hint=hint) from None


def _invalid(key: VerifierKey, found: str) -> CheckpointInvalid:
    return CheckpointInvalid(
        "a signature of the checkpoint is not valid", expected=f"a signature by {key.name}", found=found
    )


def _not_a_key() -> FormatError:
    return FormatError("not a secret note key", expected="PRIVATE+KEY+<name>+<8 hex digits>+<base64(type || seed)>")
