# SPDX-License-Identifier: Apache-2.0
r"""The bytes of a secret key file, ``.pqkey`` (docs/spec/keys.md), version 1. No files are touched here.

::

    offset  size  field
         0    20  magic        "pqreg secret key v1\n" or "pqreg unseal key v1\n"
        20     1  profile      5 or 3
        21     1  protection   0 none, 1 passphrase
        22    32  identity id, or recipient id
    protection 1 only:
        54     4  Argon2id memory in KiB   u32be
        58     4  Argon2id passes          u32be
        62     4  Argon2id lanes           u32be
        66    16  salt
        82    12  nonce
    then the body, for protection 1 as AES-256-GCM ciphertext || tag under Argon2id(passphrase, salt), with every
    byte before it as associated data:
               2  length, u16be, and the EC half as DER PKCS#8
               2  length, u16be, and the post-quantum half as DER PKCS#8 (a seed)
              32  recipient seed

The second magic is that of a key that only unseals: its body is the recipient seed alone.

A wrong passphrase and an altered file cannot be told apart and are the same error. The Argon2id parameters come from
the file and are bounded before anything is allocated for them. Bodies and keys are kept in ``SecretBytes``.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from pq_registry import limits
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import Profile, profile_of
from pq_registry.errors import FormatError, KeyCustodyError, WrongPassphrase
from pqreg_keys.passphrase import Passphrase, PassphraseSource

MAGIC: Final = b"pqreg secret key v1\n"
RECIPIENT_MAGIC: Final = b"pqreg unseal key v1\n"
MAGICS: Final = (MAGIC, RECIPIENT_MAGIC)
RECIPIENT_SEED_BYTES: Final = 32
_HEADER: Final = struct.Struct(">20sBB32s")
_PROTECTION: Final = struct.Struct(">III16s12s")
_PLAIN: Final = 0
_PASSPHRASE: Final = 1
_TAG_BYTES: Final = 16
_LENGTH: Final = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class PassphraseCost:
    """What guessing one passphrase costs: the parameters of Argon2id."""

    memory_kib: int = 256 * 1024
    passes: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        """Refuse what Argon2id does not define and what no honest file asks for.

        Raises:
            FormatError: if a parameter is out of bounds.
        """
        bounds = (
            ("lanes", self.lanes, 1, limits.PASSPHRASE_LANES),
            ("memory", self.memory_kib, 8 * self.lanes, limits.PASSPHRASE_MEMORY_KIB),
            ("passes", self.passes, 1, limits.PASSPHRASE_PASSES),
        )
        for name, value, least, most in bounds:
            if not least <= value <= most:
                raise FormatError(
                    f"the key file's Argon2id {name} parameter is out of bounds",
                    expected=f"{least} to {most}", found=value,
                )  # fmt: skip


DEFAULT_COST: Final = PassphraseCost()
"""Between the two recommendations of RFC 9106 (2 GiB and 64 MiB): about a second on two cores."""


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """What a key file holds. The caller wipes it."""

    profile: Profile
    identity_id: str
    ec_pkcs8: SecretBytes
    pq_pkcs8: SecretBytes
    recipient_seed: SecretBytes

    def wipe(self) -> None:
        """Overwrite the secrets."""
        for secret in (self.ec_pkcs8, self.pq_pkcs8, self.recipient_seed):
            secret.wipe()


@dataclass(frozen=True, slots=True)
class RecipientMaterial:
    """What the key file of a recipient holds that signs nothing. The caller wipes it."""

    profile: Profile
    recipient_id: str
    recipient_seed: SecretBytes

    def wipe(self) -> None:
        """Overwrite the secret."""
        self.recipient_seed.wipe()


def encode(
    material: KeyMaterial | RecipientMaterial, passphrase: Passphrase | None, *, cost: PassphraseCost = DEFAULT_COST
) -> SecretBytes:
    """The content of a key file; sealed if there is a passphrase. The caller wipes it.

    Raises:
        KeyCustodyError: if there is not enough memory for ``cost``.
    """
    protection = _PLAIN if passphrase is None else _PASSPHRASE
    if isinstance(material, KeyMaterial):
        magic, key_id = MAGIC, material.identity_id
    else:
        magic, key_id = RECIPIENT_MAGIC, material.recipient_id
    header = _HEADER.pack(magic, material.profile.level, protection, bytes.fromhex(key_id))
    with _body(material) as body:
        if passphrase is None:
            return SecretBytes(header + body)
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        header += _PROTECTION.pack(cost.memory_kib, cost.passes, cost.lanes, salt, nonce)
        with _derive(passphrase, salt, cost) as key:
            return SecretBytes(header + AESGCM(key).encrypt(nonce, body, header))


def decode(data: SecretBytes, passphrase: PassphraseSource | None, *, name: str = "the key file") -> KeyMaterial:
    """Read the key file of an identity; see ``decode_any``.

    Raises:
        FormatError: if ``data`` is not a key file, or that of a recipient.
        KeyCustodyError: if it is sealed and no passphrase can be had.
        WrongPassphrase: if the passphrase is wrong, or the file was altered.
    """
    if data.startswith(RECIPIENT_MAGIC):
        raise FormatError(
            f"{name} only unseals", expected="the secret key file of a signing identity", found="that of a recipient",
            hint="make an identity with: pqreg key generate NAME",
        )  # fmt: skip
    material = decode_any(data, passphrase, name=name)
    assert isinstance(material, KeyMaterial)  # its magic says so
    return material


def decode_any(
    data: SecretBytes, passphrase: PassphraseSource | None, *, name: str = "the key file"
) -> KeyMaterial | RecipientMaterial:
    """Read a key file, called ``name`` in messages; ``passphrase`` is asked only if it is sealed.

    Raises:
        FormatError: if ``data`` is not a key file.
        KeyCustodyError: if it is sealed and no passphrase can be had.
        WrongPassphrase: if the passphrase is wrong, or the file was altered.
    """
    if len(data) < _HEADER.size or not data.startswith(MAGICS):
        raise FormatError("not a secret key file", expected="a .pqkey file of version 1",
                          hint="make one with: pqreg key generate NAME")  # fmt: skip
    magic, level, protection, key_id = _HEADER.unpack_from(data)
    profile = profile_of(level)
    with memoryview(data) as view:
        if protection == _PLAIN:
            body = SecretBytes(view[_HEADER.size :])
        elif protection == _PASSPHRASE:
            body = _unsealed(view, passphrase, name)
        else:
            raise FormatError("the key file is protected in an unknown way", expected="0 or 1", found=protection)
    with body:
        parsed = _parsed if magic == MAGIC else _parsed_recipient
        return parsed(body, profile, key_id.hex())


def _unsealed(data: memoryview, passphrase: PassphraseSource | None, name: str) -> SecretBytes:
    start = _HEADER.size + _PROTECTION.size
    if len(data) < start + _TAG_BYTES:
        raise _malformed("it is cut short")
    memory, passes, lanes, salt, nonce = _PROTECTION.unpack_from(data, _HEADER.size)
    cost = PassphraseCost(memory, passes, lanes)  # bounded before anybody is asked and anything is allocated
    if passphrase is None:
        raise KeyCustodyError(f"{name} needs its passphrase",
                              hint="give --passphrase-file or set PQREG_PASSPHRASE")  # fmt: skip
    body = SecretBytes(len(data) - start - _TAG_BYTES)
    with _derive(passphrase(), salt, cost) as key:
        try:
            AESGCM(key).decrypt_into(nonce, data[start:], data[:start], body)
        except InvalidTag:
            raise WrongPassphrase(
                f"{name} does not open",
                expected="its passphrase and its unaltered content",
                hint="try the passphrase again; if it is right, restore the key file from your backup",
            ) from None
    return body


def _derive(passphrase: Passphrase, salt: bytes, cost: PassphraseCost) -> SecretBytes:
    key = SecretBytes(32)
    kdf = Argon2id(salt=salt, length=len(key), iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib)
    try:
        kdf.derive_into(passphrase.encoded, key)  # type: ignore[arg-type]  # it takes any buffer, its stub says bytes
    except MemoryError:
        raise KeyCustodyError(
            "not enough memory to turn the passphrase into a key", expected=f"{cost.memory_kib // 1024} MiB free"
        ) from None
    return key


def _body(material: KeyMaterial | RecipientMaterial) -> SecretBytes:
    body = SecretBytes()
    if isinstance(material, RecipientMaterial):
        body += material.recipient_seed
        return body
    for part in (material.ec_pkcs8, material.pq_pkcs8):
        body += _LENGTH.pack(len(part))
        body += part
    body += material.recipient_seed
    return body


def _parsed(body: SecretBytes, profile: Profile, identity_id: str) -> KeyMaterial:
    parts = []
    position = 0
    with memoryview(body) as view:
        for _half in range(2):
            if len(view) < position + _LENGTH.size:
                raise _malformed("it is cut short")
            (length,) = _LENGTH.unpack_from(view, position)
            position += _LENGTH.size
            parts.append(SecretBytes(view[position : position + length]))
            position += length
        if len(view) - position != RECIPIENT_SEED_BYTES:
            raise _malformed("its body has a wrong length")
        parts.append(SecretBytes(view[position:]))
    return KeyMaterial(profile, identity_id, *parts)


def _parsed_recipient(body: SecretBytes, profile: Profile, recipient_id: str) -> RecipientMaterial:
    if len(body) != RECIPIENT_SEED_BYTES:
        raise _malformed("its body has a wrong length")
    return RecipientMaterial(profile, recipient_id, SecretBytes(body))


def _malformed(found: str) -> FormatError:
    return FormatError("the key file is damaged", expected="the layout of docs/spec/keys.md", found=found,
                       hint="restore it from your backup")  # fmt: skip
