# SPDX-License-Identifier: Apache-2.0
"""Custody of secret identities: generate, store, load. The only code that opens a secret key file.

Rules:

* A key file is created with mode 0600 whatever the umask is, durably, and never over anything that exists.
* It is opened only if it is a regular file that belongs to the user who runs this and nobody else may read or write
  it. The descriptor that was checked is the one that is read.
* A ``SecretIdentity`` shows its id and nothing else: not in ``repr``, not in a traceback, and it cannot be pickled.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path
from typing import NoReturn

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import PrivateHalf, Provider
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import DEFAULT_PROFILE, Profile
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import AlreadyExists, FormatError, KeyFileExposed, UsageError
from pqreg_keys import keyfile
from pqreg_keys.keyfile import DEFAULT_COST, KeyMaterial, PassphraseCost
from pqreg_keys.passphrase import Passphrase, PassphraseSource

KEY_SUFFIX = ".pqkey"
PUBLIC_SUFFIX = ".pqpub"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,95}", re.ASCII)


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


def store(
    path: Path, identity: SecretIdentity, passphrase: Passphrase | None, *, cost: PassphraseCost = DEFAULT_COST
) -> None:
    """Write ``identity`` to the new file ``path``, mode 0600; sealed unless ``passphrase`` is None.

    Raises:
        AlreadyExists: if something stands at ``path``; it is left as it is.
        KeyCustodyError: if there is not enough memory to seal it.
        StorageError: if the file cannot be written; nothing is left behind.
    """
    material = identity.material()
    try:
        with keyfile.encode(material, passphrase, cost=cost) as content:
            write_file(path, content, mode=0o600, exact_mode=True, replace=False)
    finally:
        material.wipe()


def pair_paths(directory: Path, name: str) -> tuple[Path, Path]:
    """Where ``store_pair`` puts ``name``.pqkey and ``name``.pqpub, both free.

    Raises:
        UsageError: if ``name`` cannot name a file.
        AlreadyExists: if one of the two files exists.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "not a name for a key",
            expected="a letter or digit, then at most 95 letters, digits or . _ @ -",
            found=repr(name)[:80],
        )
    paths = directory / (name + KEY_SUFFIX), directory / (name + PUBLIC_SUFFIX)
    for path in paths:
        if os.path.lexists(path):
            raise AlreadyExists(f"{path} exists", hint="choose another name; a key file is never overwritten")
    return paths


def store_pair(
    directory: Path,
    name: str,
    identity: SecretIdentity,
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
    store(secret_path, identity, passphrase, cost=cost)
    try:
        write_file(public_path, identity.identity.to_pem(), mode=0o644, replace=False)
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
    with _read(path) as content:
        material = keyfile.decode(content, passphrase, name=str(path))
    try:
        ec = provider.load(material.profile, "ec", material.ec_pkcs8)
        pq = provider.load(material.profile, "pq", material.pq_pkcs8)
        identity = SecretIdentity(material.profile, ec, pq, SecretBytes(material.recipient_seed))
    finally:
        material.wipe()
    # An unsealed file has no other protection against damage: a flipped bit of a seed is another, unknown identity.
    if identity.identity.id != material.identity_id:
        raise FormatError(
            f"{path} does not hold the identity it names",
            expected=material.identity_id,
            found=identity.identity.id,
            hint="the file is damaged; restore it from your backup",
        )
    return identity


def public_of(path: Path, passphrase: PassphraseSource | None = None) -> PublicIdentity:
    """The public identity in ``path``, which is a secret key file (opened as ``load`` does) or a public one.

    Raises:
        KeyCustodyError: if it is a secret key file that may not or cannot be opened.
        FormatError: if it is neither.
        StorageError: if it cannot be read.
    """
    with reported("read", path), open(path, "rb") as file:
        if file.read(len(keyfile.MAGIC)) == keyfile.MAGIC:
            return load(path, passphrase).identity
        file.seek(0)
        data = file.read(limits.IDENTITY_FILE_BYTES + 1)
    return PublicIdentity.from_pem(data)


def _read(path: Path) -> SecretBytes:
    # Non-blocking: opening a pipe that stands at this path must not hang.
    with reported("open the secret key file", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise FormatError(f"{path} is not a secret key file", expected="a regular file")
        content = SecretBytes(limits.KEY_FILE_BYTES + 1)
        with reported("read the secret key file", path), open(descriptor, "rb", buffering=0, closefd=False) as file:
            length = file.readinto(content) or 0
        del content[length:]
    finally:
        os.close(descriptor)
    if length > limits.KEY_FILE_BYTES or not content.startswith(keyfile.MAGIC):
        raise FormatError(
            f"{path} is not a secret key file",
            expected="a .pqkey file of version 1",
            hint="make one with: pqreg key generate NAME",
        )
    _check_exposure(path, state)
    return content


def _check_exposure(path: Path, state: os.stat_result) -> None:
    if state.st_uid != os.geteuid():
        raise KeyFileExposed(
            f"the secret key file {path} belongs to another user",
            expected=f"user {os.geteuid()}",
            found=f"user {state.st_uid}",
            hint="whoever owns it can read and replace it; use a key file of your own, or chown it",
        )
    if state.st_mode & 0o077:
        raise KeyFileExposed(
            f"others may use the secret key file {path}",
            expected="mode 0600",
            found=f"mode {stat.S_IMODE(state.st_mode):04o}",
            hint=f"chmod 600 {path}; if others had access, generate a new identity and have this one replaced",
        )
