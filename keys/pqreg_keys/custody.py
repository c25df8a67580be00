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
import secrets
from pathlib import Path
from typing import NoReturn

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import PrivateHalf, Provider
from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient, kem_for
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import DEFAULT_PROFILE, Profile, profile_of
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import FormatError
from pq_registry.format.recipientfile import is_recipient_file
from pqreg_keys import keyfile, secretfile
from pqreg_keys.keyfile import DEFAULT_COST, KeyMaterial, PassphraseCost, RecipientMaterial
from pqreg_keys.passphrase import Passphrase, PassphraseSource
from pqreg_keys.secretfile import KEY_SUFFIX, PUBLIC_SUFFIX, pair_paths

__all__ = [
    "KEY_SUFFIX",
    "PUBLIC_SUFFIX",
    "SecretIdentity",
    "generate",
    "generate_recipient",
    "load",
    "load_recipient",
    "opened",
    "pair_paths",
    "public_of",
    "shown",
    "store",
    "store_pair",
]


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
        """What is written to a key file; the caller wipes it."""
        return KeyMaterial(
            profile=self._identity.profile,
            identity_id=self._identity.id,
            ec_pkcs8=self._ec.pkcs8(),
            pq_pkcs8=self._pq.pkcs8(),
            recipient_seed=SecretBytes(self._recipient_seed),
        )

    def __repr__(self) -> str:
        # Also while __init__ runs: a traceback that shows locals must not fail on the way.
        identity = getattr(self, "_identity", None)
        return f"<SecretIdentity {identity.id if identity else 'in the making'}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret identity is neither pickled nor copied")


def generate(profile: Profile = DEFAULT_PROFILE, *, provider: Provider = OPENSSL) -> SecretIdentity:
    """A fresh identity of ``profile``, with a recipient seed of its own."""
    return SecretIdentity(
        profile,
        provider.generate(profile, "ec"),
        provider.generate(profile, "pq"),
        SecretBytes(secrets.token_bytes(keyfile.RECIPIENT_SEED_BYTES)),
    )


def generate_recipient(profile: Profile = DEFAULT_PROFILE) -> SecretRecipient:
    """A fresh recipient of ``profile`` that signs nothing."""
    return SecretRecipient.generate(kem_for(profile))


def store(
    path: Path,
    secret: SecretIdentity | SecretRecipient,
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
    material = _material(secret)
    try:
        with keyfile.encode(material, passphrase, cost=cost) as content:
            write_file(path, content, mode=0o600, exact_mode=True, replace=False)
    finally:
        material.wipe()


def store_pair(
    directory: Path,
    name: str,
    secret: SecretIdentity | SecretRecipient,
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
    public = secret.identity.to_pem() if isinstance(secret, SecretIdentity) else secret.public.to_file()
    try:
        write_file(public_path, public, mode=0o644, replace=False)
    except BaseException:
        with contextlib.suppress(OSError):
            secret_path.unlink()
        raise
    return secret_path, public_path


def load(path: Path, passphrase: PassphraseSource | None = None, *, provider: Provider = OPENSSL) -> SecretIdentity:
    """Read a secret key file; ``passphrase`` is asked only if the file is sealed.

    Raises:
        KeyFileExposed: if others than the user who runs this own, may read or may write the file.
        WrongPassphrase: if the passphrase is wrong or the file was altered.
        KeyCustodyError: if a passphrase is needed and there is none.
        FormatError: if the file is not a secret key file, or does not hold the identity it names.
        StorageError: if it cannot be read.
    """
    with secretfile.read(path) as content:
        material = keyfile.decode(content, passphrase, name=str(path))
    return _identity(path, material, provider)


def load_recipient(
    path: Path, passphrase: PassphraseSource | None = None, *, provider: Provider = OPENSSL
) -> SecretRecipient:
    """Read the recipient key in a secret key file: a recipient's, or an identity's own.

    Raises:
        KeyFileExposed, WrongPassphrase, KeyCustodyError, FormatError, StorageError: as ``load``.
    """
    secret = opened(path, passphrase, provider=provider)
    return secret.recipient if isinstance(secret, SecretIdentity) else secret


def opened(
    path: Path, passphrase: PassphraseSource | None = None, *, provider: Provider = OPENSSL
) -> SecretIdentity | SecretRecipient:
    """Read a secret key file of either kind.

    Raises:
        KeyFileExposed, WrongPassphrase, KeyCustodyError, FormatError, StorageError: as ``load``.
    """
    with secretfile.read(path) as content:
        material = keyfile.decode_any(content, passphrase, name=str(path))
    if isinstance(material, KeyMaterial):
        return _identity(path, material, provider)
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
    if isinstance(public, PublicRecipient):
        raise FormatError(
            f"{path} is of a recipient",
            expected="a signing identity",
            hint="its owner makes a signing identity with: pqreg key generate NAME",
        )
    return public


def shown(path: Path, passphrase: PassphraseSource | None = None) -> PublicIdentity | PublicRecipient:
    """The public part of whatever key is in ``path``, which is a secret key file or a public one.

    Raises:
        KeyCustodyError, FormatError, StorageError: as ``public_of``.
    """
    with reported("read", path), open(path, "rb") as file:
        if file.read(len(keyfile.MAGIC)) in keyfile.MAGICS:
            secret = opened(path, passphrase)
            return secret.identity if isinstance(secret, SecretIdentity) else secret.public
        file.seek(0)
        data = file.read(limits.IDENTITY_FILE_BYTES + 1)
    return PublicRecipient.from_file(data) if is_recipient_file(data) else PublicIdentity.from_pem(data)


def _material(secret: SecretIdentity | SecretRecipient) -> KeyMaterial | RecipientMaterial:
    if isinstance(secret, SecretIdentity):
        return secret.material()
    return RecipientMaterial(profile_of(secret.public.kem.level), secret.public.id, secret.seed())


def _identity(path: Path, material: KeyMaterial, provider: Provider) -> SecretIdentity:
    try:
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
