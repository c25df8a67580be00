# SPDX-License-Identifier: Apache-2.0
"""Making a signed release of a draft (docs/spec/drafts.md).

1. The draft is read: what it points to and which files it lists. A release's evidence is no model to sign.
2. Every byte is read on this machine: a directory's, which must then be the draft's files, or what the registry
   delivers. What is signed is computed from these bytes and from nothing the registry says.
3. Whoever watches is shown what is about to be signed, and may still refuse.
4. The draft is asked for again; if it has moved, nothing is signed.
5. From here on it is a push: a release of the same files is used if there is one, else a plan is drawn, saved, signed
   and committed. The same plan is taken up again after an interruption, if the files are still the same.
6. The tag is pointed at the release, and the draft is dropped, if it is still what was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pq_registry.client.drafthash import hash_draft
from pq_registry.client.draftroutes import DraftReference, DraftView
from pq_registry.client.hashing import hash_files
from pq_registry.client.imports import check_import, import_claim, require_description
from pq_registry.client.loganswers import Logged
from pq_registry.client.plaintext import workers
from pq_registry.client.plan import PlanKey, PlanStore
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.published import find_published
from pq_registry.client.push import PushOptions, commit, obtain_plan, register, trust_warnings
from pq_registry.client.scan import SourceDirectory
from pq_registry.client.screen import let_pass, screen
from pq_registry.client.source import RemoteSource
from pq_registry.client.tagging import Publisher, TagChange, move_tag
from pq_registry.client.upload import Blob, file_blob, manifest_blob, upload_missing
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import Conflict, FileSetMismatch, NotFound, PolicyError, SourceChanged, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.draft import DraftFile
from pq_registry.format.executables import refusal_by_name
from pq_registry.format.manifest import FileEntry, Manifest, is_reserved
from pq_registry.format.name import Tag

_NAMED = 20
"""Differing files an error names; beyond that it counts them."""


@dataclass(frozen=True, slots=True)
class Review:
    """What is about to be signed. ``compared`` says that it was read from a directory and not from the registry."""

    draft: DraftView
    files: tuple[FileEntry, ...]
    compared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOptions:
    """What a publisher may choose.

    ``against`` is a directory with the same files. ``head`` is the commit that is meant; None for whatever is there.
    """

    push: PushOptions = field(default_factory=PushOptions)
    against: Path | None = None
    head: str | None = None
    review: Callable[[Review], None] = lambda _review: None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignResult:
    """What was done.

    ``minted`` is false where a release of the same files existed, ``dropped`` if the draft went on meanwhile and is
    still there.
    """

    draft: DraftView
    tag: Tag
    release: Digest
    manifest: Manifest
    minted: bool
    compared: bool
    dropped: bool
    tag_change: TagChange
    registered: bool
    unsafe: tuple[str, ...]
    warnings: tuple[str, ...]
    logged: Logged | None


def sign_draft(
    reference: DraftReference,
    tag: Tag,
    *,
    publisher: Publisher,
    options: SignOptions | None = None,
    progress: Progress | None = None,
) -> SignResult:
    """Sign a draft as a release and point ``tag`` at it.

    Raises:
        NotFound: if there is no such draft that the token may read.
        UsageError: if there is nothing to sign.
        Conflict: if the draft is, or comes to be, at another commit than the one meant; nothing was signed.
        FileSetMismatch: if the directory's files are not the draft's.
        FileDigestMismatch: if the registry delivers other bytes than its draft lists.
        UnsafeFileType, FormatError, PolicyError: for what may not be published.
        PqregError: what the registry, the network or the disk refuse.
    """
    options = SignOptions() if options is None else options
    signing = _Signing(reference, publisher, options, NullProgress() if progress is None else progress)
    draft = signing.read()
    registered = register(publisher, reference.repository.namespace)
    if options.against is None:
        with RemoteSource(publisher.client) as source:
            files, unsafe = signing.hash_remote(draft, source)
            manifest, release, logged = signing.publish(draft, files, [_delivered(source, entry) for entry in files])
    else:
        with SourceDirectory(options.against) as directory:
            files, unsafe, blobs = signing.hash_directory(draft, directory)
            manifest, release, logged = signing.publish(draft, files, blobs)
    change = move_tag(publisher, reference.repository, tag, release, lifetime=options.push.tag_lifetime)
    return SignResult(
        draft=draft,
        tag=tag,
        release=release,
        manifest=manifest,
        minted=logged is not None,
        compared=options.against is not None,
        dropped=signing.drop(draft),
        tag_change=change,
        registered=registered,
        unsafe=unsafe,
        warnings=trust_warnings(publisher, reference.repository.namespace),
        logged=logged,
    )


@dataclass(frozen=True, slots=True)
class _Signing:
    reference: DraftReference
    publisher: Publisher
    options: SignOptions
    progress: Progress

    def read(self) -> DraftView:
        """Step 1."""
        draft = self.publisher.client.draft(self.reference.repository, self.reference.branch)
        if self.options.head not in (None, draft.item.head):
            raise self._moved(str(self.options.head), draft.item.head)
        if draft.item.release is not None:
            raise UsageError(
                f"{self.reference} points to a release, which is signed already", found=draft.item.release,
                hint=f"set a tag to it: pqreg tag {self.reference.repository}:TAG {draft.item.release}",
            )  # fmt: skip
        if not draft.files:
            raise UsageError(
                f"{self.reference} has no files, so there is nothing to sign", hint="push files to it first"
            )
        reserved = [file.path.text for file in draft.files if is_reserved(file.path)]
        if reserved:
            raise PolicyError(
                f"{self.reference} holds what only a release has: it is a copy of one, not a model to sign",
                expected="the files of a model", found=", ".join(reserved[:_NAMED]),
                hint="delete these files from the draft if the model is yours, or import it: pqreg mirror pull",
            )  # fmt: skip
        return draft

    def hash_remote(self, draft: DraftView, source: RemoteSource) -> tuple[tuple[FileEntry, ...], tuple[str, ...]]:
        """Step 2, from the registry."""
        allow, connections = self.options.push.allow_unsafe, self.options.push.connections
        # By their names first: a draft of 100 GB is refused in the first second.
        named = {file.path.text: reason for file in draft.files if (reason := refusal_by_name(file.path)) is not None}
        let_pass(named, allow_unsafe=allow)
        self.progress.start(f"read {self.reference}", draft.size)
        try:
            hashed = hash_draft(source, draft.files, connections=connections, progress=self.progress)
        finally:
            self.progress.done()
        unsafe = let_pass(hashed.unsafe, allow_unsafe=allow)

        def small(entry: FileEntry) -> bytes:
            data = bytearray(entry.size)
            source.read_into(entry, 0, memoryview(data))
            return bytes(data)

        require_description(import_claim(hashed.files, small))
        return hashed.files, unsafe

    def hash_directory(
        self, draft: DraftView, directory: SourceDirectory
    ) -> tuple[tuple[FileEntry, ...], tuple[str, ...], list[Blob]]:
        """Step 2, from a directory: its files are the draft's, or nothing is signed."""
        scan = directory.scan()
        unsafe = screen(directory, scan, allow_unsafe=self.options.push.allow_unsafe)
        _require_same_paths(draft.files, {file.path.text: file.size for file in scan.files}, directory.path)
        self.progress.start(f"hash {directory.path.name}", scan.size)
        try:
            files = hash_files(directory, scan.files, workers=workers(), progress=self.progress)
        finally:
            self.progress.done()
        listed = {file.path.text: file.sha256 for file in draft.files}
        _refuse([f"{file.path} has other bytes" for file in files if listed[file.path.text] != file.sha256],
                directory.path)  # fmt: skip
        check_import(directory, scan, files)
        by_path = {file.path: file for file in scan.files}
        return files, unsafe, [file_blob(directory, by_path[entry.path], entry) for entry in files]

    def publish(
        self, draft: DraftView, files: tuple[FileEntry, ...], blobs: Sequence[Blob]
    ) -> tuple[Manifest, Digest, Logged | None]:
        """Steps 3 to 5; manifest and digest of the release and, if it was minted now, where the log has it."""
        publisher, repository, options = self.publisher, self.reference.repository, self.options.push
        client = publisher.client
        self.options.review(Review(draft, files, self.options.against is not None))
        present = client.draft(repository, self.reference.branch).item.head
        if present != draft.item.head:
            raise self._moved(draft.item.head, present)
        plans = PlanStore(publisher.state_dir)
        place = f"draft {self.reference.branch}"
        origin = f"{client.origin}{client.exchanger.prefix}"
        key = PlanKey(origin, repository, place, publisher.signer.identity.id)
        with plans.held(key):
            existing = find_published(
                client, repository, files, own=publisher.signer.identity, license=options.license,
                lineage=options.lineage,
            )  # fmt: skip
            if existing is not None:
                plans.delete(key)
                return existing.manifest, existing.digest, None
            plan = obtain_plan(plans, key, files, publisher=publisher, repository=repository, options=options)
            upload_missing(
                client, repository, [*blobs, manifest_blob(plan.manifest_bytes)], connections=options.connections,
                progress=self.progress,
            )  # fmt: skip
            logged = commit(publisher, repository, sign_envelope(plan.statement_bytes, publisher.signer), plan.release)
            plans.delete(key)
        return plan.manifest, plan.release, logged

    def drop(self, draft: DraftView) -> bool:
        """Step 6; whether the draft is gone."""
        try:
            self.publisher.client.drop_draft(self.reference.repository, self.reference.branch, head=draft.item.head)
        except NotFound:
            return True  # by somebody else, or by the try before this one
        except Conflict:
            return False
        return True

    def _moved(self, expected: str, found: str) -> Conflict:
        return Conflict(
            f"{self.reference} is not at the commit that was meant, and nothing was signed", expected=expected,
            found=found, hint="look at what it holds now (pqreg draft show), then sign that",
        )  # fmt: skip


def _delivered(source: RemoteSource, entry: FileEntry) -> Blob:
    """A file as the registry delivers it; only sent back where it has it in slices of another size."""

    def read(view: memoryview, offset: int) -> None:
        source.read_into(entry, offset, view)

    return Blob(entry.sha256, entry.size, entry.shards, read, partial(_altered, entry))


def _altered(entry: FileEntry, how: str) -> SourceChanged:
    return SourceChanged(f"{entry.path.text!r} is not what was hashed: {how}", hint="sign the draft again")


def _require_same_paths(files: Sequence[DraftFile], there: dict[str, int], directory: Path) -> None:
    listed = {file.path.text: file.size for file in files}
    differences = [f"{path} is only in the draft" for path in sorted(listed.keys() - there.keys())]
    differences += [f"{path} is only in the directory" for path in sorted(there.keys() - listed.keys())]
    differences += [
        f"{path} has {there[path]} bytes, not {listed[path]}"
        for path in sorted(listed.keys() & there.keys())
        if listed[path] != there[path]
    ]
    _refuse(differences, directory)


def _refuse(differences: Sequence[str], directory: Path) -> None:
    if differences:
        more = f" and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
        raise FileSetMismatch(
            f"the draft is not what is in {directory}, and nothing was signed",
            expected="the same files, byte for byte", found=", ".join(differences[:_NAMED]) + more,
            hint="push the directory to the draft again, or find out who changed the draft",
        )  # fmt: skip
