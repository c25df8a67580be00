# SPDX-License-Identifier: Apache-2.0
"""Telling a registry what became of its mirrors, for its page and its other publishers (docs/spec/http-api.md).

What a mirror reports is its own account; the registry shows it and goes by none of it. A token that may not publish
may not report either; the mirror does its work all the same.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from pq_registry import limits
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import AccessDenied, NotAuthenticated, NotFound, PqregError
from pq_registry.format.name import RepositoryName
from pq_registry.mirror.outcome import Outcome, State, reason_of

_REPORTED = {
    State.MIRRORED: "mirrored",
    State.IN_STEP: "mirrored",
    State.REFUSED: "refused",
    State.FAILED: "failed",
}
_JSON = {"Content-Type": "application/json"}


class Reporter:
    """Reports outcomes to a registry until it says that it does not want them."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self.note: str | None = None
        """Why there are no reports, once that is known."""

    def __call__(self, outcome: Outcome) -> None:
        """Report one outcome. It never fails: what went wrong is in ``note``."""
        state = _REPORTED.get(outcome.state)
        if state is None or outcome.release is None or self.note is not None:
            return
        body = {
            "target": _target(outcome.target),
            "release": outcome.release,
            "tag": outcome.tag,
            "state": state,
            "commit": outcome.commit,
            "reason": None if outcome.reason is None else outcome.reason[: limits.MIRROR_REASON_CHARS],
            "seconds": int(outcome.seconds),
        }
        path = f"/v1/repos/{RepositoryName.parse(outcome.repository)}/mirrors"
        try:
            self._client.exchanger.request(
                "POST", path, limit=limits.SHORT_RESPONSE_BYTES, body=json.dumps(body).encode(), headers=_JSON
            )
        except (AccessDenied, NotAuthenticated):
            self.note = "the registry keeps no history of this mirror: that takes a token that may publish there"
        except NotFound:
            self.note = "the registry keeps no history of mirrors: it is older than this"
        except PqregError as error:
            self.note = f"the registry was not told about this mirror: {reason_of(error)}"


def _target(url: str) -> str:
    """A name of the target for people: without a scheme, so that nobody follows it."""
    place = urlsplit(url)
    return f"{place.netloc.lower()}{place.path}"
