# SPDX-License-Identifier: Apache-2.0
"""The key source for key files: how the library is handed a signer without importing custody."""

from __future__ import annotations

from pathlib import Path

from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.settings import Settings
from pqreg_keys import custody
from pqreg_keys.custody import SecretIdentity
from pqreg_keys.passphrase import PassphraseSource, configured
from pqreg_keys.pkcs11 import TokenAccess


class FileKeySource:
    """Implements ``crypto.signing.KeySource`` and ``crypto.recipient.RecipientSource`` for ``.pqkey`` files."""

    __slots__ = ("_passphrase", "_token")

    def __init__(self, passphrase: PassphraseSource | None = None, token: TokenAccess | None = None) -> None:
        self._passphrase = passphrase
        self._token = token

    @classmethod
    def from_settings(cls, settings: Settings) -> FileKeySource:
        """A source that takes passphrases as the settings say, and otherwise from the terminal if there is one."""
        passphrase = configured(settings, question="Passphrase of the secret key file")
        return cls(passphrase, TokenAccess.from_settings(settings))

    @property
    def passphrase(self) -> PassphraseSource | None:
        """Where passphrases come from; a descriptor is read once, however many files it is for."""
        return self._passphrase

    def open(self, path: Path) -> SecretIdentity:
        """The identity kept at ``path``.

        Raises:
            KeyCustodyError: if the key may not be used, or does not open.
            FormatError: if ``path`` is not a secret key file.
            StorageError: if it cannot be read.
        """
        return custody.load(path, self._passphrase, token=self._token)

    def open_recipient(self, path: Path) -> SecretRecipient:
        """The recipient key kept at ``path``: a recipient's own, or an identity's.

        Raises:
            KeyCustodyError: if the key may not be used, or does not open.
            FormatError: if ``path`` is not a secret key file.
            StorageError: if it cannot be read.
        """
        return custody.load_recipient(path, self._passphrase)
