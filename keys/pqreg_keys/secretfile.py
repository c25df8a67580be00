# SPDX-License-Identifier: Apache-2.0
"""Where secret key files stand and who may read them. ``keyfile`` knows their bytes, ``custody`` what they are for."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from pq_registry import limits
from pq_registry.crypto.secret import SecretBytes
from pq_registry.durable import reported
from pq_registry.errors import AlreadyExists, FormatError, KeyFileExposed, UsageError
from pqreg_keys.material import MAGICS

KEY_SUFFIX = ".pqkey"
PUBLIC_SUFFIX = ".pqpub"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,95}", re.ASCII)


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


def read(path: Path) -> SecretBytes:
    """The content of a secret key file that nobody else can use; the caller wipes it.

    Raises:
        KeyFileExposed: if others than the user who runs this own, may read or may write the file.
        FormatError: if it is not a secret key file.
        UsageError: if there is none.
        StorageError: if it cannot be read.
    """
    content, state = open_private(
        path, limit=limits.KEY_FILE_BYTES, what="secret key file",
        hint="check the path, or make one: pqreg key generate NAME",
    )  # fmt: skip
    if len(content) > limits.KEY_FILE_BYTES or not content.startswith(MAGICS):
        raise FormatError(
            f"{path} is not a secret key file",
            expected="a .pqkey file of version 1",
            hint="make one with: pqreg key generate NAME",
        )
    check_exposure(path, state)
    return content


def open_private(path: Path, *, limit: int, what: str, hint: str) -> tuple[SecretBytes, os.stat_result]:
    """Up to ``limit`` + 1 bytes of a regular file and its state, which ``check_exposure`` has yet to judge.

    Raises:
        FormatError: if it is no regular file.
        UsageError: if there is none; ``hint`` says what to do.
        StorageError: if it cannot be read.
    """
    # Non-blocking: opening a pipe that stands at this path must not hang.
    with reported(f"open the {what}", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            raise UsageError(f"there is no {what} {path}", hint=hint) from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise FormatError(f"{path} is not a {what}", expected="a regular file")
        content = SecretBytes(limit + 1)
        with reported(f"read the {what}", path), open(descriptor, "rb", buffering=0, closefd=False) as file:
            length = file.readinto(content) or 0
        del content[length:]
    finally:
        os.close(descriptor)
    return content, state


def check_exposure(path: Path, state: os.stat_result) -> None:
    """Refuse a secret file that others than its owner, who must run this, can use.

    Raises:
        KeyFileExposed: if others own it, may read it or may write it.
    """
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
            hint=f"chmod 600 {path}; if others had access, generate a new key and have this one replaced",
        )
