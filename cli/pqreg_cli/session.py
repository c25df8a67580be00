# SPDX-License-Identifier: Apache-2.0
"""What a command works with: its settings, and the parts of the library made from them, each when first asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pq_registry.errors import UsageError
from pq_registry.settings import Settings
from pqreg_cli.console import Output
from pqreg_cli.progress import SilentProgress, new_progress

if TYPE_CHECKING:
    from pq_registry.client.origin import Origin
    from pq_registry.client.seengrants import SeenGrants
    from pq_registry.client.state import SeenTags
    from pq_registry.client.transport import RegistryClient
    from pq_registry.client.trust import Verifier
    from pq_registry.crypto.signing import Signer


class Session:
    """One run of one command. Options that were not given (None) come from the settings."""

    def __init__(self, output: Output, **given: str | Path | None) -> None:
        """Resolve the settings; the names of ``given`` are those of ``pq_registry.settings.SETTINGS``.

        Raises:
            SettingError: if the config file cannot be used.
        """
        self.output = output
        self.settings = Settings({name: None if value is None else str(value) for name, value in given.items()})

    def client(self) -> RegistryClient:
        """A client of the configured registry.

        Raises:
            SettingError: if no registry is configured, or its URL is wrong.
        """
        from pq_registry.client.configured import credential, registry_client

        client = registry_client(self.settings)
        sent = credential(self.settings)
        if sent.withheld is not None:
            self.output.warning(sent.withheld)
        if sent.token and not client.origin.private:
            self._warn_of_readers(client.origin)
        return client

    def warn_if_readable(self) -> None:
        """Say so if the token will go to the registry in the clear; for commands whose client the library makes.

        Raises:
            SettingError: if no registry is configured, or its URL is wrong.
        """
        from pq_registry.client.configured import credential
        from pq_registry.client.origin import parse_registry

        origin, *_ = parse_registry(self.settings.require("registry"))
        if credential(self.settings).token and not origin.private:
            self._warn_of_readers(origin)

    def _warn_of_readers(self, origin: Origin) -> None:
        self.output.warning(f"the token goes to {origin} unencrypted, for all on the way to read; use https")

    def verifier(self, *, online: bool) -> Verifier:
        """The verifier of the configured trust file; without one it refuses and says how to get one.

        Raises:
            TrustError: if there is no trust file, or it has expired.
            FormatError: if it is malformed.
        """
        from pq_registry.client import configured
        from pq_registry.format.instant import utc_now

        return configured.verifier(self.settings, utc_now(), online=online)

    def seen_tags(self) -> SeenTags:
        """The memory of the newest tags this user has accepted."""
        from pq_registry.client.state import SeenTags

        return SeenTags(self.settings.state_dir)

    def seen_grants(self, *, recording: bool = True) -> SeenGrants:
        """The memory of the newest grants this user has accepted; see ``SeenGrants`` for ``recording``."""
        from pq_registry.client.seengrants import SeenGrants

        return SeenGrants(self.settings.state_dir, recording=recording)

    def signer(self) -> Signer:
        """The configured signing identity, unlocked.

        Raises:
            SettingError: if no key is configured.
            KeyCustodyError: if the file is exposed, or the passphrase is wrong.
        """
        from pqreg_keys.source import FileKeySource

        return FileKeySource.from_settings(self.settings).open(Path(self.settings.require("key")))

    @property
    def connections(self) -> int:
        """Parallel connections."""
        from pq_registry.client.configured import connections

        return connections(self.settings)

    def progress(self) -> SilentProgress:
        """The progress display for these streams; use it as a context manager."""
        return new_progress(self.output)


def read_small(path: Path, what: str, limit: int) -> bytes:
    """The content of a small file the user named, called ``what``.

    Raises:
        UsageError: if it cannot be read or is larger than ``limit`` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}", found=error.strerror) from None
    if len(data) > limit:
        raise UsageError(f"{path} is not a {what}", expected=f"at most {limit} bytes")
    return data
