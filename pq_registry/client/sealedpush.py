# SPDX-License-Identifier: Apache-2.0
"""Publishing a sealed release: as ``client.push``, with these differences (docs/spec/push.md).

* Pass 1 seals under a fresh content key and release id and keeps digests only. The plan holds the key.
* A plan of an earlier push is used only if the files still have every digest in its pqreg.inner; they are hashed first,
  and no byte of them meets the old key before. If one differs, plan and key are deleted, and pass 1 begins anew.
* Pass 2 reads a shard, compares it with pqreg.inner, and only then seals it, from that very memory into the buffer that
  is sent. So a key and nonce never meet two plaintexts, whatever happens to the files meanwhile.
* After the release come the grants: first the publisher's own recipient, then those named. Then the plan is deleted.
* A release of the same files is recognised among the publisher's newest ones, by opening them with its own recipient.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client.grants import GrantChange, content_key, give, own_recipient, read_grant
from pq_registry.client.loganswers import Logged
from pq_registry.client.plaintext import DirectoryPlaintext, PlainFile, Plaintext, workers
from pq_registry.client.plan import PlanKey, PlanStore
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.published import read_release
from pq_registry.client.push import PushOptions, PushResult, commit, register, trust_warnings
from pq_registry.client.scan import SourceDirectory
from pq_registry.client.screen import screen
from pq_registry.client.sealedplan import FreshKey, SealedPlan, SealedPlanStore, draft_sealed
from pq_registry.client.sealpass import seal_files
from pq_registry.client.source import RemoteSource
from pq_registry.client.tagging import Publisher, move_tag
from pq_registry.client.unsealing import unseal_with
from pq_registry.client.upload import Blob, Sent, manifest_blob, upload_missing
from pq_registry.client.vouched import require_profile
from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.crypto.sealing import FileSealer, SealingKey
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.shards import shard_digest
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import FormatError, NotFound, SourceChanged, UsageError, VerificationError
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import Reference, RepositoryName
from pq_registry.format.release import Release
from pq_registry.format.sealing import INNER_NAME, SLICE_BYTES, sealed_size

To = Sequence[tuple[PublicRecipient, datetime | None]]
"""Recipients, and when their grants end, if they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPushResult:
    """What a sealed push did: ``pushed``, and a grant for each recipient, the publisher's own first."""

    pushed: PushResult
    grants: tuple[GrantChange, ...]


def push_sealed(
    directory: Path,
    reference: Reference,
    *,
    publisher: Publisher,
    recipients: Sequence[PublicRecipient] = (),
    options: PushOptions | None = None,
    expires: datetime | None = None,
    progress: Progress | None = None,
) -> SealedPushResult:
    """Seal ``directory``, publish it as a release, grant it, and point the reference's tag at it.

    Args:
        directory: what to publish.
        reference: where; it names no digest.
        publisher: who publishes.
        recipients: to whom it is granted, beside the publisher's own recipient.
        options: as for a plain push.
        expires: when the grants to ``recipients`` end, if they do.
        progress: told of every byte.

    Raises:
        PolicyError: if the signing key has no recipient of its own, or one of ``recipients`` is of a lower profile than
            the trust file demands for the namespace.
        PqregError: what ``push`` raises.
    """
    options = PushOptions() if options is None else options
    with SourceDirectory(directory) as source:
        scan = source.scan()
        unsafe = screen(source, scan, allow_unsafe=options.allow_unsafe)
        return publish_sealed(
            DirectoryPlaintext(source, scan),
            reference,
            publisher=publisher,
            to=[(one, expires) for one in recipients],
            options=options,
            progress=progress,
            left_out=(scan.skipped, unsafe),
        )


def publish_sealed(
    plaintext: Plaintext,
    reference: Reference,
    *,
    publisher: Publisher,
    to: To,
    options: PushOptions,
    progress: Progress | None = None,
    left_out: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
    anew: str | None = None,
) -> SealedPushResult:
    """Seal and publish ``plaintext``, unless a release of the same files exists.

    Args:
        plaintext: what to publish.
        reference: where; it names no digest.
        publisher: who publishes.
        to: to whom it is granted, beside the publisher's own recipient, and until when.
        options: as for a plain push.
        progress: told of every byte.
        left_out: what ``push`` says of files it skipped, and of unsafe ones.
        anew: says why a release of the same files is not good enough. Only the plan of a push that was cut off and
            said the very same is taken up; that of any other push may hold a key that somebody has.

    Raises:
        PqregError: as ``push_sealed``.
    """
    if reference.digest is not None or reference.tag is None:
        raise UsageError("a push decides the digest itself", expected="namespace/name[:tag]", found=reference)
    own = own_recipient(publisher).public
    for recipient, _expires in to:
        require_profile(publisher, reference.repository.namespace, recipient)
    registered = register(publisher, reference.repository.namespace)
    work = _SealedPush(plaintext, reference.repository, publisher, options, progress or NullProgress(), anew)
    everybody = {own.id: (own, None), **{one.id: (one, expires) for one, expires in to if one.id != own.id}}
    release, sent, grants, logged = work.publish(list(everybody.values()))
    change = move_tag(publisher, reference.repository, reference.tag, release.digest, lifetime=options.tag_lifetime)
    pushed = PushResult(
        repository=reference.repository,
        tag=reference.tag,
        release=release.digest,
        manifest=release.manifest,
        minted=logged is not None,
        sent=sent,
        tag_change=change,
        registered=registered,
        skipped=left_out[0],
        unsafe=left_out[1],
        warnings=trust_warnings(publisher, reference.repository.namespace),
        logged=logged,
    )
    return SealedPushResult(pushed=pushed, grants=grants)


@dataclass(frozen=True, slots=True)
class _SealedPush:
    """Everything but the tag."""

    plaintext: Plaintext
    repository: RepositoryName
    publisher: Publisher
    options: PushOptions
    progress: Progress
    anew: str | None

    def publish(self, to: To) -> tuple[Release, Sent, tuple[GrantChange, ...], Logged | None]:
        """The release, what was sent, the grants, and, if the release was minted now, where the log has it."""
        plans = PlanStore(self.publisher.state_dir)
        client = self.publisher.client
        key = PlanKey(
            f"{client.origin}{client.exchanger.prefix}",
            self.repository,
            self.plaintext.place if self.anew is None else f"{self.anew}: {self.plaintext.place}",
            self.publisher.signer.identity.id,
            sealed=True,
        )
        with plans.held(key):
            plan = self._kept_plan(plans, key)
            existing = self._existing() if plan is None and self.anew is None else None
            if existing is not None:
                size = sum(file.size for file in self.plaintext.files)
                with content_key(self.publisher, existing) as secret:
                    return existing, Sent(0, 0, size), self._grant(existing, secret, to), None
            plan = plan or self._new_plan(plans, key)
            with plan.content_key as secret:
                with plan.sealing_key() as sealing_key:
                    sent = self._send(plan, sealing_key)
                release, logged = self._commit(plan)
                grants = self._grant(release, secret, to)
            plans.delete(key)
        return release, sent, grants, logged

    def _kept_plan(self, plans: PlanStore, key: PlanKey) -> SealedPlan | None:
        """The plan of an earlier push, if it is of these very files."""
        plan = SealedPlanStore(plans).load(key)
        if plan is None:
            return None
        sizes = [entry.size for entry in plan.inner.files]
        if sizes == [file.size for file in self.plaintext.files] and self._wanted(
            plan.inner.files, plan.inner.license, plan.inner.lineage, exactly=True
        ):
            return plan
        plan.content_key.wipe()
        plans.delete(key)
        return None

    def _wanted(
        self,
        files: tuple[FileEntry, ...],
        license: str | None,  # noqa: A002  the manifest's word for it
        lineage: tuple[object, ...],
        *,
        exactly: bool,
    ) -> bool:
        said = (self.options.license, self.options.lineage)
        if exactly and (license, lineage) != (said[0], said[1] or ()):
            return False
        if said[0] not in (None, license) or said[1] not in (None, lineage):
            return False
        return self.plaintext.entries(self.progress) == files

    def _new_plan(self, plans: PlanStore, key: PlanKey) -> SealedPlan:
        fresh = FreshKey.draw()
        self.progress.start(f"seal {self.repository}", sum(file.size for file in self.plaintext.files))
        try:
            with fresh.sealing_key() as sealing_key:
                files, stored = seal_files(self.plaintext.files, sealing_key, workers=workers(), progress=self.progress)
        finally:
            self.progress.done()
        plan = draft_sealed(
            fresh,
            files,
            stored,
            repository=self.repository,
            signer=self.publisher.signer,
            now=self.publisher.now,
            license=self.options.license,
            lineage=self.options.lineage or (),
        )
        SealedPlanStore(plans).save(key, plan)
        return plan

    def _send(self, plan: SealedPlan, key: SealingKey) -> Sent:
        entry = plan.manifest.inner
        assert entry is not None
        blobs = [_inner_blob(key, entry, plan.inner_bytes)]
        pairs = zip(self.plaintext.files, plan.inner.files, plan.manifest.sealed_files, strict=True)
        scratch = threading.local()  # one shard of plaintext per thread, whatever the number of files
        blobs += [_sealed_blob(key, file, plain, stored, scratch) for file, plain, stored in pairs]
        return upload_missing(
            self.publisher.client,
            self.repository,
            [*blobs, manifest_blob(plan.plan.manifest_bytes)],
            connections=self.options.connections,
            progress=self.progress,
        )

    def _commit(self, plan: SealedPlan) -> tuple[Release, Logged]:
        envelope = sign_envelope(plan.plan.statement_bytes, self.publisher.signer)
        logged = commit(self.publisher, self.repository, envelope, plan.plan.release)
        release = Release(
            name=plan.manifest.name,
            digest=plan.plan.release,
            statement=plan.plan.statement,
            manifest=plan.manifest,
            manifest_bytes=plan.plan.manifest_bytes,
            envelope=envelope,
        )
        return release, logged

    def _grant(self, release: Release, key: SecretBytes, to: To) -> tuple[GrantChange, ...]:
        return tuple(give(self.publisher, release, recipient, key, expires=expires) for recipient, expires in to)

    def _existing(self) -> Release | None:
        """The newest sealed release of ours that holds exactly these files."""
        own = self.publisher.signer.identity
        try:
            offered = self.publisher.client.repository(self.repository).releases
        except NotFound:
            return None
        sizes = [sealed_size(file.size) for file in self.plaintext.files]
        mine = [item for item in offered if item.signer == own.id and item.files == len(sizes) + 1]
        for item in mine[: limits.REUSE_CANDIDATES]:
            try:
                release = read_release(self.publisher.client, self.repository, item.digest, own=own, trust=None)
                if [entry.size for entry in release.manifest.sealed_files] == sizes and self._holds_these(release):
                    return release
            except (VerificationError, FormatError, NotFound):
                continue  # at worst a release is minted that was not needed
        return None

    def _holds_these(self, release: Release) -> bool:
        key = own_recipient(self.publisher)
        grant = read_grant(self.publisher, release, key.public.id)
        if grant is None or release.manifest.name != self.repository:
            return False
        with (
            RemoteSource(self.publisher.client) as source,
            unseal_with(release, grant.statement, key=key, source=source, now=self.publisher.now) as unsealed,
        ):
            inner = unsealed.inner
        return self._wanted(inner.files, inner.license, inner.lineage, exactly=False)


def _sealed_blob(
    key: SealingKey, file: PlainFile, plain: FileEntry, stored: FileEntry, scratch: threading.local
) -> Blob:
    """A file, read and sealed while it is sent."""
    sealer = key.file(stored.path, plain.size)

    def read(view: memoryview, offset: int) -> None:
        memory: memoryview | None = getattr(scratch, "memory", None)
        if memory is None:
            scratch.memory = memory = memoryview(bytearray(limits.SHARD_BYTES))
        with file.reading(False) as read_into:
            for index, place in _slices(view, offset):
                clear = memory[: sealer.plaintext_length(index)]
                read_into(clear, index * limits.SHARD_BYTES)
                # Before the key is used: another plaintext under it would betray both.
                if shard_digest(clear) != plain.shard_digest(index):
                    begin = index * limits.SHARD_BYTES
                    raise file.changed(f"bytes {begin} to {begin + len(clear)} are not what was hashed before")
                sealer.seal_into(index, clear, place)

    return Blob(stored.sha256, stored.size, stored.shards, read, file.changed, SLICE_BYTES)


def _inner_blob(key: SealingKey, entry: FileEntry, data: bytes) -> Blob:
    """pqreg.inner, which exists in the plan only."""
    sealer: FileSealer = key.file(entry.path, len(data))

    def read(view: memoryview, offset: int) -> None:
        with memoryview(data) as clear:
            for index, place in _slices(view, offset):
                begin = index * limits.SHARD_BYTES
                sealer.seal_into(index, clear[begin : begin + sealer.plaintext_length(index)], place)

    return Blob(entry.sha256, entry.size, entry.shards, read, lambda how: SourceChanged(f"{INNER_NAME}: {how}"),
                SLICE_BYTES)  # fmt: skip


def _slices(view: memoryview, offset: int) -> list[tuple[int, memoryview]]:
    """The stored shards in ``view``, which begins where one does."""
    return [
        ((offset + start) // SLICE_BYTES, view[start : start + SLICE_BYTES])
        for start in range(0, len(view), SLICE_BYTES)
    ]
