# SPDX-License-Identifier: Apache-2.0
"""What a mirror wants of one repository: its releases, verified, with the tags that lead to them.

What is refused is handed to the caller and let be, whatever a registry says that it has. One release becomes main on
the Hub: that of the mirror's ``main`` tag, or where that is not among them the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pq_registry.client.resolve import Resolved, resolve, resolve_tag
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.errors import (
    FormatError,
    LogMisbehaved,
    NotAuthenticated,
    NotFound,
    PolicyError,
    PqregError,
    ResponseInvalid,
    UsageError,
    VerificationError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference, RepositoryName, Tag
from pq_registry.mirror.config import Mirror
from pq_registry.mirror.target import MAIN

_ONE_THING = (VerificationError, FormatError, PolicyError, NotFound, ResponseInvalid, UsageError)


def is_refusal(error: PqregError) -> bool:
    """Whether an error concerns one release or repository; others end the round of a mirror."""
    return isinstance(error, _ONE_THING) and not isinstance(error, LogMisbehaved | NotAuthenticated)


@dataclass(slots=True)
class Group:
    """A release and its tags that are mirrored."""

    resolved: Resolved
    tags: list[Tag]

    @property
    def digest(self) -> Digest:
        """The release."""
        return self.resolved.verified.release.digest

    @property
    def sealed(self) -> bool:
        """Whether it is sealed."""
        return self.resolved.verified.release.manifest.sealing is not None

    @property
    def names(self) -> list[str]:
        """The tags that are to be set on a Hub, whose branch main needs none of that name."""
        return [str(tag) for tag in self.tags if str(tag) != MAIN]


@dataclass(frozen=True, slots=True)
class Selection:
    """Releases, the one that becomes main first and then the newest first; and tags that were withdrawn."""

    groups: tuple[Group, ...]
    withdrawn: tuple[Tag, ...]

    @property
    def head(self) -> Group | None:
        """The release that becomes main."""
        return self.groups[0] if self.groups else None


def select(
    mirror: Mirror,
    name: RepositoryName,
    client: RegistryClient,
    verifier: Verifier,
    seen: SeenTags,
    refused: Callable[[Tag, Digest | None, PqregError], None],
) -> Selection:
    """Resolve the tags of a repository that the mirror wants; ``refused`` is told of each that does not verify.

    Raises:
        LogMisbehaved: if the registry's log contradicts itself.
        PqregError: if the registry cannot be asked.
    """
    groups: dict[Digest, Group] = {}
    withdrawn: list[Tag] = []
    for item in client.repository(name, limit=1).tags:
        if not mirror.wants_tag(item.tag):
            continue
        try:
            statement = resolve_tag(Reference(name, item.tag), client, verifier, seen)
            if statement.target is None:
                withdrawn.append(item.tag)
                continue
            if statement.target not in groups:
                found = resolve(Reference(name, None, statement.target), client, verifier, seen)
                groups[statement.target] = Group(found, [])
            groups[statement.target].tags.append(item.tag)
        except PqregError as error:
            if not is_refusal(error):
                raise
            refused(item.tag, item.target, error)
    ordered = sorted(groups.values(), key=_age, reverse=True)
    head = next((group for group in ordered if mirror.main in group.tags), None)
    return Selection(tuple(sorted(ordered, key=lambda group: group is not (head or ordered[0]))), tuple(withdrawn))


def _age(group: Group) -> tuple[object, str]:
    return group.resolved.verified.release.manifest.created, group.digest.hex
