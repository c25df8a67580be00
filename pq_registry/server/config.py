# SPDX-License-Identifier: Apache-2.0
"""How a service is configured, checked once at the start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pq_registry import limits
from pq_registry.errors import SettingError
from pq_registry.server.address import Network, parse_networks
from pq_registry.server.listening import LOOPBACK_HOSTS, is_loopback, parse_hosts, parse_listen
from pq_registry.service.hub.policy import DraftPolicy
from pq_registry.service.quotas import Quotas, read_quotas
from pq_registry.settings import Settings
from pq_registry.storage.stores import StoreConfig

__all__ = ["LOOPBACK_HOSTS", "ServerConfig", "is_loopback", "parse_hosts", "parse_listen"]

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything a service needs to know.

    ``hosts`` are the names it answers to, lower-case and without port; None is any name. ``log_origin``, ``log_key``
    and ``log_witnesses`` are as the settings of these names say; None is what their defaults mean. Rates are requests
    per second, 0 for no limit.
    """

    stores: StoreConfig
    host: str
    port: int
    public_read: bool
    hosts: frozenset[str] | None
    log_level: str
    private_log: bool = False
    log_origin: str | None = None
    log_key: Path | None = None
    log_witnesses: Path | None = None
    read_only: bool = False
    token_rate: int = 0
    address_rate: int = 0
    trusted_proxies: tuple[Network, ...] = ()
    hsts_days: int = 365
    quotas: Quotas = field(default_factory=Quotas)
    drafts: DraftPolicy = DraftPolicy.PUBLISHERS

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.stores.data

    @classmethod
    def from_settings(cls, settings: Settings) -> ServerConfig:
        """Read the service's settings.

        Raises:
            SettingError: if one is missing or wrong.
        """
        host, port = parse_listen(settings.require("listen"))
        level = settings.require("log_level").lower()
        if level not in _LEVELS:
            raise SettingError("setting log_level is wrong", expected=", ".join(_LEVELS), found=repr(level)[:40])
        return cls(
            stores=StoreConfig.from_settings(settings),
            host=host,
            port=port,
            public_read=settings.boolean("public_read"),
            hosts=parse_hosts(settings.get("hosts"), host),
            log_level=level,
            private_log=settings.boolean("private_log"),
            log_origin=settings.get("log_origin"),
            log_key=_path(settings.get("log_key")),
            log_witnesses=_path(settings.get("log_witnesses")),
            read_only=settings.boolean("read_only"),
            token_rate=settings.integer("rate_limit", minimum=0, maximum=limits.REQUEST_RATE),
            address_rate=settings.integer("rate_limit_address", minimum=0, maximum=limits.REQUEST_RATE),
            trusted_proxies=parse_networks(settings.get("trusted_proxies")),
            hsts_days=settings.integer("hsts_days", minimum=0, maximum=limits.HSTS_DAYS),
            quotas=read_quotas(settings),
            drafts=parse_drafts(settings.require("drafts")),
        )


def parse_drafts(text: str) -> DraftPolicy:
    """Who may read drafts.

    Raises:
        SettingError: if ``text`` is no such policy.
    """
    policies = {policy.value: policy for policy in DraftPolicy}
    if text.lower() not in policies:
        raise SettingError("setting drafts is wrong", expected=", ".join(policies), found=repr(text)[:40])
    return policies[text.lower()]


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).absolute()
