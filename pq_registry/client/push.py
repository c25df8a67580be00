# SPDX-License-Identifier: Apache-2.0
"""Publishing a directory: two passes, one commit, one tag (docs/spec/push.md).

1. The directory is scanned and screened; what may not be published is refused before anything is hashed or sent.
2. The signer's identity is registered with the service if it is not yet.
3. Pass 1 hashes every file and sends nothing. If a release of the same files by the same identity is published
   already, and verifies, it is used and only the tag moves.
4. Otherwise the plan of an earlier, unfinished push is taken up if the files give every digest in it. If not, it is
   deleted and a new one drawn and saved. From here on the release digest stands.
5. Pass 2 sends what the registry misses and compares every shard with the plan once more.
6. The signed statement is posted. This is the commit: before it nothing is visible, after it all of it is. Then the
   plan is deleted.
7. The tag is pointed at the release.

A push that is cut off anywhere is finished by running it again; it sends no part twice that the registry verified.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pq_registry import limits
from pq_registry.client.draft import draft
from pq_registry.client.hashing import hash_files
from pq_registry.client.imports import check_import
from pq_registry.client.loganswers import Logged
from pq_registry.client.plan import Plan, PlanKey, PlanStore
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.published import find_published
from pq_registry.client.scan import Scan, SourceDirectory
from pq_registry.client.screen import screen
from pq_registry.client.tagging import Publisher, TagChange, move_tag
from pq_registry.client.upload import Sent, file_blob, manifest_blob, upload_missing
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import AccessDenied, ResponseInvalid, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import in_window
from pq_registry.format.leaf import Kind
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest
from pq_registry.format.name import Namespace, Reference, RepositoryName, Tag


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """What a publisher may choose.

    ``license`` and ``lineage`` are None where nothing was said; a release already published is then good with any.
    """

    license: str | None = None
    lineage: tuple[BaseRelease, ...] | None = None
    allow_unsafe: bool = False
    connections: int = 4
    tag_lifetime: timedelta = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What a push did.

    ``minted`` is false where a release of the same files existed. ``skipped`` are root names that were left out,
    ``unsafe`` files with executable formats that were let pass, ``warnings`` sentences for the publisher. ``logged`` is
    where the log has the release, and None if it was not minted.
    """

    repository: RepositoryName
    tag: Tag
    release: Digest
    manifest: Manifest
    minted: bool
    sent: Sent
    tag_change: TagChange
    registered: bool
    skipped: tuple[str, ...]
    unsafe: tuple[str, ...]
    warnings: tuple[str, ...]
    logged: Logged | None = None


def push(
    directory: Path,
    reference: Reference,
    *,
    publisher: Publisher,
    options: PushOptions | None = None,
    progress: Progress | None = None,
) -> PushResult:
    """Publish ``directory`` as a release and point the reference's tag at it.

    Raises:
        UsageError: if the reference names a digest, or the directory holds nothing.
        UnsafeFileType, FormatError, PolicyError: for what may not be published.
        SourceChanged: if a file changed meanwhile; nothing was published.
        SequenceUsed: if somebody else moved the tag at the same time; the release is published.
        PqregError: what the registry, the network or the disk refuse.
    """
    if reference.digest is not None or reference.tag is None:
        raise UsageError("a push decides the digest itself", expected="namespace/name[:tag]", found=reference)
    options = PushOptions() if options is None else options
    progress = NullProgress() if progress is None else progress
    with SourceDirectory(directory) as source:
        scan = source.scan()
        unsafe = screen(source, scan, allow_unsafe=options.allow_unsafe)
        registered = register(publisher, reference.repository.namespace)
        work = _Push(source, scan, reference.repository, publisher, options, progress)
        manifest, release, sent, logged = work.publish()
    change = move_tag(publisher, reference.repository, reference.tag, release, lifetime=options.tag_lifetime)
    return PushResult(
        repository=reference.repository,
        tag=reference.tag,
        release=release,
        manifest=manifest,
        minted=logged is not None,
        sent=sent,
        tag_change=change,
        registered=registered,
        skipped=scan.skipped,
        unsafe=unsafe,
        warnings=trust_warnings(publisher, reference.repository.namespace),
        logged=logged,
    )


def register(publisher: Publisher, namespace: Namespace) -> bool:
    """Register the signer's identity for a namespace unless it is; whether it was done now.

    Raises:
        AccessDenied: if the token may not, with what to do.
        TransportError: if the registry does not answer.
    """
    identity = publisher.signer.identity
    if any(item.id == identity.id for item in publisher.client.identities(namespace)):
        return False
    try:
        publisher.client.register_identity(namespace, identity.to_pem())
    except AccessDenied as error:
        raise AccessDenied(
            f"identity {identity.id} is not registered for {namespace}, and this token may not register it",
            expected="a token of an owner of the namespace, or an identity that is registered",
            found=error.found,
            hint=f"ask an owner of {namespace} to push once with this key or to register its .pqpub file",
        ) from None
    return True


def trust_warnings(publisher: Publisher, namespace: Namespace) -> tuple[str, ...]:
    """What the publisher's own trust file makes of the publisher: readers with the same file will see the same."""
    if publisher.trust is None:
        return ()
    own = publisher.signer.identity.id
    listed = publisher.trust.namespaces.get(namespace.key)
    found = [] if listed is None else [entry for entry in listed.identities if entry.id == own]
    if listed is None or not found or own not in listed.publishers:
        text = (
            f"your trust file does not list your identity {own} as a publisher of {namespace}, so readers with this "
            f"file will refuse what you sign: pqreg trust add TRUST.json --publisher {namespace}=YOURS.pqpub"
        )
        return (text,)
    if not any(in_window(publisher.now, entry.not_before, entry.not_after) for entry in found):
        return (f"your trust file does not accept your identity {own} for {namespace} at this time",)
    return ()


@dataclass(frozen=True, slots=True)
class _Push:
    """Steps 3 to 6 of one push."""

    source: SourceDirectory
    scan: Scan
    repository: RepositoryName
    publisher: Publisher
    options: PushOptions
    progress: Progress

    def publish(self) -> tuple[Manifest, Digest, Sent, Logged | None]:
        """Manifest and digest of the release, what was sent, and, if it was minted now, where the log has it."""
        plans = PlanStore(self.publisher.state_dir)
        client = self.publisher.client
        key = PlanKey(
            f"{client.origin}{client.exchanger.prefix}",
            self.repository,
            os.fspath(self.source.path),
            self.publisher.signer.identity.id,
        )
        with plans.held(key):
            files = self._hash()
            check_import(self.source, self.scan, files)
            existing = find_published(
                client,
                self.repository,
                files,
                own=self.publisher.signer.identity,
                license=self.options.license,
                lineage=self.options.lineage,
            )
            if existing is not None:
                plans.delete(key)  # of a push that was cut off right after its commit
                return existing.manifest, existing.digest, Sent(0, 0, self.scan.size), None
            plan = obtain_plan(
                plans, key, files, publisher=self.publisher, repository=self.repository, options=self.options
            )
            sent = self._send(plan)
            logged = self._commit(plan)
            plans.delete(key)
        return plan.manifest, plan.release, sent, logged

    def _hash(self) -> tuple[FileEntry, ...]:
        self.progress.start(f"hash {self.source.path.name}", self.scan.size)
        try:
            workers = max(1, min(len(os.sched_getaffinity(0)), limits.HASH_THREADS))
            return hash_files(self.source, self.scan.files, workers=workers, progress=self.progress)
        finally:
            self.progress.done()

    def _send(self, plan: Plan) -> Sent:
        by_path = {file.path: file for file in self.scan.files}
        blobs = [file_blob(self.source, by_path[entry.path], entry) for entry in plan.manifest.files]
        return upload_missing(
            self.publisher.client,
            self.repository,
            [*blobs, manifest_blob(plan.manifest_bytes)],
            connections=self.options.connections,
            progress=self.progress,
        )

    def _commit(self, plan: Plan) -> Logged:
        envelope = sign_envelope(plan.statement_bytes, self.publisher.signer)
        return commit(self.publisher, self.repository, envelope, plan.release)


def obtain_plan(
    plans: PlanStore,
    key: PlanKey,
    files: tuple[FileEntry, ...],
    *,
    publisher: Publisher,
    repository: RepositoryName,
    options: PushOptions,
) -> Plan:
    """Step 4: the plan of an unfinished push if it still holds, else a new one, saved.

    Raises:
        FormatError: if the files cannot be a release.
        StorageError: if a plan cannot be read or written.
    """
    wanted = (files, options.license, options.lineage or ())
    plan = plans.load(key)
    if plan is not None and (plan.manifest.files, plan.manifest.license, plan.manifest.lineage) == wanted:
        return plan
    plans.delete(key)
    plan = draft(
        files,
        repository=repository,
        signer=publisher.signer.identity.id,
        now=publisher.now,
        license=options.license,
        lineage=options.lineage or (),
    )
    plans.save(key, plan)
    return plan


def commit(publisher: Publisher, repository: RepositoryName, envelope: Envelope, release: Digest) -> Logged:
    """Post the statement of a release; answers where the log has it.

    Raises:
        ResponseInvalid: if the registry says that it committed another release.
        LogError: if its receipt does not prove that the log has it, as the publisher's trust file demands.
        PqregError: what it refuses.
    """
    committed = publisher.client.post_release(repository, envelope.encode())
    if committed.digest != release:
        raise ResponseInvalid(
            "the registry committed another release than was posted", expected=release, found=committed.digest
        )
    return publisher.checked(committed.logged, envelope, Kind.RELEASE, repository)
