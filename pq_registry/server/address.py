# SPDX-License-Identifier: Apache-2.0
"""Whose request it is, by address, and whether it came over TLS: as the trusted proxies before us say.

Anybody can send ``X-Forwarded-For``. So it is read only when the connection comes from a trusted network, from its
end: every proxy appends whom it was asked by. The first address from there that is not a trusted proxy's is the
caller's; whatever stands before it the caller may have made up. ``X-Forwarded-Proto`` counts under the same condition.

Addresses are compared as numbers (``::ffff:192.0.2.1`` is 192.0.2.1), and one IPv6 caller usually has a whole /64.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pq_registry import limits
from pq_registry.errors import SettingError
from pq_registry.server.rate import RateLimit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ADDRESS = "pqreg.address"
OVER_TLS = "pqreg.over_tls"
PROBES = frozenset({"/livez", "/readyz", "/startupz"})
"""What an orchestrator asks; it is never told to come back later."""


class AddressMiddleware:
    """Notes the caller's address in the scope, and holds it to its rate.

    Raises:
        TooManyRequests: from the call, if the address asks too often.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Network], rate: RateLimit) -> None:
        self._app = app
        self._trusted = trusted
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            address, over_tls = caller_of(scope, self._trusted)
            scope[ADDRESS] = address
            scope[OVER_TLS] = over_tls
            if self._rate and scope["path"] not in PROBES:
                self._rate.admit(rate_key(address))
        await self._app(scope, receive, send)


def caller_of(scope: Scope, trusted: Sequence[Network]) -> tuple[str, bool]:
    """The caller's address, and whether a trusted proxy says that the caller spoke TLS."""
    peer = (scope.get("client") or ("",))[0]
    here = _parse(peer) if trusted else None
    if here is None or not _within(here, trusted):
        return peer, False
    headers = Headers(scope=scope)
    over_tls = [value.strip().lower() for value in headers.getlist("x-forwarded-proto")] == ["https"]
    hops = ",".join(headers.getlist("x-forwarded-for")).split(",")
    for hop in reversed(hops[-limits.FORWARDED_HOPS :]):
        address = _parse(hop.strip())
        if address is None:
            break  # not what a proxy writes: what was reached so far is as much as is known
        here = address
        if not _within(here, trusted):
            break
    return str(here), over_tls


def rate_key(address: str) -> str:
    """What an address is counted under: itself, or its /64."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return address if parsed is None else str(parsed)


def parse_networks(text: str | None) -> tuple[Network, ...]:
    """Networks, or single addresses, from a list by commas.

    Raises:
        SettingError: if one is none, or there are too many.
    """
    if text is None:
        return ()
    items = [item.strip() for item in text.split(",")]
    if len(items) > limits.TRUSTED_NETWORKS:
        raise SettingError(
            "setting trusted_proxies is too long", expected=f"{limits.TRUSTED_NETWORKS} networks", found=len(items)
        )
    try:
        return tuple(map(ipaddress.ip_network, items))
    except ValueError as error:
        raise SettingError(
            "setting trusted_proxies is wrong", expected="networks by commas, e.g. 10.0.0.0/8", found=str(error)[:80]
        ) from None


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
