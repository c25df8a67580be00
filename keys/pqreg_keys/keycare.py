# SPDX-License-Identifier: Apache-2.0
"""The life of a secret key file after it was made: another passphrase, a backup, restoring it.

All three work on whatever kind of key a file holds, and never need a PKCS#11 token: of an identity whose EC half is in
one, the file, and so the backup, holds the rest.

A backup is text, so that it can be printed, and always sealed under a passphrase of its own::

    -----BEGIN PQREG KEY BACKUP-----
    base64, 64 columns, of a secret key file sealed with the backup's passphrase
    -----END PQREG KEY BACKUP-----
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Final

from pq_registry import limits
from pq_registry.crypto.secret import SecretBytes
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import FormatError
from pqreg_keys import custody, keyfile, secretfile
from pqreg_keys.custody import AnySecret
from pqreg_keys.keyfile import DEFAULT_COST, PassphraseCost
from pqreg_keys.passphrase import Passphrase, PassphraseSource

BACKUP_SUFFIX: Final = ".pqbackup"
_BEGIN: Final = b"-----BEGIN PQREG KEY BACKUP-----\n"
_END: Final = b"-----END PQREG KEY BACKUP-----\n"
_BLOCK: Final = re.compile(re.escape(_BEGIN) + rb"((?:[A-Za-z0-9+/=]{1,64}\n)+)" + re.escape(_END))


def change_passphrase(
    path: Path, old: PassphraseSource | None, new: Passphrase | None, *, cost: PassphraseCost = DEFAULT_COST
) -> bool:
    """Seal the key file at ``path`` anew, under ``new``, or unsealed if that is None.

    The new file replaces the old one in one step: whenever this is interrupted, one of the two is there, whole. What
    was replaced may still be found by whoever can read the bare disk, snapshots or backups.

    Returns:
        Whether the file was sealed before.

    Raises:
        KeyFileExposed, WrongPassphrase, KeyCustodyError, FormatError, StorageError: as ``custody.load``.
    """
    with secretfile.read(path) as content:
        sealed = keyfile.is_sealed(content)
        material = keyfile.decode_any(content, old, name=str(path))
    try:
        with keyfile.encode(material, new, cost=cost) as again:
            _check_opens(path, again, new)
            # A link stays a link: what it points at is replaced.
            write_file(Path(os.path.realpath(path)), again, mode=0o600, exact_mode=True)
    finally:
        material.wipe()
    return sealed


def backup(
    path: Path,
    passphrase: PassphraseSource | None,
    backup_passphrase: Passphrase,
    *,
    cost: PassphraseCost = DEFAULT_COST,
) -> bytes:
    """The key file at ``path`` as a backup under ``backup_passphrase``, which is best another than the file's.

    Raises:
        KeyFileExposed, WrongPassphrase, KeyCustodyError, FormatError, StorageError: as ``custody.load``.
    """
    with secretfile.read(path) as content:
        material = keyfile.decode_any(content, passphrase, name=str(path))
    try:
        with keyfile.encode(material, backup_passphrase, cost=cost) as sealed:
            _check_opens(path, sealed, backup_passphrase)
            text = base64.b64encode(sealed)
    finally:
        material.wipe()
    lines = b"".join(text[start : start + 64] + b"\n" for start in range(0, len(text), 64))
    return _BEGIN + lines + _END


def write_backup(path: Path, text: bytes) -> None:
    """Write a backup to the new file ``path``, mode 0600.

    Raises:
        AlreadyExists: if something stands there.
        StorageError: if it cannot be written.
    """
    write_file(path, text, mode=0o600, exact_mode=True, replace=False)


def read_backup(path: Path) -> bytes:
    """The content of a backup file.

    Raises:
        FormatError: if it is too large to be one.
        StorageError: if it cannot be read.
    """
    with reported("read the backup", path), open(path, "rb") as file:
        text = file.read(limits.KEY_BACKUP_BYTES + 1)
    if len(text) > limits.KEY_BACKUP_BYTES:
        raise _not_a_backup("a larger file")
    return text


def restore(
    text: bytes,
    backup_passphrase: PassphraseSource | None,
    directory: Path,
    name: str,
    passphrase: Passphrase | None,
    *,
    cost: PassphraseCost = DEFAULT_COST,
) -> tuple[Path, Path, AnySecret]:
    """Write ``name``.pqkey and ``name``.pqpub below ``directory`` from a backup; nothing is ever overwritten.

    Raises:
        FormatError: if ``text`` is not a backup, or not that of the key it names.
        WrongPassphrase: if the backup's passphrase is wrong, or the backup was altered.
        AlreadyExists: if one of the two files exists.
        KeyCustodyError: if no passphrase can be had.
        StorageError: if a file cannot be written.
    """
    secret_path, _public_path = secretfile.pair_paths(directory, name)
    match = _BLOCK.fullmatch(text.replace(b"\r\n", b"\n"))  # it may have been typed in, or passed through mail
    if match is None:
        raise _not_a_backup("something else")
    try:
        sealed = SecretBytes(base64.b64decode(match[1].replace(b"\n", b""), validate=True))
    except ValueError:
        raise _not_a_backup("damaged base64") from None
    with sealed:
        if not keyfile.is_sealed(sealed):
            raise _not_a_backup("a key that is not sealed")
        material = keyfile.decode_any(sealed, backup_passphrase, name="the backup")
    # That the keys fit the id they are filed under is checked before anything is written.
    secret = custody.secret_of(material, path=secret_path)
    make_directory(directory, 0o700)
    return (*custody.store_pair(directory, name, secret, passphrase, cost=cost), secret)


def _check_opens(path: Path, content: SecretBytes, passphrase: Passphrase | None) -> None:
    # Nobody finds out later that the only copy cannot be opened.
    again = keyfile.decode_any(content, None if passphrase is None else lambda: passphrase, name=str(path))
    again.wipe()


def _not_a_backup(found: str) -> FormatError:
    return FormatError("not a key backup", expected="the text that pqreg key backup writes", found=found)
