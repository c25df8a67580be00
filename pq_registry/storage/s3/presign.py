# SPDX-License-Identifier: Apache-2.0
"""Requests that somebody else may make for a while: AWS Signature Version 4 in the query string.

After "Authenticating Requests: Using Query Parameters" of the Amazon S3 API reference, with the payload unsigned. What
the URL grants is exactly one method on one object (and one part of one upload), with exactly the given headers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNRESERVED = "-_.~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signs, and where the signature is good. Secret and token are in no repr."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    region: str

    def presign(
        self,
        method: str,
        base: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        at: datetime,
        seconds: int,
    ) -> str:
        """The URL of a request that may be made from ``at`` on for so many seconds.

        Args:
            method: GET, HEAD or PUT.
            base: scheme, host and port.
            path: the path, unquoted, with a slash at its start.
            query: what the query holds besides the signature.
            headers: headers, named in lower case, that must be sent exactly so; ``host`` is added.
            at: when it is signed.
            seconds: how long it is good.
        """
        stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        signed = {"host": base.partition("://")[2], **headers}
        names = ";".join(sorted(signed))
        parameters = {
            **query,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.access_key}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": names,
        }
        if self.token is not None:
            parameters["X-Amz-Security-Token"] = self.token
        encoded = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(parameters.items()))
        where = quote(path, safe="/" + _UNRESERVED)
        canonical = "\n".join(
            (
                method,
                where,
                encoded,
                *(f"{name}:{' '.join(signed[name].split())}" for name in sorted(signed)),
                "",
                names,
                "UNSIGNED-PAYLOAD",
            )
        )
        text = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self.secret_key}".encode()
        for step in scope.split("/"):
            key = _mac(key, step)
        return f"{base}{where}?{encoded}&X-Amz-Signature={_mac(key, text).hex()}"


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _quoted(text: str) -> str:
    return quote(text, safe=_UNRESERVED)
