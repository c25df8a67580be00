# SPDX-License-Identifier: Apache-2.0
"""The JSON bodies about mirrors; see ``server.models``. A target is a name for people and never fetched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pq_registry import limits
from pq_registry.server.models import Answer, CommitText, DigestText, InstantText, Request

StateText = Literal["mirrored", "refused", "failed"]
ReasonText = Annotated[str, Field(max_length=limits.MIRROR_REASON_CHARS)]


class MirrorReport(Request):
    """What became of a release on a Hub: ``target`` is ``host[:port]/namespace/name``."""

    target: Annotated[str, Field(max_length=limits.MIRROR_TARGET_CHARS)]
    release: DigestText
    tag: Annotated[str, Field(max_length=128)] | None = None
    state: StateText
    commit: CommitText | None = None
    reason: ReasonText | None = None
    seconds: Annotated[int, Field(ge=0, le=limits.MIRROR_RUN_DAYS * 86400)] = 0


class MirrorReported(Answer):
    """Whether the report was news."""

    new: bool


class MirrorItem(Answer):
    """A state of one tag on one target: when it came to be, and when it was last seen."""

    target: str
    release: DigestText
    tag: str | None
    state: StateText
    commit: CommitText | None
    reason: str | None
    started: InstantText
    seen: InstantText


class MirrorPage(Answer):
    """Part of a listing; ``next`` is the ``after`` of the following page."""

    items: list[MirrorItem]
    next: int | None
