# SPDX-License-Identifier: Apache-2.0
"""Models, references, commits and errors as the Hub's clients read them; files are in ``hubtree``. docs/spec/hub.md.

Functions take what they say, not whose it is: the service and the gateway both answer by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pq_registry import limits
from pq_registry.errors import PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.hubtree import CommitView, Json, date
from pq_registry.format.name import RepositoryName

SIGNED_HEADER: Final = "X-Pqreg-Signed"
"""``true`` or ``false``: whether the revision is a signed release."""
RELEASE_HEADER: Final = "X-Pqreg-Release"
"""The digest of the release that the revision is."""
COMMIT_HEADER: Final = "X-Repo-Commit"
ERROR_CODE_HEADER: Final = "X-Error-Code"
ERROR_MESSAGE_HEADER: Final = "X-Error-Message"
SIGNED_TAG: Final = "signed"
UNSIGNED_TAG: Final = "unsigned-draft"
SEALED_TAG: Final = "sealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model as it is listed, or one revision of it. ``release`` is None for a draft, ``card`` where none is known."""

    name: RepositoryName
    commit: str
    release: Digest | None
    sealed: bool
    private: bool
    created: datetime
    modified: datetime
    draft: str | None = None
    tags: tuple[str, ...] = ()
    pipeline: str | None = None
    library: str | None = None
    card: Mapping[str, Any] | None = None


def model_item(view: ModelView, expand: Collection[str] = ()) -> Json:
    """A model. With ``expand`` only these properties and what names the model."""
    signed = SIGNED_TAG if view.release is not None else UNSIGNED_TAG
    tags = [*view.tags, signed, *([SEALED_TAG] if view.sealed else [])]
    item: Json = {
        "_id": hashlib.blake2b(view.name.key.encode(), digest_size=12).hexdigest(),
        "id": str(view.name),
        "modelId": str(view.name),
        "author": str(view.name.namespace),
        "sha": view.commit,
        "createdAt": date(view.created),
        "lastModified": date(view.modified),
        "private": view.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(dict.fromkeys(tags)),
        "pqreg": {
            "signed": view.release is not None,
            "release": None if view.release is None else str(view.release),
            "sealed": view.sealed,
            "draft": view.draft,
        },
    }
    for key, value in (("pipeline_tag", view.pipeline), ("library_name", view.library), ("cardData", view.card)):
        if value:
            item[key] = value
    if not expand:
        return item
    return {key: value for key, value in item.items() if key in {"_id", "id", "modelId", "pqreg", *expand}}


def references(branches: Iterable[tuple[str, str]], tags: Iterable[tuple[str, str]], *, pull_requests: bool) -> Json:
    """Names and the commits they stand for. There are no pull requests and no conversions."""
    found: Json = {
        "branches": [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": to} for name, to in branches],
        "converts": [],
        "tags": [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": to} for name, to in tags],
    }
    return {**found, "pullRequests": []} if pull_requests else found


def commit_item(commit: CommitView) -> Json:
    """A commit in a history."""
    return {
        "id": commit.id,
        "title": commit.title,
        "message": commit.message,
        "authors": [{"user": commit.author}],
        "date": date(commit.date),
    }


def caller_item(token: str, namespaces: Sequence[str], *, writes: bool, everywhere: bool) -> Json:
    """Who a token belongs to. Nobody knows people here, so the token itself is the user.

    Clients put what has no namespace under the user's name: with a token for one namespace that is the namespace.
    """
    return {
        "type": "user",
        "id": token,
        "name": namespaces[0] if len(namespaces) == 1 and not everywhere else f"token-{token}",
        "fullname": f"token {token}",
        "isPro": False,
        "canPay": False,
        "orgs": [
            {"type": "org", "name": name, "fullname": name, "roleInOrg": "write" if writes else "read"}
            for name in namespaces
        ],
        "auth": {
            "type": "access_token",
            "accessToken": {"displayName": token, "role": "write" if writes else "read"},
        },
    }


def error_headers(error: PqregError | None, message: str, code: str | None) -> dict[str, str]:
    """What tells a client of the Hub what went wrong; ``message`` becomes one line of ASCII."""
    line = " ".join(message.split()).encode("ascii", "replace").decode("ascii")
    printable = "".join(character if " " <= character <= "~" else "?" for character in line)
    headers = {ERROR_MESSAGE_HEADER: printable[: limits.HUB_ERROR_CHARS]}
    if code is not None:
        headers[ERROR_CODE_HEADER] = code
    commit = getattr(error, "commit", None)
    if commit is not None:
        headers[COMMIT_HEADER] = str(commit)
    return headers
