# SPDX-License-Identifier: Apache-2.0
r"""Sealing and unsealing of shards (docs/spec/sealing.md): one AES-256-GCM message per shard, each under its own key.

::

    prk          = HKDF-Extract-SHA512(salt = release_id[16], ikm = content_key[32])
    commitment   = HKDF-Expand(prk, "pqreg/v1/commit", 32)
    key || nonce = HKDF-Expand(prk, "pqreg/v1/shard" || 00 || u16be(len(path)) || path || u64be(index) || u64be(count)
                               || u64be(plaintext size of the file), 32 + 12)
    stored shard = ciphertext || tag[16], empty associated data

A key is used for one message, so there is no nonce to manage; and a shard opens only at the place, in the file and
among the number of shards it was sealed for. Any shard opens without its neighbours. Keys are derived when they are
needed and overwritten afterwards. AES-GCM alone does not commit to its key; the commitment in the signed manifest does,
and is checked before anything is opened.

Both directions write into a buffer of the caller's and release the interpreter lock.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime
from types import TracebackType
from typing import Final, NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pq_registry import limits
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.crypto.secret import SecretBytes
from pq_registry.errors import (
    CommitmentMismatch,
    FormatError,
    GrantExpired,
    GrantMismatch,
    GrantWithdrawn,
    UnsealFailed,
)
from pq_registry.format.digest import Digest
from pq_registry.format.grant import GrantStatement
from pq_registry.format.hexid import parse_release_id
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.recipientfile import CONTENT_KEY_BYTES
from pq_registry.format.sealing import COMMITMENT_BYTES

_COMMIT_INFO: Final = b"pqreg/v1/commit"
_SHARD_INFO: Final = b"pqreg/v1/shard\0"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_WIPED: Final = SecretBytes(64)

Buffer = bytes | bytearray | memoryview


def new_content_key() -> SecretBytes:
    """A fresh content key from the system's randomness; one per release, never used again."""
    return SecretBytes(secrets.token_bytes(CONTENT_KEY_BYTES))


class SealingKey:
    """What a content key becomes for one release: the source of every shard's key. Wiped as a context manager.

    >>> key = SealingKey(SecretBytes(32), "00" * 16)
    >>> len(key.commitment)
    32
    """

    __slots__ = ("_prk",)

    def __init__(self, content_key: SecretBytes, release_id: str) -> None:
        """Derive from ``content_key``, which may be wiped afterwards.

        Raises:
            FormatError: if ``release_id`` is none, or the key has not 32 bytes.
        """
        if len(content_key) != CONTENT_KEY_BYTES:
            raise FormatError(
                "the content key has a wrong length", expected=f"{CONTENT_KEY_BYTES} bytes", found=len(content_key)
            )
        salt = bytes.fromhex(parse_release_id(release_id))
        self._prk = SecretBytes(hmac.digest(salt, content_key, "sha512"))

    @property
    def commitment(self) -> bytes:
        """What the manifest says of this key without giving it away."""
        return hmac.digest(self._prk, _COMMIT_INFO + b"\x01", "sha512")[:COMMITMENT_BYTES]

    def check(self, commitment: bytes) -> None:
        """Demand that this is the key ``commitment`` stands for.

        Raises:
            CommitmentMismatch: if it is another one.
        """
        if not hmac.compare_digest(self.commitment, commitment):
            raise CommitmentMismatch(
                "the content key is not the one the manifest commits to",
                expected=f"commitment {commitment.hex()}",
                found=self.commitment.hex(),
                hint="the grant was made for another key; ask the publisher for a new one",
            )

    def file(self, path: ReleasePath, plaintext_size: int) -> FileSealer:
        """The sealer of one stored file, of ``plaintext_size`` bytes in the clear."""
        return FileSealer(self._prk, path, plaintext_size)

    def wipe(self) -> None:
        """Overwrite the key. What ``file`` gave out before does not work any more."""
        self._prk.wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return "<SealingKey>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a sealing key is neither pickled nor copied")


class FileSealer:
    """Seals and unseals the shards of one file, in any order and from any number of threads."""

    __slots__ = ("_count", "_prefix", "_prk", "_size", "_suffix", "path")

    def __init__(self, prk: SecretBytes, path: ReleasePath, plaintext_size: int) -> None:
        self.path = path
        self._prk = prk
        self._size = plaintext_size
        self._count = -(-plaintext_size // limits.SHARD_BYTES)
        name = path.text.encode("utf-8")
        self._prefix = _SHARD_INFO + len(name).to_bytes(2, "big") + name
        # HKDF-Expand of up to 64 bytes is one HMAC over info || 01.
        self._suffix = self._count.to_bytes(8, "big") + plaintext_size.to_bytes(8, "big") + b"\x01"

    @property
    def shard_count(self) -> int:
        """How many shards the file has."""
        return self._count

    def plaintext_length(self, index: int) -> int:
        """Bytes of shard ``index`` in the clear; stored it has ``limits.SEAL_TAG_BYTES`` more."""
        if not 0 <= index < self._count:  # a caller's bug: never reached by outside input
            raise IndexError(f"{self.path} has {self._count} shards, not {index}")
        return min(limits.SHARD_BYTES, self._size - index * limits.SHARD_BYTES)

    def seal_into(self, index: int, plaintext: Buffer, out: bytearray | memoryview) -> None:
        """Seal shard ``index`` into ``out``, which has ``limits.SEAL_TAG_BYTES`` more bytes.

        Only ever seal one plaintext at one place under one content key: a second one under the same key and nonce
        would reveal both. A push holds to that by its plan (docs/spec/push.md).
        """
        self._check_lengths(index, clear=len(plaintext), stored=len(out))
        with self._derived(index) as okm, memoryview(okm) as view:
            AESGCM(view[:_KEY_BYTES]).encrypt_into(view[_KEY_BYTES:], plaintext, None, out)

    def unseal_into(self, index: int, stored: Buffer, out: bytearray | memoryview) -> None:
        """Unseal shard ``index`` into ``out``, which has ``limits.SEAL_TAG_BYTES`` fewer bytes.

        Raises:
            UnsealFailed: if ``stored`` was not sealed for this place under this key; ``out`` is then all zeros.
        """
        self._check_lengths(index, clear=len(out), stored=len(stored))
        try:
            with self._derived(index) as okm, memoryview(okm) as view:
                AESGCM(view[:_KEY_BYTES]).decrypt_into(view[_KEY_BYTES:], stored, None, out)
        except InvalidTag:
            # OpenSSL decrypts before it knows: without this, what did not verify would stand in the caller's buffer.
            out[:] = bytes(len(out))
            raise UnsealFailed(
                f"shard {index} of {self.path} does not decrypt",
                expected="a shard sealed for this place under the release's content key",
                hint="its digest is the signed one, so the publisher made it so; ask for another release",
            ) from None

    def keystream(self, index: int) -> SecretBytes:
        """Key (32 bytes) and nonce (12) of shard ``index``, for whoever decrypts elsewhere than here; to be wiped.

        The keystream of AES-256-GCM is that of CTR mode whose first counter block is nonce || u32be(2). It does not
        show whether a shard was altered: whoever uses it has compared the shard's BLAKE3 with the signed one before,
        and learns nothing of a shard that was sealed wrongly and signed (``unseal_into`` says ``UnsealFailed``).
        """
        self.plaintext_length(index)
        return self._derived(index)

    def _check_lengths(self, index: int, *, clear: int, stored: int) -> None:
        expected = self.plaintext_length(index)
        if clear != expected or stored != expected + limits.SEAL_TAG_BYTES:  # a caller's bug, as above
            raise ValueError(f"shard {index} of {self.path} has {expected} bytes, not {clear} and {stored} stored")

    def _derived(self, index: int) -> SecretBytes:
        if self._prk == _WIPED:  # a caller's bug; everybody knows the keys that zeros give
            raise ValueError("the sealing key was wiped")
        # One expression: no name is bound to what is not a SecretBytes, so no traceback shows it.
        return SecretBytes(
            hmac.digest(self._prk, self._prefix + index.to_bytes(8, "big") + self._suffix, "sha512")[
                : _KEY_BYTES + _NONCE_BYTES
            ]
        )

    def __repr__(self) -> str:
        return f"<FileSealer {self.path}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a sealer is neither pickled nor copied")


def require_match(grant: GrantStatement, *, release: Digest, repository: RepositoryName, recipient: str) -> None:
    """Demand that a grant is of this release and for this recipient.

    Raises:
        GrantMismatch: if it is not.
    """
    for what, expected, found in (
        ("of another release", release, grant.release),
        ("of another repository", repository.key, grant.repository.key),
        ("for another recipient", recipient, grant.recipient),
    ):
        if found != expected:
            raise GrantMismatch(f"the grant is {what}", expected=expected, found=found)


def open_grant(
    grant: GrantStatement, *, key: RecipientKey, manifest: Manifest, release: Digest, now: datetime
) -> SealingKey:
    """Open a sealed release with a grant whose signature and signer have been verified (step 7).

    In this order: the grant is of this release, for this recipient, not withdrawn and not expired; what it wraps opens;
    the content key is the one the manifest commits to.

    Args:
        grant: the verified grant.
        key: the recipient's secret key.
        manifest: the verified manifest of the release.
        release: the release digest.
        now: the time by which the grant's expiry is judged.

    Raises:
        GrantMismatch: if it is of another release or for another recipient.
        GrantWithdrawn: if it takes the grant back.
        GrantExpired: if it has expired.
        GrantInvalid: if it does not open.
        CommitmentMismatch: if it holds another key than the release was sealed with.
        FormatError: if the release is not sealed.
    """
    if manifest.sealing is None:
        raise FormatError("the release is not sealed", expected="a manifest with sealing")
    require_match(grant, release=release, repository=manifest.name, recipient=key.public.id)
    if grant.wrapped is None:
        raise GrantWithdrawn(
            f"the grant to recipient {grant.recipient} was withdrawn",
            found=f"withdrawn at {format_instant(grant.issued)}",
            hint="ask the publisher for a new grant",
        )
    if grant.expires is not None and is_expired(now, grant.expires):
        raise GrantExpired(
            "the grant has expired",
            expected=f"a time before {format_instant(grant.expires)}",
            found=format_instant(now),
            hint="ask the publisher for a new grant",
        )
    with key.unwrap(grant.wrapped, release) as content_key:
        sealing_key = SealingKey(content_key, manifest.release_id)
    try:
        sealing_key.check(manifest.sealing.commitment)
    except CommitmentMismatch:
        sealing_key.wipe()
        raise
    return sealing_key
