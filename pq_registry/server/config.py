# SPDX-License-Identifier: Apache-2.0
"""How a service is configured, checked once at the start."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from pq_registry import limits
from pq_registry.errors import SettingError
from pq_registry.server.address import Network, parse_networks
from pq_registry.service.quotas import Quotas, read_quotas
from pq_registry.settings import Settings
from pq_registry.storage.stores import StoreConfig

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_LISTEN = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.:-]{1,253}", re.ASCII)
_LEVELS = ("debug", "info", "warning", "error")
_MOST_PORT = 65535


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
        )


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port from ``HOST:PORT``; an IPv6 address stands in brackets. Port 0 is any free one.

    Raises:
        SettingError: if ``text`` is not of that form.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > _MOST_PORT:
        raise SettingError("setting listen is wrong", expected="HOST:PORT, e.g. 127.0.0.1:8470", found=repr(text)[:80])
    return match["six"] or match["four"], int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).absolute()


def parse_hosts(text: str | None, listen_host: str) -> frozenset[str] | None:
    """The host names to answer to, from a list by commas; without one loopback's on loopback, elsewhere any.

    Raises:
        SettingError: if one is no host name.
    """
    if text is None:
        # A page anywhere can make its reader's browser ask a name that resolves to 127.0.0.1.
        return LOOPBACK_HOSTS | {listen_host.lower()} if is_loopback(listen_host) else None
    hosts = frozenset(host.strip().lower() for host in text.split(","))
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise SettingError("setting hosts is wrong", expected="host names, by commas", found=repr(host)[:80])
    return hosts
