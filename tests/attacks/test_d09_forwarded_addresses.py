# SPDX-License-Identifier: Apache-2.0
"""D9: whoever may choose the address a limit is counted under has none. ``X-Forwarded-For`` is anybody's to send."""

from __future__ import annotations

import pytest

from pq_registry import limits
from pq_registry.server.address import caller_of, parse_networks, rate_key

TRUSTED = parse_networks("10.0.0.0/8,2001:db8:1::/48")


def caller(peer: str, *forwarded: str, proto: str | None = None, trusted: bool = True) -> tuple[str, bool]:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    if proto is not None:
        headers.append((b"x-forwarded-proto", proto.encode()))
    return caller_of({"type": "http", "client": (peer, 1), "headers": headers}, TRUSTED if trusted else ())


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", ["198.51.100.9"], "192.0.2.1"),  # no proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.9, 192.0.2.1"], "192.0.2.1"),  # the caller sent the first one itself
        ("10.0.0.1", ["10.0.0.2, 192.0.2.1"], "192.0.2.1"),  # even one that looks like a proxy of ours
        ("10.0.0.1", ["192.0.2.1, 10.0.0.2"], "192.0.2.1"),  # two proxies of ours
        ("10.0.0.1", ["192.0.2.1", "10.0.0.2"], "192.0.2.1"),  # the same in two headers
        ("10.0.0.1", ["198.51.100.9", "192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1, junk"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1, "], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1, 10.0.0.2, <script>"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),  # nobody from outside
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1"),  # IPv4 in IPv6's clothes
        ("2001:db8:1::1", ["2001:db8:2::5"], "2001:db8:2::5"),
        ("", ["192.0.2.1"], ""),  # a socket without addresses
    ],
)
def test_the_caller_is_the_last_who_is_no_proxy_of_ours(peer: str, forwarded: list[str], expected: str) -> None:
    assert caller(peer, *forwarded)[0] == expected
    assert caller(peer, *forwarded, trusted=False)[0] == peer


def test_a_long_header_is_not_walked_through() -> None:
    hops = ", ".join(["192.0.2.1", *["10.0.0.2"] * limits.FORWARDED_HOPS])
    assert caller("10.0.0.1", hops)[0] == "10.0.0.2"


@pytest.mark.parametrize("proto", ["http", "https, http", "https,https", "HTTPS ", ""])
def test_tls_is_what_one_trusted_proxy_says(proto: str) -> None:
    assert caller("10.0.0.1", proto=proto)[1] is (proto.strip().lower() == "https")
    assert caller("192.0.2.1", proto=proto)[1] is False


def test_whoever_has_a_network_has_one_address() -> None:
    assert rate_key("2001:db8::1") == rate_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert rate_key("2001:db8:0:1::1") != rate_key("2001:db8::1")
    assert rate_key("::ffff:192.0.2.1") == rate_key("192.0.2.1") == "192.0.2.1"
    assert rate_key("unix") == "unix"
