# SPDX-License-Identifier: Apache-2.0
"""Where a gateway finds releases. Each answers with what passed steps 0 to 7, or not at all: none is trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pq_registry.errors import NameSyntaxError, RevisionNotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.gateway.served import Served
from pq_registry.service.hub.model import DRAFT, Commit


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client means by a revision: exactly one of the three."""

    tag: Tag | None = None
    commit: Commit | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, revision: str) -> Wanted:
        """Read a revision: a tag, ``refs/heads/`` or ``refs/tags/`` and a tag, 40 or 64 hex digits, or a digest.

        Raises:
            RevisionNotFound: if no release can be meant; drafts among them, which nobody has signed.
        """
        text = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if text == DRAFT or text.startswith(f"{DRAFT}/"):
            raise RevisionNotFound(
                "drafts are not signed, so the gateway does not serve them", found=repr(revision)[:80],
                hint="ask the registry itself for a draft, or have it signed: pqreg sign",
            )  # fmt: skip
        try:
            if len(text) == 40 and text == text.lower() and set(text) <= set("0123456789abcdef"):
                return cls(commit=Commit(text))
            if text.startswith("sha256:") or (len(text) == 64 and set(text) <= set("0123456789abcdef")):
                return cls(digest=Digest.parse(f"sha256:{text.removeprefix('sha256:')}"))
            return cls(tag=Tag(text))
        except NameSyntaxError as error:
            raise RevisionNotFound(
                f"no release has the revision {revision!r:.80}", expected="a signed tag, a commit or a digest",
                found=error.message,
            ) from None  # fmt: skip

    def __str__(self) -> str:
        return str(self.tag or self.commit or self.digest)


@dataclass(frozen=True, slots=True)
class Named:
    """A tag and what a source says it means: a listing, which proves nothing."""

    tag: str
    commit: Commit


class Origin(Protocol):
    """A source of releases, asked by several threads."""

    @property
    def label(self) -> str:
        """What it is called in logs."""

    def find(self, name: RepositoryName, wanted: Wanted) -> Served:
        """The release, verified up to step 7.

        Raises:
            NotFound: if there is no such repository, RevisionNotFound if it has no such release.
            VerificationError: a subclass of the step that refused.
            PqregError: if it cannot be had.
        """

    def repositories(self) -> Iterable[RepositoryName]:
        """The repositories it says it has; raises PqregError."""

    def tags(self, name: RepositoryName) -> Iterable[Named]:
        """The tags it says a repository has; raises NotFound, or another PqregError."""

    def abort(self) -> None:
        """End what is being read, for good."""

    def close(self) -> None:
        """Release connections and descriptors."""
