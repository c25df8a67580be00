# SPDX-License-Identifier: Apache-2.0
"""The client's parts as the settings describe them; one meaning of each setting for the command line and the loader."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client.rate import TokenBucket
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.crypto.provider import Provider
from pq_registry.crypto.providers import provider_named
from pq_registry.errors import TrustMissing
from pq_registry.settings import Settings, parse_rate


def registry_client(settings: Settings) -> RegistryClient:
    """A client of the configured registry; the caller closes it.

    Raises:
        SettingError: if no registry is configured, or a setting is malformed.
    """
    ca = settings.get("tls_ca")
    return RegistryClient(
        settings.require("registry"),
        settings.get("token"),
        ca=None if ca is None else Path(ca),
        rate=TokenBucket(parse_rate(settings.require("limit_rate"))),
    )


def connections(settings: Settings) -> int:
    """Parallel connections of a transfer.

    Raises:
        SettingError: if it is not a possible number.
    """
    return settings.integer("connections", minimum=1, maximum=limits.CONNECTIONS)


def chosen_provider(settings: Settings) -> Provider:
    """Who verifies ML-DSA signatures.

    Raises:
        SettingError: if the setting names nobody.
        ProviderUnavailable: if it is not installed.
    """
    return provider_named(settings.require("provider"))


def verifier(settings: Settings, now: datetime, *, online: bool) -> Verifier:
    """A verifier that believes the configured trust file. Step 0 of DESIGN §5.

    Raises:
        TrustError: if there is no trust file, or it has expired.
        FormatError: if it is malformed.
        ProviderUnavailable: if the chosen provider is not installed.
    """
    return Verifier(trust_bytes(settings), now, online=online, provider=chosen_provider(settings))


def trust_bytes(settings: Settings) -> bytes | None:
    """The content of the configured trust file; None if none is configured.

    Raises:
        TrustMissing: if one is configured that cannot be read.
    """
    path = settings.get("trust")
    return None if path is None else read_trust(Path(path))


def read_trust(path: Path) -> bytes:
    """The content of a trust file, or a little more than the parser accepts.

    Raises:
        TrustMissing: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limits.TRUST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise TrustMissing(
            f"the trust file {path} cannot be read",
            found=error.strerror if isinstance(error, OSError) else "a path that cannot exist",
            hint="check the path you gave, or PQREG_TRUST; to make a trust file: pqreg trust init",
        ) from None
