# SPDX-License-Identifier: Apache-2.0
r"""The bytes of a secret key file, ``.pqkey`` (docs/spec/keys.md), version 1. No files are touched here.

::

    offset  size  field
         0    20  magic        "pqreg secret key v1\n", or that of another kind
        20     1  profile      5 or 3
        21     1  protection   0 none, 1 passphrase
        22    32  id of the key
    protection 1 only:
        54     4  Argon2id memory in KiB   u32be
        58     4  Argon2id passes          u32be
        62     4  Argon2id lanes           u32be
        66    16  salt
        82    12  nonce
    then the body (``material``), for protection 1 as AES-256-GCM ciphertext || tag under Argon2id(passphrase, salt),
    with every byte before it as associated data.

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
from pq_registry.crypto.suites import profile_of
from pq_registry.errors import FormatError, KeyCustodyError, WrongPassphrase
from pqreg_keys.material import KINDS, MAGICS, KeyMaterial, Material, RecipientMaterial, damaged
from pqreg_keys.passphrase import Passphrase, PassphraseSource

MAGIC: Final = KeyMaterial.magic
RECIPIENT_MAGIC: Final = RecipientMaterial.magic
_HEADER: Final = struct.Struct(">20sBB32s")
_PROTECTION: Final = struct.Struct(">III16s12s")
_PLAIN: Final = 0
_PASSPHRASE: Final = 1
_TAG_BYTES: Final = 16


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


def encode(material: Material, passphrase: Passphrase | None, *, cost: PassphraseCost = DEFAULT_COST) -> SecretBytes:
    """The content of a key file; sealed if there is a passphrase. The caller wipes it.

    Raises:
        KeyCustodyError: if there is not enough memory for ``cost``.
    """
    protection = _PLAIN if passphrase is None else _PASSPHRASE
    header = _HEADER.pack(material.magic, material.profile.level, protection, bytes.fromhex(material.key_id))
    with material.body() as body:
        if passphrase is None:
            return SecretBytes(header + body)
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        header += _PROTECTION.pack(cost.memory_kib, cost.passes, cost.lanes, salt, nonce)
        with _derive(passphrase, salt, cost) as key:
            return SecretBytes(header + AESGCM(key).encrypt(nonce, body, header))


def decode(data: SecretBytes, passphrase: PassphraseSource | None, *, name: str = "the key file") -> KeyMaterial:
    """Read the key file of an identity all of which is in the file; see ``decode_any``.

    Raises:
        FormatError: if ``data`` is not a key file, or one of another kind.
        KeyCustodyError: if it is sealed and no passphrase can be had.
        WrongPassphrase: if the passphrase is wrong, or the file was altered.
    """
    if not data.startswith(KeyMaterial.magic) and data.startswith(MAGICS):
        raise not_an_identity(name, data)
    material = decode_any(data, passphrase, name=name)
    assert isinstance(material, KeyMaterial)  # its magic says so
    return material


def not_an_identity(name: str, data: SecretBytes) -> FormatError:
    """The error for a key file of another kind where a signing identity is needed."""
    found = "that of a recipient" if data.startswith(RECIPIENT_MAGIC) else "one of another kind"
    message = f"{name} only unseals" if data.startswith(RECIPIENT_MAGIC) else f"{name} does not hold an identity"
    return FormatError(message, expected="the secret key file of a signing identity", found=found,
                       hint="make an identity with: pqreg key generate NAME")  # fmt: skip


def decode_any(data: SecretBytes, passphrase: PassphraseSource | None, *, name: str = "the key file") -> Material:
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
    kind = next(kind for kind in KINDS if kind.magic == magic)
    with body, memoryview(body) as opened:
        return kind.parse(profile, key_id.hex(), opened)


def is_sealed(data: SecretBytes) -> bool:
    """Whether a key file needs a passphrase; ``data`` begins with a magic."""
    return len(data) >= _HEADER.size and _HEADER.unpack_from(data)[2] == _PASSPHRASE


def _unsealed(data: memoryview, passphrase: PassphraseSource | None, name: str) -> SecretBytes:
    start = _HEADER.size + _PROTECTION.size
    if len(data) < start + _TAG_BYTES:
        raise damaged("it is cut short")
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
