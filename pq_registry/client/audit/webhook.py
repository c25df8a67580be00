# SPDX-License-Identifier: Apache-2.0
"""Tells somebody what an audit found: one JSON POST to a URL the operator configured.

The URL may hold a secret in its path or query, as chat services do it, so no message and no log repeats more than its
origin. Nothing else goes there: no token, no cookie. Redirects are not followed and the answer is not read beyond its
status. What could not be delivered is tried again with the next audit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pq_registry import limits
from pq_registry.client.exchange import excuse
from pq_registry.client.failure import WireFailure
from pq_registry.client.origin import parse_location, parse_registry
from pq_registry.client.wire import Tls, Wire
from pq_registry.errors import ConnectionFailed, ResponseInvalid, ServerRefused, SettingError

SCHEMA = "urn:pq-registry:audit-webhook:v1"


class Webhook:
    """Where findings are told."""

    def __init__(self, url: str, *, ca: Path | None = None, timeout: float = limits.TIMEOUT_SECONDS) -> None:
        """Nothing is sent yet.

        Args:
            url: http or https, without user name and fragment.
            ca: PEM file with the only certificate authorities to accept.
            timeout: longest silence, in seconds.

        Raises:
            SettingError: if the URL is malformed; it is not repeated.
        """
        try:
            # The first refuses what no registry's URL may have; the second would let a query in, and a fragment.
            self.origin, _ = parse_registry(url.partition("?")[0])
            self._target = parse_location(url.partition("#")[0], self.origin)[1]
        except (SettingError, ResponseInvalid) as error:
            raise SettingError("the webhook's URL is wrong", expected="https://host[:port]/path[?query]",
                               found=error.found) from None  # fmt: skip
        if "#" in url:
            raise SettingError("the webhook's URL is wrong", expected="no fragment")
        self._tls = Tls(ca)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"Webhook({str(self.origin)!r})"

    def tell(self, value: Mapping[str, object]) -> None:
        """Send one document.

        Raises:
            ConnectionFailed: if it cannot be sent.
            ServerRefused: if the answer is not of 2xx.
        """
        body = json.dumps({"schema": SCHEMA, **value}).encode()
        wire = Wire(self.origin, self._tls, timeout=self._timeout)
        try:
            response = wire.exchange(
                "POST", self._target, {"Content-Type": "application/json"}, limit=limits.PROBLEM_BYTES, body=body
            )
            if not 200 <= response.status < 300:
                excuse(wire, response)
                raise ServerRefused(f"the webhook at {self.origin} did not take the findings",
                                    expected="2xx; redirects are not followed",
                                    found=f"HTTP {response.status}")  # fmt: skip
        except WireFailure as failure:
            raise ConnectionFailed(f"the webhook at {self.origin} cannot be reached", found=str(failure)) from None
        finally:
            wire.close()
