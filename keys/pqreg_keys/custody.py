# SPDX-License-Identifier: Apache-2.0
"""Custody of secret identities and recipient keys: generate, store, load. The only code that opens a secret key file.

Rules:

* A key file is created with mode 0600 whatever the umask is, durably, and never over anything that exists.
* It is opened only if it is a regular file that belongs to the user who runs this and nobody else may read or write
  it. The descriptor that was checked is the one that is read.
* A ``SecretIdentity`` shows its id and nothing else: not in ``repr``, not in a traceback, and it cannot be pickled.

An identity is a recipient as well, of its own profile. A key file of the other kind holds a recipient alone: a node
that may unseal and sign nothing.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import PrivateHalf, Provider
from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient, kem_for
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.slhdsa import SlhPublic, SlhSecret
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import FormatError
from pq_registry.format.recipientfile import is_recipient_file
from pqreg_keys import keyfile, secretfile
from pqreg_keys.holding import (
    AnySecret,
    SecretIdentity,
    generate,
    generate_on_token,
    generate_recipient,
    material_of,
    public_file,
)
from pqreg_keys.keyfile import DEFAULT_COST, PassphraseCost
from pqreg_keys.material import MAGICS, KeyMaterial, Material, SlhMaterial, TokenMaterial
from pqreg_keys.passphrase import Passphrase, PassphraseSource
from pqreg_keys.pkcs11 import TokenAccess, TokenEcHalf, TokenKey
from pqreg_keys.secretfile import KEY_SUFFIX, PUBLIC_SUFFIX, pair_paths

__all__ = [
    "KEY_SUFFIX",
    "PUBLIC_SUFFIX",
    "AnySecret",
    "SecretIdentity",
    "generate",
    "generate_on_token",
    "generate_recipient",
    "load",
    "load_recipient",
    "load_slh",
    "opened",
    "pair_paths",
    "public_file",
    "public_of",
    "secret_of",
    "shown",
    "store",
    "store_pair",
]


def store(
    path: Path,
    secret: AnySecret,
    passphrase: Passphrase | None,
    *,
    cost: PassphraseCost = DEFAULT_COST,
) -> None:
    """Write ``secret`` to the new file ``path``, mode 0600; sealed unless ``passphrase`` is None.

    Raises:
        AlreadyExists: if something stands at ``path``; it is left as it is.
        KeyCustodyError: if there is not enough memory to seal it.
        StorageError: if the file cannot be written; nothing is left behind.
    """
    material = material_of(secret)
    try:
        with keyfile.encode(material, passphrase, cost=cost) as content:
            write_file(path, content, mode=0o600, exact_mode=True, replace=False)
    finally:
        material.wipe()


def store_pair(
    directory: Path,
    name: str,
    secret: AnySecret,
    passphrase: Passphrase | None,
    *,
    cost: PassphraseCost = DEFAULT_COST,
) -> tuple[Path, Path]:
    """Write ``name``.pqkey and ``name``.pqpub below ``directory`` (made if missing): both, or neither.

    The secret file comes first: killed in between, the public one can be exported from it. If the public one cannot
    be written, the secret one that was just made is removed; nothing that existed before is touched.

    Raises:
        UsageError: if ``name`` cannot name a file.
        AlreadyExists: if one of the two files exists.
        StorageError: if a file cannot be written.
    """
    secret_path, public_path = pair_paths(directory, name)
    make_directory(directory, 0o700)
    store(secret_path, secret, passphrase, cost=cost)
    try:
        write_file(public_path, public_file(secret), mode=0o644, replace=False)
    except BaseException:
        with contextlib.suppress(OSError):
            secret_path.unlink()
        raise
    return secret_path, public_path


def load(
    path: Path,
    passphrase: PassphraseSource | None = None,
    *,
    token: TokenAccess | None = None,
    provider: Provider = OPENSSL,
) -> SecretIdentity:
    """Read a secret key file; ``passphrase`` is asked only if the file is sealed.

    An EC half that is in a PKCS#11 token is reached through ``token``, at the first signature.

    Raises:
        KeyFileExposed: if others than the user who runs this own, may read or may write the file.
        WrongPassphrase: if the passphrase is wrong or the file was altered.
        KeyCustodyError: if a passphrase is needed and there is none.
        FormatError: if the file is not a secret key file, or does not hold the identity it names.
        StorageError: if it cannot be read.
    """
    with secretfile.read(path) as content:
        if not content.startswith((KeyMaterial.magic, TokenMaterial.magic)):
            raise keyfile.not_an_identity(str(path), content)
        material = keyfile.decode_any(content, passphrase, name=str(path))
    assert isinstance(material, KeyMaterial | TokenMaterial)  # its magic says so
    return _identity(path, material, token, provider)


def load_slh(path: Path, passphrase: PassphraseSource | None = None) -> SlhSecret:
    """Read the secret key file of an SLH-DSA key.

    Raises:
        KeyFileExposed, WrongPassphrase, KeyCustodyError, FormatError, StorageError: as ``load``.
    """
    secret = opened(path, passphrase)
    if not isinstance(secret, SlhSecret):
        raise FormatError(
            f"{path} does not hold an SLH-DSA key", expected="one made with: pqreg key generate NAME --slh"
        )
    return secret


def load_recipient(
    path: Path, passphrase: PassphraseSource | None = None, *, provider: Provider = OPENSSL
) -> SecretRecipient:
    """Read the recipient key in a secret key file: a recipient's, or an identity's own.

    Raises:
        KeyFileExposed, WrongPassphrase, KeyCustodyError, FormatError, StorageError: as ``load``.
    """
    secret = opened(path, passphrase, provider=provider)
    if isinstance(secret, SlhSecret):
        raise FormatError(f"{path} holds no recipient key", expected="a recipient, or a signing identity")
    return secret.recipient if isinstance(secret, SecretIdentity) else secret


def opened(
    path: Path,
    passphrase: PassphraseSource | None = None,
    *,
    token: TokenAccess | None = None,
    provider: Provider = OPENSSL,
) -> AnySecret:
    """Read a secret key file of any kind.

    Raises:
        KeyFileExposed, WrongPassphrase, KeyCustodyError, FormatError, StorageError: as ``load``.
    """
    with secretfile.read(path) as content:
        material = keyfile.decode_any(content, passphrase, name=str(path))
    return secret_of(material, path=path, token=token, provider=provider)


def secret_of(
    material: Material, *, path: Path, token: TokenAccess | None = None, provider: Provider = OPENSSL
) -> AnySecret:
    """The secret in ``material``, read from ``path``; checked, and the material wiped.

    Raises:
        FormatError: if it is not the key it says it is.
    """
    if isinstance(material, KeyMaterial | TokenMaterial):
        return _identity(path, material, token, provider)
    if isinstance(material, SlhMaterial):
        with material.secret as key:
            slh = SlhSecret.from_bytes(material.profile, key)
        _check_id(path, "key", material.slh_id, slh.public.id)
        return slh
    with material.recipient_seed as seed:
        recipient = SecretRecipient(kem_for(material.profile), seed)
    _check_id(path, "recipient", material.recipient_id, recipient.public.id)
    return recipient


def public_of(path: Path, passphrase: PassphraseSource | None = None) -> PublicIdentity:
    """The public identity in ``path``, which is a secret key file (opened as ``load`` does) or a public one.

    Raises:
        KeyCustodyError: if it is a secret key file that may not or cannot be opened.
        FormatError: if it is neither.
        StorageError: if it cannot be read.
    """
    public = shown(path, passphrase)
    if not isinstance(public, PublicIdentity):
        kind = "a recipient" if isinstance(public, PublicRecipient) else "an SLH-DSA key"
        raise FormatError(
            f"{path} is of {kind}",
            expected="a signing identity",
            hint="its owner makes a signing identity with: pqreg key generate NAME",
        )
    return public


def shown(path: Path, passphrase: PassphraseSource | None = None) -> PublicIdentity | PublicRecipient | SlhPublic:
    """The public part of whatever key is in ``path``, which is a secret key file or a public one.

    Raises:
        KeyCustodyError, FormatError, StorageError: as ``public_of``.
    """
    with reported("read", path), open(path, "rb") as file:
        if file.read(len(MAGICS[0])) in MAGICS:
            secret = opened(path, passphrase)
            return secret.identity if isinstance(secret, SecretIdentity) else secret.public
        file.seek(0)
        data = file.read(limits.IDENTITY_FILE_BYTES + 1)
    if is_recipient_file(data):
        return PublicRecipient.from_file(data)
    if data.count(b"-----BEGIN PUBLIC KEY-----") == 1:
        return SlhPublic.from_pem(data)
    return PublicIdentity.from_pem(data)


def _identity(
    path: Path, material: KeyMaterial | TokenMaterial, token: TokenAccess | None, provider: Provider
) -> SecretIdentity:
    try:
        ec: PrivateHalf
        if isinstance(material, TokenMaterial):
            ec = TokenEcHalf(material.profile, TokenKey.parse(material.uri), material.ec_spki, token)
        else:
            ec = provider.load(material.profile, "ec", material.ec_pkcs8)
        pq = provider.load(material.profile, "pq", material.pq_pkcs8)
        identity = SecretIdentity(material.profile, ec, pq, SecretBytes(material.recipient_seed))
    finally:
        material.wipe()
    _check_id(path, "identity", material.identity_id, identity.identity.id)
    return identity


def _check_id(path: Path, what: str, expected: str, found: str) -> None:
    # An unsealed file has no other protection against damage: a flipped bit of a seed is another, unknown key.
    if found != expected:
        raise FormatError(
            f"{path} does not hold the {what} it names",
            expected=expected,
            found=found,
            hint="the file is damaged; restore it from your backup",
        )
