# SPDX-License-Identifier: Apache-2.0
"""One release on its way to a repository on a Hub: main and tags end at commits that hold it, or stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pq_registry.errors import Conflict
from pq_registry.mirror.content import Content
from pq_registry.mirror.groups import Group
from pq_registry.mirror.memory import Memory
from pq_registry.mirror.placing import Placing, work_branch
from pq_registry.mirror.target import MAIN, References


class Work:
    """What is to be done for one release, and what is known of the commits that are there."""

    def __init__(
        self, group: Group, content: Content, placing: Placing, memory: Memory, *, is_main: bool, adopt: bool
    ) -> None:
        """Nothing is asked yet.

        Args:
            group: the release and its tags.
            content: what it looks like there.
            placing: the repository.
            memory: what is remembered of it; ``remember`` adds to it.
            is_main: whether this release becomes main.
            adopt: whether tags that others set may be moved.
        """
        self.content = content
        self._group = group
        self._placing = placing
        self._memory = memory
        self._is_main = is_main
        self._adopt = adopt
        self._held: dict[str, bool] = {}

    def commit_now(self, references: References) -> str | None:
        """The commit at which everything is as it should be, if it is."""
        places = [references.tags.get(name) for name in self._group.names]
        if self._is_main:
            places.insert(0, references.branches.get(MAIN))
        held = [commit for commit in places if commit is not None and self._holds(commit)]
        return held[0] if held and len(held) == len(places) else None

    def bring(self, references: References, fetch: Callable[[], Path]) -> str:
        """Do it; answers the commit. ``fetch`` answers a directory with the release, verified.

        Raises:
            Conflict: if a tag is somebody else's, or others commit all the time.
            PqregError: what the Hub or the registry refuses.
        """
        for name in self._group.names:
            self._require_ours(name, references.tags.get(name))
        remembered = self._memory.held.get(self.content.key)
        known = [references.branches.get(MAIN), *(references.tags.get(name) for name in self._group.names)]
        known += [remembered] if remembered in references.tags.values() else []
        origin = next((commit for commit in known if commit is not None and self._holds(commit)), None)
        if origin is None:
            origin = self._placing.place(self.content, fetch)
        commit = self._placing.publish(self.content, origin) if self._is_main else origin
        self._held[commit] = True
        target = self._placing.target
        for name in self._group.names:
            present = references.tags.get(name)
            if present is not None and self._holds(present):
                continue
            if present is not None:
                target.untag(name)
            target.tag(name, commit)
        return commit

    def clean(self, references: References) -> None:
        """Remove the working branch, if there is one."""
        branch = work_branch(self.content.release)
        if branch in references.branches:
            self._placing.target.drop(branch)

    def remember(self, commit: str, references: References) -> bool:
        """Note what is there now; whether that is news."""
        memory, names = self._memory, self._group.names
        before = (dict(memory.tags), dict(memory.held))
        memory.held[self.content.key] = commit
        memory.tags |= {name: references.tags[name] for name in names if name in references.tags}
        return before != (memory.tags, memory.held)

    def _require_ours(self, name: str, present: str | None) -> None:
        if present is None or self._adopt or self._holds(present) or self._memory.tags.get(name) == present:
            return
        if not self._placing.wrote(self.content.verified.release.name, present):
            raise Conflict(
                f"tag {name} of {self._placing.target.url} is one that no mirror set",
                expected=f"no tag {name}, or one of a mirror", found=present,
                hint="remove it there, or allow to replace it: adopt: true in mirrors.yaml",
            )  # fmt: skip

    def _holds(self, commit: str) -> bool:
        """Whether a commit holds the release; looked at once."""
        if self._memory.held.get(self.content.key) == commit:
            return True
        if commit not in self._held:
            self._held[commit] = not self._placing.difference(commit, self.content)
        return self._held[commit]
