# SPDX-License-Identifier: Apache-2.0
"""What a service would start with: every setting with its value and where it comes from, and what deserves a look.

Secrets are shown as ``(set)`` and nothing of them, URLs without what stands before an ``@``.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from pq_registry.settings import SETTINGS, Settings

if TYPE_CHECKING:
    from pq_registry.server.config import ServerConfig

CLIENT_ONLY = frozenset(
    {
        "registry", "token", "trust", "key", "recipient_key", "passphrase", "passphrase_file", "passphrase_fd",
        "pkcs11_module", "pin", "pin_file", "provider", "connections", "limit_rate", "tag_lifetime_days", "webhook",
        "storage_origins",
    }
)  # fmt: skip
"""Settings a service does not read."""
_SECRET = "(set)"  # noqa: S105 - what is shown instead of one
_USER = re.compile(r"//[^/@]*@")


def effective_settings(settings: Settings) -> dict[str, dict[str, str | None]]:
    """The settings of a service, by name."""
    found: dict[str, dict[str, str | None]] = {}
    for setting in SETTINGS:
        if setting.name in CLIENT_ONLY:
            continue
        value, source = settings.get(setting.name), settings.source(setting.name)
        if value is not None:
            value = _SECRET if setting.secret else _USER.sub("//", value)
        found[setting.name] = {"value": value, "source": "default" if source is None else source.value}
    return found


def concerns(config: ServerConfig) -> Iterator[str]:
    """Sentences about what is allowed and yet rarely meant."""
    from pq_registry.server.config import is_loopback

    if config.public_read:
        yield "anyone may read every namespace without a token (public_read)"
    if not is_loopback(config.host):
        if config.hosts is None:
            yield "it answers to any host name: name its own (hosts)"
        if not config.trusted_proxies:
            yield "no proxy is trusted (trusted_proxies): behind one all callers look the same, and there is no HSTS"
        if not config.token_rate and not config.address_rate:
            yield "callers may ask as often as they like (rate_limit, rate_limit_address)"
    if config.log_witnesses is None:
        yield "no witness cosigns the log (log_witnesses): receipts attest no time, and only audits see a split view"
    yield from _store_concerns(config)


def _store_concerns(config: ServerConfig) -> Iterator[str]:
    stores = config.stores
    if stores.database is not None and not _is_verified(stores.database):
        yield "the connection to the database does not verify its server: add sslmode=verify-full to its URL"
    if stores.s3 is not None and _is_open(stores.s3.endpoint):
        yield "the connection to the object store is not encrypted (s3_endpoint)"
    if stores.directory.admin_token.exists():
        yield f"{stores.directory.admin_token} is still there: remove it once there are other tokens"
    if config.data.is_dir() and stat.S_IMODE(config.data.stat().st_mode) & 0o077:
        yield f"others on this machine may enter {config.data}: chmod 700"


def _is_verified(url: str) -> bool:
    from pq_registry.server.config import is_loopback

    parts = urlsplit(url)
    host = parts.hostname or ""
    modes = parse_qs(parts.query).get("sslmode", [""])
    return not host or host.startswith("/") or is_loopback(host) or modes[-1] in ("verify-full", "verify-ca")


def _is_open(endpoint: str | None) -> bool:
    from pq_registry.server.config import is_loopback

    parts = urlsplit(endpoint or "")
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
