# SPDX-License-Identifier: Apache-2.0
"""What went wrong when ``huggingface_hub`` was asked for something, as an error of our tree.

The library raises errors of its own, of its HTTP client, of the operating system, and whatever its parsing of a
server's answer runs into. They hold requests with their headers, URLs with signatures and bodies of answers; of all
that only the status, the server's own short message and the time to come back are taken over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.client.origin import Origin
from pq_registry.errors import (
    AccessDenied,
    Conflict,
    ConnectionFailed,
    EntryNotFound,
    NotAuthenticated,
    NotFound,
    PqregError,
    QuotaExceeded,
    ResponseInvalid,
    RevisionNotFound,
    ServerRefused,
    StorageError,
    TooManyRequests,
    UsageError,
)

_LIMITED = re.compile(r'"\w{1,64}"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*([0-9]{1,6})', re.ASCII)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,15}://\S*", re.IGNORECASE | re.ASCII)
_PASSING = frozenset({408, 500, 502, 503, 504})
_KINDS: Mapping[int, type[PqregError]] = {
    401: NotAuthenticated,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: QuotaExceeded,
    429: TooManyRequests,
    507: QuotaExceeded,
}


@dataclass(frozen=True, slots=True)
class HubFailure:
    """Why a request failed, and whether the same request may succeed later without anyone doing anything."""

    error: PqregError
    passing: bool = False


def failure_of(error: Exception, *, what: str, origin: Origin) -> HubFailure:
    """What ``error``, raised by the library during ``what`` at ``origin``, means."""
    from huggingface_hub import errors

    failed = f"{what} at {origin} failed"
    if isinstance(error, errors.HfHubHTTPError):
        return _answered(error, failed)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubFailure(ConnectionFailed(failed, found="HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE"))
    if isinstance(error, (errors.HFValidationError, errors.LocalTokenNotFoundError)):
        return HubFailure(UsageError(failed, found=_shown(str(error))))
    if isinstance(error, errors.LocalEntryNotFoundError):
        # What a download raises after any failure to reach the Hub, for lack of something to fall back on.
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            return _answered(error.__cause__, failed)
        return HubFailure(_unreached(failed, error.__cause__ or error), passing=True)
    if isinstance(error, errors.HTTPError) or type(error).__module__.partition(".")[0] in ("httpx", "httpx2"):
        return HubFailure(_unreached(failed, error), passing=True)
    if isinstance(error, (ConnectionError, TimeoutError)):
        return HubFailure(_unreached(failed, error), passing=True)
    if isinstance(error, MemoryError):
        return HubFailure(StorageError(failed, found="there is not enough memory"))
    if isinstance(error, OSError) and error.errno is not None:
        return HubFailure(StorageError(failed, found=error.strerror, hint="check the disk"))
    # Xet's own errors, a size that is not as announced, JSON that is none, a field that is missing.
    return HubFailure(
        ResponseInvalid(failed, expected="an answer of a Hub", found=f"{type(error).__name__}: {_shown(str(error))}")
    )


def retry_after(headers: Mapping[str, str]) -> int | None:
    """In how many seconds the Hub wants to be asked again: its rate limit, if that is spent, or Retry-After."""
    spent = _LIMITED.search(headers.get("ratelimit", "")[:1024])
    if spent is not None:
        # One more, as the library does: the server has rounded.
        return min(int(spent[1]) + 1, limits.HUB_PAUSE_SECONDS)
    text = headers.get("retry-after", "").strip()
    if not text.isascii() or not text.isdigit():
        return None
    return min(max(int(text[:6]), 1), limits.HUB_PAUSE_SECONDS)


def _answered(error: Exception, failed: str) -> HubFailure:
    from huggingface_hub import errors

    response = error.response  # type: ignore[attr-defined]
    status = int(response.status_code)
    said = _shown(response.headers.get("x-error-message") or "")
    found = f"HTTP {status}" + (f": {said}" if said else "")
    hint = None
    kind = _KINDS.get(status, ServerRefused)
    if isinstance(error, errors.GatedRepoError):
        kind, hint = AccessDenied, "ask for access on the model's page, and give a token that has it"
    elif isinstance(error, errors.RevisionNotFoundError):
        kind = RevisionNotFound
    elif isinstance(error, errors.EntryNotFoundError):
        kind = EntryNotFound
    elif isinstance(error, errors.RepositoryNotFoundError):
        # The Hub answers 401 for what is private and for what does not exist alike.
        kind, hint = NotFound, "check the name; what is private is found with a token that may read it only"
    elif kind is NotAuthenticated:
        hint = "give a token of this Hub: PQREG_HUB_TOKEN, or what mirrors.yaml names"
    refused = kind(failed, found=found, hint=hint)
    refused.retry_after = retry_after(response.headers)
    return HubFailure(refused, passing=status in _PASSING)


def _unreached(failed: str, error: BaseException) -> ConnectionFailed:
    found = f"{type(error).__name__}: {_shown(str(error))}"
    return ConnectionFailed(failed, found=found, hint="check the Hub's URL and that it is running")


def _shown(text: str) -> str:
    # Addresses may carry signatures, and a server's words are for a terminal to show.
    return _UNPRINTABLE.sub(" ", _ADDRESS.sub("(a URL)", text)).strip()[: limits.HUB_MESSAGE_CHARS]
