# SPDX-License-Identifier: Apache-2.0
"""Origins: the scheme, host and port to which a credential belongs, and never to any other.

Two URLs are of one origin when all three agree after normalisation (lower case, default ports written out).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from pq_registry import limits
from pq_registry.errors import ResponseInvalid, SettingError

DEFAULT_PORTS = {"http": 80, "https": 443}
_VISIBLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request goes. ``host`` is lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def encrypted(self) -> bool:
        """Whether TLS protects what is sent."""
        return self.scheme == "https"

    @property
    def private(self) -> bool:
        """Whether nobody on the network can read a credential sent there: TLS, or this machine."""
        if self.encrypted or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name: also one that merely begins with 127.

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if DEFAULT_PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def parse_registry(url: str) -> tuple[Origin, str]:
    """The origin of a configured registry, and the path below which its routes live (usually empty).

    Raises:
        SettingError: if ``url`` is not an http or https URL without credentials, query and fragment.
    """
    try:
        origin, parts = _split(url)
        if parts.query or parts.fragment or "?" in url or "#" in url:
            raise ValueError("it has a query or a fragment")
    except ValueError as error:
        raise SettingError(
            "the registry's URL is wrong", expected="https://host[:port][/path]", found=str(error)
        ) from None
    return origin, parts.path.rstrip("/")


def parse_location(location: str | None, source: Origin) -> tuple[Origin, str]:
    """Where a redirect from ``source`` leads: origin and request target (path and query).

    The target may carry a signature in its query, so no message quotes it.

    Raises:
        ResponseInvalid: if it is not an absolute http or https URL without credentials, or leaves TLS.
    """
    try:
        if location is None or len(location) > limits.LOCATION_CHARS:
            raise ValueError("it is missing or too long")
        origin, parts = _split(location)
    except ValueError as error:
        raise ResponseInvalid(
            f"{source} redirects to nowhere", expected="an absolute http or https URL", found=str(error)
        ) from None
    if source.encrypted and not origin.encrypted:
        raise ResponseInvalid(f"{source} redirects to a connection without TLS", expected="https", found=str(origin))
    return origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _split(url: str) -> tuple[Origin, SplitResult]:
    # The messages below must not quote the URL: it may hold a password or a signature.
    if not _VISIBLE.fullmatch(url):
        raise ValueError("it holds characters a URL cannot have")
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("its scheme is neither http nor https")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError("it holds a user name or a password")
    host = (parts.hostname or "").rstrip(".")
    if not _HOST.fullmatch(host):
        raise ValueError("it names no host")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is not a number up to 65535") from None
    if port == 0:
        raise ValueError("its port is 0")
    return Origin(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme]), parts
