# SPDX-License-Identifier: Apache-2.0
"""Bringing one release to one repository on a Hub, so that nobody ever sees half of it.

1. Where a commit of the Hub already holds it (one of its tags, main, or what an earlier run left), nothing is sent.
2. Otherwise a working branch ``pqreg/<digest in hex>`` is made of main, or found where a run was cut off.
   Files that have to go go first; then come the lacking ones, in commits of bounded size, and the evidence last.
3. Everything is read again at the commit that came of it: of every file SHA-256 and size as the Hub states them, of
   what it keeps in git the bytes; and the evidence, which must verify offline by the trust file.
4. If the release is to be main, one commit brings main there: it copies from the working branch, so it sends next to
   nothing, and removes what is not of the release. If somebody else's commit came first, it is made anew from the new
   head. What came of it is read again like before.

A run that ends anywhere leaves main and tags as they were or as they are to be; the next one goes on from the working
branch. Evidence that the Hub has is left as it is as long as it proves the same release: receipts can be renewed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pq_registry import limits
from pq_registry.client.trust import Verifier
from pq_registry.errors import Conflict, FileDigestMismatch, FormatError, ResponseInvalid, VerificationError
from pq_registry.format.bundle import envelope_from_bundles
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import MANIFEST_NAME
from pq_registry.format.name import RepositoryName
from pq_registry.format.statement import EC_BUNDLE_NAME, PQ_BUNDLE_NAME, TLOG_PROOF_NAME
from pq_registry.mirror.content import REPOSITORY_TRAILER, UNTOUCHED, Content, Wanted, is_evidence, message, title
from pq_registry.mirror.target import MAIN, Change, Target, There

WORK = "pqreg/"
"""What the names of working branches begin with."""


def work_branch(release: Digest) -> str:
    """The working branch of a release."""
    return f"{WORK}{release.hex}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What a commit lacks of a release, and what it has that is not of it."""

    lacking: tuple[Wanted, ...]
    foreign: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.lacking or self.foreign)


class Placing:
    """One repository on a Hub and what a mirror knows of it. For one thread."""

    def __init__(self, target: Target, verifier: Verifier, *, registry: str) -> None:
        """Nothing is asked yet.

        Args:
            target: the repository.
            verifier: what to believe; it judges evidence that is read again.
            registry: URL of the registry, for the messages of commits.
        """
        self.target = target
        self._verifier = verifier
        self._registry = registry
        self._small: dict[str, tuple[Digest, bytes]] = {}

    def difference(self, commit: str, content: Content) -> Difference:
        """What distinguishes a commit from the release."""
        return self._compared(commit, self.target.files(commit), content)

    def _compared(self, commit: str, there: Mapping[str, There], content: Content) -> Difference:
        lacking = [file for file in content.files.values() if not self._holds(commit, there.get(file.path), file)]
        foreign = [path for path in there if path not in content.files and path not in UNTOUCHED]
        # Other evidence, or a receipt where this registry gave none, is as good if it proves this release.
        only_evidence = all(is_evidence(path) for path in [*(file.path for file in lacking), *foreign])
        if (lacking or foreign) and only_evidence and self._proves(commit, there, content):
            return Difference((), ())
        return Difference(tuple(lacking), tuple(sorted(foreign)))

    def place(self, content: Content, fetch: Callable[[], Path]) -> str:
        """Steps 2 and 3; answers the commit.

        Args:
            content: what is to be there.
            fetch: called at most once, if files of the release have to be sent: answers a directory that holds them,
                verified.

        Raises:
            PqregError: what the Hub or the registry refuses, or what was read again and is not what was sent.
        """
        branch = work_branch(content.release)
        staged = functools.cache(fetch)
        for _ in range(limits.MIRROR_CONFLICTS):
            try:
                head = self._fill(branch, content, staged)
            except Conflict:
                continue  # the answer to a commit of ours was lost, or another machine does the same work
            self._require(head, content)
            return head
        raise self._crowded(branch)

    def _fill(self, branch: str, content: Content, staged: Callable[[], Path]) -> str:
        head = self._work(branch)
        difference = self.difference(head, content)
        if difference.foreign:
            head = self._commit(branch, head, Change(puts={}, deletes=difference.foreign), content)
        for batch in _batches(difference.lacking):
            puts = {file.path: staged() / file.path if file.inline is None else file.inline for file in batch}
            head = self._commit(branch, head, Change(puts=puts), content)
        return head

    def publish(self, content: Content, origin: str) -> str:
        """Step 4; answers main's commit. ``origin`` is a commit that holds the release.

        Raises:
            Conflict: if others commit to main all the time.
            PqregError: as ``place``.
        """
        for _ in range(limits.MIRROR_CONFLICTS):
            main = self._main()
            difference = self.difference(main, content)
            if not difference:
                return main
            puts = {file.path: file.inline for file in difference.lacking if file.inline is not None}
            copies = [file.path for file in difference.lacking if file.inline is None]
            change = Change(puts=puts, copies=copies, origin=origin, deletes=difference.foreign)
            try:
                head = self._commit(MAIN, main, change, content)
            except Conflict:
                continue  # somebody else's commit, or ours whose answer was lost: seen in the next round
            self._require(head, content)
            return head
        raise self._crowded(MAIN)

    def _crowded(self, branch: str) -> Conflict:
        return Conflict(
            f"others commit to {branch} of {self.target.url} all the time", expected="a moment without a commit",
            found=f"{limits.MIRROR_CONFLICTS} tries", hint="find out who writes there; the next run tries again",
        )  # fmt: skip

    def is_ours(self, name: RepositoryName, revision: str) -> bool:
        """Whether a mirror of ``name`` committed to a revision lately, or there is nothing in it."""
        if not [path for path in self.target.files(revision) if path not in UNTOUCHED]:
            return True
        return any(_wrote(name, text) for text in self.target.messages(revision))

    def wrote(self, name: RepositoryName, commit: str) -> bool:
        """Whether a commit is one that a mirror of ``name`` made."""
        return any(_wrote(name, text) for text in self.target.messages(commit)[:1])

    def _work(self, branch: str) -> str:
        references = self.target.references()
        if references is None:
            raise ResponseInvalid(f"{self.target.url} is gone", hint="find out who removed it")
        if branch not in references.branches:
            start = references.branches.get(MAIN)
            if start is None:
                raise ResponseInvalid(f"{self.target.url} has no branch {MAIN}", expected=f"a branch {MAIN}")
            self.target.branch(branch, start)
            references = self.target.references()
        if references is None or branch not in references.branches:
            raise ResponseInvalid(f"{self.target.url} does not show branch {branch}, which was just made")
        return references.branches[branch]

    def _main(self) -> str:
        references = self.target.references()
        if references is None or MAIN not in references.branches:
            raise ResponseInvalid(f"{self.target.url} has no branch {MAIN}", expected=f"a branch {MAIN}")
        return references.branches[MAIN]

    def _commit(self, branch: str, parent: str, change: Change, content: Content) -> str:
        return self.target.commit(
            branch, parent, change, title=title(content), message=message(content, registry=self._registry)
        )

    def _require(self, commit: str, content: Content) -> None:
        """Step 3."""
        there = self.target.files(commit)
        difference = self._compared(commit, there, content)
        if difference:
            wrong = [file.path for file in difference.lacking] + list(difference.foreign)
            raise FileDigestMismatch(
                f"{self.target.url} at {commit} does not hold what was sent", expected=f"release {content.release}",
                found=f"{len(wrong)} other files, e.g. {wrong[0]}",
                hint="run it again; if it stays so, tell the operator of the Hub",
            )  # fmt: skip
        self._prove(commit, there, content)

    def _holds(self, commit: str, there: There | None, wanted: Wanted) -> bool:
        if there is None or there.size != wanted.size:
            return False
        if there.sha256 is not None:
            return there.sha256 == wanted.sha256
        return there.size <= limits.MIRROR_SMALL_BYTES and self._read(commit, there)[0] == wanted.sha256

    def _read(self, commit: str, there: There) -> tuple[Digest, bytes]:
        """The bytes of a small file and their digest. One git id is read once: main has the files of the branch."""
        key = there.blob if there.sha256 is None else there.sha256.hex
        if key not in self._small:
            data = self.target.read(commit, there)
            digest = Digest.of(data)
            if there.sha256 not in (None, digest):
                raise FileDigestMismatch(
                    f"{self.target.url} sends another {there.path} than it lists", expected=there.sha256, found=digest
                )
            self._small[key] = digest, data if is_evidence(there.path) else b""
        return self._small[key]

    def _proves(self, commit: str, there: Mapping[str, There], content: Content) -> bool:
        try:
            self._prove(commit, there, content)
        except (VerificationError, FormatError):
            return False
        return True

    def _prove(self, commit: str, there: Mapping[str, There], content: Content) -> None:
        """See that the evidence that is there proves this release."""
        found: dict[str, bytes] = {}
        for name, largest in (
            (EC_BUNDLE_NAME, limits.ENVELOPE_BYTES),
            (PQ_BUNDLE_NAME, limits.ENVELOPE_BYTES),
            (TLOG_PROOF_NAME, limits.TLOG_PROOF_BYTES),
        ):
            if name in there and there[name].size <= largest:
                found[name] = self._read(commit, there[name])[1]
        release = content.verified.release
        envelope = envelope_from_bundles(found.get(EC_BUNDLE_NAME, b""), found.get(PQ_BUNDLE_NAME, b""))
        self._verifier.release(
            envelope.encode(), content.files[MANIFEST_NAME].inline or b"", expected_name=release.name,
            expected_digest=release.digest, receipt=found.get(TLOG_PROOF_NAME),
        )  # fmt: skip


def _batches(files: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Files in commits of bounded size, the evidence in the last."""
    ordered = sorted(files, key=lambda file: (is_evidence(file.path), file.path))
    batch: list[Wanted] = []
    size = 0
    for file in ordered:
        full = len(batch) >= limits.MIRROR_COMMIT_FILES or size + file.size > limits.MIRROR_COMMIT_BYTES
        if batch and full:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch


def _wrote(name: RepositoryName, text: str) -> bool:
    return f"{REPOSITORY_TRAILER}{name}" in text.splitlines()
