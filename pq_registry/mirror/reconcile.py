# SPDX-License-Identifier: Apache-2.0
"""One round of a mirror: what the registry shows, what the Hub has, and what has to be done that they agree.

For every repository that the mirror wants:

1. Its tags are resolved and their releases verified, steps 0 to 6, as a pull does (``mirror.groups``).
2. A repository on the Hub whose main holds what no mirror of this repository put there is refused, unless the mirror
   may adopt it.
3. Each release is brought there (``mirror.placing``), main first, and the Hub's tags are set to the commits that hold
   them. What is as it should be takes one request per repository.
4. Its working branch goes, and the files staged for it. A tag that a signed statement withdrew is removed from the Hub
   if a mirror had set it.

Everything is idempotent: a run that was killed anywhere is continued by the next, and one with nothing to do does
nothing. An error ends what it concerns and is reported; where the Hub cannot be reached or does not accept the token,
the rest of that mirror waits for the next round.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pq_registry import limits
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.pull import pull
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.durable import make_directory
from pq_registry.errors import (
    Conflict,
    FileDigestMismatch,
    LogMisbehaved,
    NotFound,
    PqregError,
    ResponseInvalid,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference, RepositoryName, Tag
from pq_registry.mirror.bringing import Work
from pq_registry.mirror.config import Form, Mirror
from pq_registry.mirror.content import README, Content, content_of
from pq_registry.mirror.groups import Group, Selection, is_refusal, select
from pq_registry.mirror.memory import Memories, Memory
from pq_registry.mirror.outcome import Outcome, Report, State, reason_of
from pq_registry.mirror.placing import Placing
from pq_registry.mirror.target import MAIN, References, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a round works. ``staging`` holds releases on their way; ``watch`` is told each outcome as it is known."""

    client: RegistryClient
    verifier: Verifier
    state_dir: Path
    staging: Path
    connections: int = 4
    progress: Progress = field(default_factory=NullProgress)
    watch: Callable[[Outcome], None] = lambda _outcome: None


@dataclass(frozen=True, slots=True)
class _Subject:
    """What an outcome is about."""

    name: RepositoryName
    url: str


class Round:
    """One round of one mirror."""

    def __init__(
        self,
        mirror: Mirror,
        place: Place,
        target: Callable[[str], Target],
        *,
        dry_run: bool = False,
        only: Reference | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked yet.

        Args:
            mirror: what is wanted.
            place: where it comes from, and where this machine works.
            target: makes the repository of this name on the Hub.
            dry_run: whether to say what would be done, and do nothing.
            only: the only repository, and if it names one the only tag, that are brought up to date.
            clock: seconds that never run backwards.
        """
        self.report = Report()
        self._mirror = mirror
        self._place = place
        self._target = target
        self._dry_run = dry_run
        self._only = only
        self._clock = clock
        self._begun = clock()
        self._memories = Memories(place.state_dir)

    def run(self, repositories: Sequence[RepositoryName]) -> Report:
        """Do it for those of ``repositories`` that are wanted.

        Raises:
            LogMisbehaved: if the registry's log contradicts itself.
        """
        wanted = [name for name in repositories if self._mirror.wants(name)]
        if self._only is not None:
            wanted = [self._only.repository]
        owners: dict[str, RepositoryName] = {}
        for name in wanted:
            path = self._mirror.target(name)
            subject = _Subject(name, f"{self._mirror.hub}/{path}")
            self._begun = self._clock()
            try:
                other = owners.setdefault(path.lower(), name)
                if other is not name:
                    raise UsageError(
                        f"{name} and {other} would be one repository on the Hub", found=path,
                        hint="give one of them another name: rename, in mirrors.yaml",
                    )  # fmt: skip
                self._repository(name, self._target(path))
            except LogMisbehaved:
                raise
            except PqregError as error:
                self._refuse(subject, error)
                if not is_refusal(error):
                    self.report.note(f"mirror {self._mirror.name}: the rest waits for the next round")
                    break
        return self.report

    def _select(self, name: RepositoryName, subject: _Subject) -> Selection:
        """Step 1."""
        place, only = self._place, None if self._only is None else self._only.tag
        found: list[Tag] = []

        def refused(tag: Tag, digest: Digest | None, error: PqregError) -> None:
            found.append(tag)
            if only in (None, tag):
                self._refuse(subject, error, tags=[tag], digest=digest)

        seen = SeenTags(place.state_dir)
        selection = select(self._mirror, name, place.client, place.verifier, seen, refused)
        found += [*selection.withdrawn, *(tag for group in selection.groups for tag in group.tags)]
        if only is not None and only not in found:
            raise NotFound(
                f"mirror {self._mirror.name} finds no tag {only} in {name}", expected="a tag it mirrors",
                found=", ".join(map(str, found)) or "none", hint=f"list what is there: pqreg ls {name}",
            )  # fmt: skip
        return selection

    def _repository(self, name: RepositoryName, target: Target) -> None:
        subject = _Subject(name, target.url)
        place, only = self._place, None if self._only is None else self._only.tag
        # 1.
        selection = self._select(name, subject)
        if not selection.groups and not selection.withdrawn:
            return
        memory = self._memories.get(target.url)
        placing = Placing(target, place.verifier, registry=place.client.url)
        references = target.references()
        # 2.
        if references is not None and not self._mirror.adopt:
            self._require_ours(name, placing, memory, references)
        # 3.
        current: set[str] = set()
        for group in selection.groups:
            self._begun = self._clock()
            try:
                form = self._mirror.form(sealed=group.sealed)
                if form is Form.SKIP:
                    self._tell(subject, State.SKIPPED, tags=group.tags, digest=group.digest)
                    continue
                content = self._content(group, form)
                current.add(content.key)
                if only is not None and only not in group.tags:
                    continue
                is_main = group is selection.head
                work = Work(group, content, placing, memory, is_main=is_main, adopt=self._mirror.adopt)
                references = self._release(subject, group, work, target, memory, references)
            except PqregError as error:
                if not is_refusal(error):
                    raise
                self._refuse(subject, error, tags=group.tags, digest=group.digest)
        # 4.
        self._withdraw(subject, selection, target, references, placing, memory)
        if not self._dry_run and memory.keep(current):
            self._memories.put(memory)

    def _release(
        self,
        subject: _Subject,
        group: Group,
        work: Work,
        target: Target,
        memory: Memory,
        references: References | None,
    ) -> References | None:
        """Step 3 for one release; answers what the Hub has afterwards."""
        commit = None if references is None else work.commit_now(references)
        if self._dry_run:
            state = State.BEHIND if commit is None else State.IN_STEP
            self._tell(subject, state, tags=group.tags, digest=group.digest, commit=commit)
            return references
        state = State.IN_STEP
        if commit is None or references is None:
            if references is None:
                target.ensure(private=self._mirror.private)
                references = _required(target)
            commit = work.bring(references, partial(self._stage, group))
            references = _required(target)
            state = State.MIRRORED
        if work.remember(commit, references):
            self._memories.put(memory)
        # What a run left that ended before this goes as well.
        work.clean(references)
        shutil.rmtree(self._staged(group), ignore_errors=True)
        self._tell(subject, state, tags=group.tags, digest=group.digest, commit=commit)
        return references

    def _require_ours(self, name: RepositoryName, placing: Placing, memory: Memory, references: References) -> None:
        main = references.branches.get(MAIN)
        if main is None or main in memory.held.values() or placing.is_ours(name, main):
            return
        raise Conflict(
            f"{placing.target.url} holds what no mirror of {name} put there",
            expected="an empty repository, or one that was mirrored to before",
            hint="choose another name (rename), or allow to replace it: adopt: true in mirrors.yaml",
        )

    def _content(self, group: Group, form: Form) -> Content:
        readme = card = None
        if form is Form.CARD_ONLY:
            readme = self._readme(group)
            card = None if self._mirror.card is None else _read_card(self._mirror.card)
        return content_of(group.resolved.verified, form, registry=self._place.client.url, readme=readme, card=card)

    def _readme(self, group: Group) -> bytes | None:
        for entry in group.resolved.verified.release.manifest.files if not group.sealed else ():
            if entry.path.text == README and entry.size <= limits.MIRROR_CARD_BYTES:
                data = self._place.client.blob_bytes(entry.sha256, entry.size)
                if Digest.of(data) != entry.sha256:
                    raise FileDigestMismatch(f"{README} is not as signed", expected=entry.sha256, found=Digest.of(data))
                return data
        return None

    def _stage(self, group: Group) -> Path:
        """The release, verified, in a directory."""
        make_directory(self._place.staging, 0o700)
        with RemoteSource(self._place.client) as source:
            return pull(
                group.resolved, source, self._staged(group), progress=self._place.progress,
                connections=self._place.connections,
            ).path  # fmt: skip

    def _staged(self, group: Group) -> Path:
        return self._place.staging / group.digest.hex

    def _withdraw(
        self,
        subject: _Subject,
        selection: Selection,
        target: Target,
        references: References | None,
        placing: Placing,
        memory: Memory,
    ) -> None:
        for tag in selection.withdrawn:
            name = str(tag)
            commit = None if references is None else references.tags.get(name)
            if commit is None or (self._only is not None and self._only.tag not in (None, tag)):
                continue
            if memory.tags.get(name) != commit and not placing.wrote(subject.name, commit):
                continue
            self._begun = self._clock()
            if not self._dry_run:
                target.untag(name)
            self._tell(subject, State.BEHIND if self._dry_run else State.WITHDRAWN, tags=[tag], commit=commit)

    # -- outcomes ----------------------------------------------------------------------------------------------------

    def _refuse(
        self, subject: _Subject, error: PqregError, *, tags: Sequence[Tag] = (), digest: Digest | None = None
    ) -> None:
        state = State.REFUSED if is_refusal(error) else State.FAILED
        self._tell(subject, state, tags=tags, digest=digest, problem=error.code(), reason=reason_of(error))

    def _tell(
        self,
        subject: _Subject,
        state: State,
        *,
        tags: Sequence[Tag],
        digest: Digest | None = None,
        commit: str | None = None,
        problem: str | None = None,
        reason: str | None = None,
    ) -> None:
        named: list[str | None] = [str(tag) for tag in tags]
        for tag in named or [None]:
            outcome = Outcome(
                mirror=self._mirror.name,
                repository=str(subject.name),
                target=subject.url,
                state=state,
                tag=tag,
                release=None if digest is None else str(digest),
                commit=commit,
                problem=problem,
                reason=reason,
                seconds=self._clock() - self._begun,
            )
            self.report.outcomes.append(outcome)
            self._place.watch(outcome)


def _required(target: Target) -> References:
    references = target.references()
    if references is None:
        raise ResponseInvalid(f"{target.url} is not there, though it was just made", hint="run it again")
    return references


def _read_card(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limits.MIRROR_CARD_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the card {path}", found=error.strerror) from None
    if len(data) > limits.MIRROR_CARD_BYTES:
        raise UsageError(f"the card {path} is too large", expected=f"at most {limits.MIRROR_CARD_BYTES} bytes")
    return data
