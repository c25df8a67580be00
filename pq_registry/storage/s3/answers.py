# SPDX-License-Identifier: Apache-2.0
"""What an object store answered, as errors of the tree.

A message has the provider's code and HTTP status and the name of the object below the prefix; never a URL, a header or
the text the provider wrote, in which some quote the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, SSLError
from urllib3.exceptions import HTTPError

from pq_registry import limits
from pq_registry.errors import NotFound, StorageError

_HINTS = {
    "NoSuchBucket": "make the bucket; pqreg does not make buckets",
    "RequestTimeTooSkewed": "set the clock of this machine (NTP)",
    "SlowDown": "the provider limits requests; try again later",
    "ExpiredToken": "the session token has expired; give a new one and restart",
    "AuthorizationHeaderMalformed": "set s3_region to the bucket's region",
    "PermanentRedirect": "set s3_endpoint and s3_region to those of the bucket",
    "TemporaryRedirect": "set s3_endpoint and s3_region to those of the bucket",
    "IllegalLocationConstraintException": "set s3_region to the bucket's region",
    "XAmzContentSHA256Mismatch": "what arrived was not what was sent; look at proxies in between",
}
_ACCESS_HINT = "check the credentials and what their policy allows (docs/operations/storage.md)"
_LATER_HINT = "the provider is unavailable; try again later"
_SILENT_HINT = "the object store does not answer; check s3_endpoint, or try again later"
_TLS_HINT = "its certificate is not accepted (see tls_ca), or the endpoint speaks no TLS"
_CODE = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)
_ACCESS = frozenset({401, 403})
_REDIRECTS = frozenset({301, 302, 307, 308})


@contextmanager
def reported(action: str, name: str) -> Iterator[None]:
    """Turn what botocore and urllib3 raise into errors that name ``action`` and the object ``name``.

    Raises:
        NotFound: if the store says that there is no such object or upload.
        StorageError: for everything else.
    """
    failure: StorageError | NotFound | None = None
    try:
        yield
    except ClientError as error:
        failure = failure_of(action, name, code=code_of(error), status=status_of(error))
    except (BotoCoreError, HTTPError, OSError, ValueError) as error:
        # ValueError: an answer botocore cannot read. Only its class is told: some quote the URL they failed at.
        failure = StorageError(
            f"cannot {action} {name} in the object store",
            found=type(error).__name__,
            hint=_TLS_HINT if isinstance(error, SSLError) else _SILENT_HINT,
        )
        failure.retry_after = limits.S3_SLOW_DOWN_SECONDS
    if failure is not None:
        # The context is suppressed: some errors of botocore quote the URL they failed at.
        raise failure from None


def code_of(error: ClientError) -> str:
    """The provider's code, or the HTTP status where it gave none."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code if _CODE.fullmatch(code) else str(status_of(error))


def status_of(error: ClientError) -> int:
    """The HTTP status; 0 if there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def failure_of(action: str, name: str, *, code: str, status: int) -> StorageError | NotFound:
    """The error for a refusal with the provider's ``code`` and an HTTP status."""
    if code in ("NoSuchKey", "NoSuchUpload", "404", "NotFound"):
        return NotFound(f"the object store has no {name}", found=code)
    later = code == "SlowDown" or status >= 500 or status in (0, 429)
    hint = _HINTS.get(code)
    if hint is None and status in _ACCESS:
        hint = _ACCESS_HINT
    elif hint is None and status in _REDIRECTS:
        hint = _HINTS["PermanentRedirect"]
    failure = StorageError(
        f"cannot {action} {name} in the object store",
        found=code if code == str(status) else f"{code} (HTTP {status})",
        hint=hint or (_LATER_HINT if later else None),
    )
    if later:
        failure.retry_after = limits.S3_SLOW_DOWN_SECONDS
    return failure
