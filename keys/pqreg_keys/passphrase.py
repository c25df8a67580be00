# SPDX-License-Identifier: Apache-2.0
"""Where the passphrase of a key file comes from: an open descriptor, a file's first line, a setting, or a terminal.

A service has no terminal: its manager hands it an open descriptor (``--passphrase-fd``), or systemd puts the passphrase
into the directory of credentials that only the service can read (``LoadCredentialEncrypted=pqreg-passphrase:...``).

A ``PassphraseSource`` is called only when a key file really needs a passphrase, so nobody is asked in vain. A
passphrase is Unicode text in normalisation form C, as UTF-8: the same keys typed on two systems give the same bytes.
It is kept in ``SecretBytes`` and prints as ``<secret>``.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

from pq_registry import limits
from pq_registry.crypto.secret import SecretBytes
from pq_registry.durable import reported
from pq_registry.errors import KeyCustodyError, KeyFileExposed, UsageError
from pq_registry.settings import Settings

PassphraseSource = Callable[[], "Passphrase"]
Ask = Callable[[str], str]


class Passphrase:
    """A passphrase, not empty. Its ``repr`` shows nothing and it cannot be pickled or copied."""

    __slots__ = ("encoded",)

    encoded: SecretBytes

    def __init__(self, text: str) -> None:
        """Normalise and encode ``text``.

        Raises:
            UsageError: if it is empty, too long, or cannot be written as UTF-8.
        """
        try:
            self.encoded = SecretBytes(unicodedata.normalize("NFC", text).encode("utf-8"))
        except UnicodeEncodeError:
            raise UsageError("the passphrase cannot be used", expected="text that can be written as UTF-8") from None
        if not 0 < len(self.encoded) <= limits.PASSPHRASE_BYTES:
            raise UsageError("the passphrase cannot be used", expected=f"1 to {limits.PASSPHRASE_BYTES} bytes",
                             found=f"{len(self.encoded)} bytes")  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Passphrase) and self.encoded == other.encoded

    __hash__ = None  # type: ignore[assignment]  # a secret is no key of a table

    def __repr__(self) -> str:
        return "<Passphrase>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a passphrase is neither pickled nor copied")


def fixed(text: str) -> PassphraseSource:
    """A source for a passphrase that is known already."""
    passphrase = Passphrase(text)
    return lambda: passphrase


def from_file(path: Path) -> PassphraseSource:
    """A source that reads the first line of ``path``: a regular file of the owner's alone, or a pipe."""
    return lambda: _read(path)


def from_descriptor(number: int) -> PassphraseSource:
    """A source that reads the first line of an open descriptor, once, and closes it."""
    return asked_once(lambda: _read_descriptor(number))


def asked_once(source: PassphraseSource) -> PassphraseSource:
    """``source``, which is asked at most once."""
    known: list[Passphrase] = []

    def ask() -> Passphrase:
        if not known:
            known.append(source())
        return known[0]

    return ask


def from_terminal(question: str, *, twice: bool = False, ask: Ask = getpass.getpass) -> PassphraseSource:
    """A source that asks on the terminal; ``twice`` for a new passphrase."""
    return lambda: _prompt(question, twice=twice, ask=ask)


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def configured(settings: Settings, *, question: str, twice: bool = False) -> PassphraseSource | None:
    """The source that ``settings`` and the terminal offer.

    In this order: descriptor, file, the setting itself, systemd's credential (not for a new passphrase), the terminal;
    None if there is none of them.

    Raises:
        SettingError: if the number of the descriptor is none.
    """
    if settings.get("passphrase_fd") is not None and not settings.given("passphrase_file"):
        return from_descriptor(settings.integer("passphrase_fd", minimum=0, maximum=limits.DESCRIPTOR))
    path = settings.get("passphrase_file")
    if path is not None:
        return from_file(Path(path))
    text = settings.get("passphrase")
    if text is not None:
        return fixed(text)
    credential = settings.passphrase_credential
    if credential is not None and not twice:
        # No look at its mode: systemd keeps it from other users by an access control list, which shows as group bits.
        return lambda: _read(credential, private=True)
    return from_terminal(question, twice=twice) if has_terminal() else None


def _read(path: Path, *, private: bool = False) -> Passphrase:
    with reported("read the passphrase file", path), open(path, "rb") as file:
        state = os.fstat(file.fileno())
        if not private and stat.S_ISREG(state.st_mode) and state.st_mode & 0o077:
            raise KeyFileExposed(
                f"others may read the passphrase file {path}",
                expected="mode 0600",
                found=f"mode {stat.S_IMODE(state.st_mode):04o}",
                hint=f"chmod 600 {path}, and change the passphrase if others had access",
            )
        return _first_line(file, f"passphrase file {path}")


def _read_descriptor(number: int) -> Passphrase:
    try:
        with open(number, "rb", closefd=True) as file:
            return _first_line(file, f"descriptor {number}")
    except OSError as error:
        raise UsageError(f"the passphrase cannot be read from descriptor {number}", expected="an open descriptor",
                         found=error.strerror) from None  # fmt: skip


def _first_line(file: IO[bytes], where: str) -> Passphrase:
    with SecretBytes(file.readline(limits.PASSPHRASE_BYTES + 2)) as line:
        for ending in (b"\n", b"\r"):
            if line.endswith(ending):
                del line[-1:]
        try:
            return Passphrase(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise UsageError(f"the {where} cannot be used", expected="UTF-8 text") from None


def _prompt(question: str, *, twice: bool, ask: Ask) -> Passphrase:
    try:
        passphrase = Passphrase(ask(f"{question}: "))
        if twice and Passphrase(ask(f"{question} again: ")) != passphrase:
            raise UsageError("the two passphrases differ", hint="run the command again")
    except EOFError:
        raise KeyCustodyError("no passphrase was given") from None
    return passphrase
