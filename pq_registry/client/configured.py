# SPDX-License-Identifier: Apache-2.0
"""The client's parts as the settings describe them; one meaning of each setting for the command line and the loader."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client.rate import TokenBucket
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
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


def verifier(settings: Settings, now: datetime, *, online: bool) -> Verifier:
    """A verifier that believes the configured trust file. Step 0 of DESIGN §5.

    Raises:
        TrustError: if there is no trust file, or it has expired.
        FormatError: if it is malformed.
    """
    return Verifier(trust_bytes(settings), now, online=online)


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
