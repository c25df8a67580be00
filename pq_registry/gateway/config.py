# SPDX-License-Identifier: Apache-2.0
"""How a gateway is configured, checked once at the start, and the sources that the settings describe.

Where releases are looked for: in the directories of ``gateway_from``, then on the Hub of ``gateway_hub``, and if
neither is set in the registry. A registry beside the others is asked for grants only.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client import configured
from pq_registry.client.hubtoken import GATEWAY_HUB, hub_credential
from pq_registry.client.keptgrants import KeptGrant
from pq_registry.client.keysource import recipient_key
from pq_registry.client.origin import parse_registry
from pq_registry.client.places import parse_origins
from pq_registry.client.proofs import fetch_receipt
from pq_registry.client.rate import TokenBucket
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.errors import NameSyntaxError, SettingError
from pq_registry.format.name import Namespace
from pq_registry.format.release import Release
from pq_registry.gateway.cache import ShardCache
from pq_registry.gateway.origins import Origin
from pq_registry.gateway.origins.directory import DirectoryOrigin
from pq_registry.gateway.origins.hub import HubOrigin
from pq_registry.gateway.origins.registry import RegistryOrigin
from pq_registry.server.listening import LOOPBACK_HOSTS, is_loopback, parse_listen
from pq_registry.server.logs import log
from pq_registry.settings import Settings, parse_rate

_LOGGER = logging.getLogger(__name__)
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Everything a gateway needs to know. ``directories`` and ``hub`` are where it looks instead of the registry."""

    settings: Settings
    host: str
    port: int
    directories: tuple[Path, ...]
    hub: str | None
    organisation: Namespace | None
    cache: Path | None
    cache_bytes: int
    token: str | None = field(repr=False)
    connections: int
    log_level: str

    @property
    def hosts(self) -> frozenset[str]:
        """The host names it answers to."""
        return LOOPBACK_HOSTS | {self.host.lower()}

    @classmethod
    def from_settings(cls, settings: Settings) -> GatewayConfig:
        """Read the settings.

        Raises:
            SettingError: if one is wrong, names an address others can reach, or no source is configured.
        """
        host, port = parse_listen(settings.require("gateway_listen"))
        if not is_loopback(host):
            raise SettingError(
                "a gateway listens on this machine only", expected="an address of loopback, e.g. 127.0.0.1:8480",
                found=host, hint="run one gateway on each node; what crosses a network is verified at its end",
            )  # fmt: skip
        level = settings.require("log_level").lower()
        if level not in _LEVELS:
            raise SettingError("setting log_level is wrong", expected=", ".join(_LEVELS), found=repr(level)[:40])
        directories = tuple(Path(part) for part in (settings.get("gateway_from") or "").split(os.pathsep) if part)
        hub = settings.get("gateway_hub")
        organisation = _organisation(settings.get("gateway_hub_organisation"))
        if organisation is not None and hub is None:
            raise SettingError(
                "setting gateway_hub_organisation is of no use", expected="gateway_hub beside it", found="no Hub",
                hint="give --hub URL as well, or leave --hub-organisation out",
            )  # fmt: skip
        if not directories and hub is None and settings.get("registry") is None:
            raise SettingError(
                "a gateway needs somewhere to look for releases", expected="a registry, directories or a Hub",
                found="none of them", hint="set PQREG_REGISTRY, or give --registry URL, --from DIR or --hub URL",
            )  # fmt: skip
        size = parse_rate(settings.require("gateway_cache_size"))
        if size > limits.GATEWAY_CACHE_BYTES:
            raise SettingError(
                "setting gateway_cache_size is wrong",
                expected=f"at most {limits.GATEWAY_CACHE_BYTES} bytes",
                found=size,
            )
        token = settings.get("gateway_token")
        if token is not None and (
            not token.isascii() or not token.isprintable() or " " in token or len(token) > limits.GATEWAY_TOKEN_CHARS
        ):
            raise SettingError("setting gateway_token is wrong", expected="visible ASCII characters")
        cache = Path(settings.get("gateway_cache") or settings.cache_dir / "gateway").absolute()
        return cls(
            settings=settings,
            host=host,
            port=port,
            directories=directories,
            hub=hub,
            organisation=organisation,
            # What is in a directory is on this machine already.
            cache=cache if size and (hub is not None or not directories) else None,
            cache_bytes=size,
            token=token,
            connections=configured.connections(settings),
            log_level=level,
        )

    def open_cache(self) -> ShardCache | None:
        """The cache, locked. Raises Conflict, SettingError or StorageError."""
        return None if self.cache is None else ShardCache(self.cache, size=self.cache_bytes)

    def open_origins(self, clock: Callable[[], datetime]) -> list[Origin]:
        """The sources, in the order they are asked; the recipient key is unlocked here, once.

        ``clock`` says by what time everything is judged, each time it is.

        Raises:
            PqregError: if the trust file, the key or a source cannot be used.
        """
        sources = _Sources(self, clock)
        sources.verifier(online=True)  # a trust file that cannot be used is said at the start
        key, state = recipient_key(self.settings), self.settings.state_dir
        found: list[Origin] = []
        if self.directories:
            found.append(
                DirectoryOrigin(
                    self.directories, verifier=sources.offline, state_dir=state, key=key, grants=sources.grant
                )
            )
        if self.hub is not None:
            found.append(
                HubOrigin(
                    self.hub_client(self.hub), verifier=sources.offline, state_dir=state,
                    organisation=self.organisation, key=key, grants=sources.grant,
                )
            )  # fmt: skip
        if not found:
            client = configured.registry_client(self.settings)
            found.append(RegistryOrigin(client, verifier=sources.online, state_dir=state, key=key))
        return found

    def hub_client(self, url: str) -> RegistryClient:
        """A client of a Hub, with the Hub's token if there is one for it.

        Raises:
            SettingError: if the URL or the token is malformed, or the token would travel unencrypted.
        """
        ca = self.settings.get("tls_ca")
        credential, origin = hub_credential(self.settings, GATEWAY_HUB), parse_registry(url)[0]
        if credential.token is not None and not origin.private:
            raise SettingError(f"a token for {origin} would travel unencrypted", expected="https", found=origin.scheme)
        if credential.withheld is not None:
            log(
                _LOGGER, logging.WARNING, credential.withheld, hint="give it in PQREG_HUB_TOKEN, with PQREG_GATEWAY_HUB"
            )
        return RegistryClient(
            url,
            credential.token,
            ca=None if ca is None else Path(ca),
            rate=TokenBucket(parse_rate(self.settings.require("limit_rate"))),
            storage_origins=parse_origins(self.settings.get("storage_origins")),
        )


class _Sources:
    """What sources are made of, by the settings and the trust file as they are when it is asked for."""

    def __init__(self, config: GatewayConfig, clock: Callable[[], datetime]) -> None:
        self._settings = config.settings
        self._clock = clock

    def verifier(self, *, online: bool) -> Verifier:
        """By the trust file as it is now: a new one counts without a restart."""
        return configured.verifier(self._settings, self._clock(), online=online)

    def online(self) -> Verifier:
        """For a registry: nothing lapsed is let pass."""
        return self.verifier(online=True)

    def offline(self) -> Verifier:
        """For what brings no news."""
        return self.verifier(online=False)

    def grant(self, release: Release, recipient: str) -> KeptGrant | None:
        """The grant the registry has, if one is configured beside the sources."""
        if self._settings.get("registry") is None:
            return None
        with contextlib.closing(configured.registry_client(self._settings)) as client:
            grant = client.grant_envelope(release.name, release.digest, recipient)
            if grant is None:
                return None
            return grant, fetch_receipt(client, self.offline(), grant)


def _organisation(text: str | None) -> Namespace | None:
    if text is None:
        return None
    try:
        return Namespace(text)
    except NameSyntaxError as error:
        raise SettingError(
            "setting gateway_hub_organisation is wrong", expected=error.expected, found=error.found
        ) from None
