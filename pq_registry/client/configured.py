# SPDX-License-Identifier: Apache-2.0
"""The client's parts as the settings describe them; one meaning of each setting for the command line and the loader."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client.origin import Origin, parse_registry
from pq_registry.client.places import parse_origins
from pq_registry.client.rate import TokenBucket
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.crypto.provider import Provider
from pq_registry.crypto.providers import provider_named
from pq_registry.errors import SettingError, TrustMissing
from pq_registry.settings import Settings, Source, parse_rate


@dataclass(frozen=True, slots=True)
class Credential:
    """The token that goes with the registry in effect, or why the one that is configured does not go there."""

    token: str | None
    withheld: str | None = None


def credential(settings: Settings) -> Credential:
    """The token for the registry in effect: only one that was given with it, or for it.

    A token of the config file is for the registry of that file. One of the environment is for ``PQREG_REGISTRY``, or
    for whichever registry is in effect where that is not set. One that was given is for the registry in effect.

    Raises:
        SettingError: if no registry is configured.
    """
    registry, token = settings.require("registry"), settings.get("token")
    source = settings.source("token")
    if token is None or source is None or source is Source.GIVEN:
        return Credential(token)
    belongs = settings.value_from(source, "registry")
    if source is Source.ENVIRONMENT and not belongs:
        return Credential(token)
    if belongs and (registry == belongs or _same_origin(registry, belongs)):
        return Credential(token)
    where = f"the token of the {source.value} was not given with the registry {_shown(registry)} and is not sent there"
    return Credential(None, f"{where}; give --token (token=) to log in there")


def _same_origin(one: str, other: str) -> bool:
    origin = _origin(one)
    return origin is not None and origin == _origin(other)


def _origin(url: str) -> Origin | None:
    try:
        return parse_registry(url)[0]
    except SettingError:
        return None


def _shown(url: str) -> str:
    # Not the URL as it was given: it may hold a password.
    return str(_origin(url) or "in effect")


def registry_client(settings: Settings) -> RegistryClient:
    """A client of the configured registry, with the token that belongs to it; the caller closes it.

    Raises:
        SettingError: if no registry is configured, or a setting is malformed.
    """
    ca = settings.get("tls_ca")
    return RegistryClient(
        settings.require("registry"),
        credential(settings).token,
        ca=None if ca is None else Path(ca),
        rate=TokenBucket(parse_rate(settings.require("limit_rate"))),
        storage_origins=parse_origins(settings.get("storage_origins")),
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
