# SPDX-License-Identifier: Apache-2.0
"""A plain directory as the destination of a pull.

It may be new or empty, hold an unfinished pull, or hold an older release of the same repository. Anything else in it
is foreign and the pull refuses, because a release is exactly its files. Known files are those of the release being
pulled, and those of every manifest of the same repository found as ``pqreg.json`` or under ``.pqreg/manifests``, where
manifests are kept while files are being replaced. In order:

1. the new and the old manifest (and pqreg.inner of an unsealed release) are written to ``.pqreg/manifests``, so that a
   rerun after a crash knows every file, and for a second path with the same content a copy is staged: what may find the
   disk full or a directory in its way is done while the old release still stands;
2. the old evidence is removed: from here on nothing calls the directory a release;
3. files that only older releases list are removed;
4. staged files, all verified and durable, are renamed to their places;
5. directories are synced, then the namespace's status below ``.pqreg``, ``pqreg.json``, ``model.tlog-proof``,
   ``model.pq.sig`` and ``model.sig`` are written (of an unsealed release below ``.pqreg``: ``client.unsealplace``);
6. what the pull kept under ``.pqreg`` is removed.

A lock on the directory keeps a second pull out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol

from pq_registry import limits
from pq_registry.client.directory import STATUS, STATUS_RECEIPT, write_evidence, write_status
from pq_registry.client.occupants import make_room, refuse_foreign
from pq_registry.client.staging import HOUSE, INCOMING, Staging, open_kept
from pq_registry.client.tree import READ, Tree, read_fully, write_fully
from pq_registry.client.trust import VerifiedRelease
from pq_registry.crypto.shards import check_shard
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import Conflict, PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.inner import bind_inner
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry, Manifest
from pq_registry.format.release import Release
from pq_registry.format.sealing import INNER_NAME
from pq_registry.format.statement import EVIDENCE

MANIFESTS = (HOUSE, "manifests")


class Destination(Protocol):
    """Where a pull puts a release. One at a time: ``begin``, then the others, then ``end`` in any case.

    OSErrors may pass: the pull reports them as trouble with ``path``.
    """

    path: Path
    staging: Staging
    copies: bool
    """Whether a second path with the same content takes space of its own."""

    def begin(self, verified: VerifiedRelease) -> None:
        """Prepare for this release, and keep others out."""

    def open_kept(self, entry: FileEntry) -> int | None:
        """A descriptor of a file in place that may already be ``entry``; None if there is none."""

    def publish(self, verified: VerifiedRelease, in_place: AbstractSet[str]) -> Path:
        """Name the staged files, then write the evidence; answers the directory that now is the release.

        ``in_place`` are the paths found verified where they belong; for every other file its content is staged, or
        in place under another path.
        """

    def end(self) -> None:
        """Let others in."""


class PlainDirectory:
    """A directory that holds this one release."""

    staging: Staging
    copies = True
    mode = 0o777
    """Of the directory if the pull makes it, less the umask."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tree: Tree | None = None

    def begin(self, verified: VerifiedRelease) -> None:
        """Make the directory if needed, lock it, and see that nothing foreign is in it or in the way.

        Raises:
            UsageError: if it is not a directory, holds files that are of no release of this repository, or a directory
                that is not empty where a file is to stand.
            Conflict: if another pull works there.
            StorageError: if it cannot be written.
        """
        make_directory(self.path, self.mode)
        self._tree = tree = Tree(self.path)
        lock(tree)
        known = self._known(verified.release)
        refuse_foreign(tree, known | {MANIFEST_NAME, *EVIDENCE}, what=f"release of {verified.release.name}")
        own = {entry.path.text for entry in self._files(verified.release)} | {MANIFEST_NAME, *EVIDENCE}
        kept = {f"{HOUSE}/{name}" for name in (*EVIDENCE, MANIFEST_NAME, INNER_NAME)}
        kept |= {"/".join(STATUS), "/".join(STATUS_RECEIPT)}
        make_room(tree, own | kept, removed=known - own)
        self.staging = Staging(tree)
        self.staging.create()

    def open_kept(self, entry: FileEntry) -> int | None:
        """The file at its final path, if it is regular and of the right size."""
        return open_kept(self._opened(), entry.path.parts, entry)

    def publish(self, verified: VerifiedRelease, in_place: AbstractSet[str]) -> Path:
        """Steps 1 to 6 above.

        Raises:
            StorageError: if any system call fails; a rerun of the pull continues.
        """
        tree = self._opened()
        release = verified.release
        files = self._files(release)
        obsolete = self._known(release) - {entry.path.text for entry in files}
        with reported("replace the files in", tree.path):
            self._keep_documents(self._documents(release))  # 1.
            staged = self._stage_copies(files, in_place)
            self._remove_evidence()  # 2.
            os.fsync(tree.descriptor)
            for text in sorted(obsolete):  # 3.
                parts = tuple(text.split("/"))
                # A file of an older release may be a folder of this one, which an interrupted pull has made.
                with contextlib.suppress(IsADirectoryError):
                    tree.unlink(parts)
                tree.prune(parts[:-1])
            self._place(files, staged)  # 4.
            for folder in sorted({entry.path.parts[:-1] for entry in files}):  # 5.
                with tree.directory(folder) as descriptor:
                    os.fsync(descriptor)
        write_status(tree, verified)
        self._write_evidence(verified)
        self._remove_manifests()  # 6.
        self.staging.clear()
        return tree.path

    def end(self) -> None:
        """Unlock the directory."""
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def _opened(self) -> Tree:
        assert self._tree is not None
        return self._tree

    def _stage_copies(self, entries: Sequence[FileEntry], in_place: AbstractSet[str]) -> dict[str, str]:
        """Stage what has the same content as another path; answers the staged name of every path not in place."""
        origin = {entry.sha256: entry.path.parts for entry in entries if entry.path.text in in_place}
        staged: dict[str, str] = {}
        for entry in entries:
            if entry.path.text in in_place:
                continue
            if entry.sha256 in origin:
                name = self.staging.copy_name(entry, len(staged))
                copy_verified(self._opened(), origin[entry.sha256], entry, self.staging, name)
            else:
                name = entry.sha256.hex
                origin[entry.sha256] = (*INCOMING, name)
            staged[entry.path.text] = name
        return staged

    def _place(self, entries: Sequence[FileEntry], staged: Mapping[str, str]) -> None:
        tree = self._opened()
        for entry in entries:
            if (name := staged.get(entry.path.text)) is None:
                continue
            with tree.directory(INCOMING) as incoming, tree.directory(entry.path.parts[:-1], create=True) as folder:
                os.rename(name, entry.path.parts[-1], src_dir_fd=incoming, dst_dir_fd=folder)

    def _files(self, release: Release) -> Sequence[FileEntry]:
        """The files as they are to lie here."""
        return release.manifest.files

    def _documents(self, release: Release) -> Sequence[bytes]:
        """What says which files those are."""
        return [release.manifest_bytes]

    def _write_evidence(self, verified: VerifiedRelease) -> None:
        write_evidence(self._opened().path, verified.release, verified.signer, receipt=verified.receipt)

    def _remove_evidence(self) -> None:
        for name in EVIDENCE:
            self._opened().unlink((name,))
        for name in (*EVIDENCE, MANIFEST_NAME, INNER_NAME):
            self._opened().unlink((HOUSE, name))

    def _known(self, release: Release) -> set[str]:
        """The files of every release of this repository that this directory holds or is getting, sealed or not."""
        known = {entry.path.text for entry in self._files(release)}
        documents = {Digest.of(data): data for data in self._kept_documents()}
        for data in documents.values():
            with contextlib.suppress(PqregError):
                other = Manifest.parse(data)
                if other.name != release.name:
                    continue
                known |= {entry.path.text for entry in other.files}
                if other.sealing is not None and other.sealing.inner_sha256 in documents:
                    inner = bind_inner(other, documents[other.sealing.inner_sha256])
                    known |= {entry.path.text for entry in inner.files}
        return known

    def _kept_documents(self) -> Iterable[bytes]:
        tree = self._opened()
        names: list[tuple[str, ...]] = [(MANIFEST_NAME,), (HOUSE, MANIFEST_NAME), (HOUSE, INNER_NAME)]
        with reported("read the directory", tree.path), contextlib.suppress(FileNotFoundError):
            names += [tuple(item.text.split("/")) for item in tree.walk(below=MANIFESTS)]
        for parts in names:
            status = tree.status(parts)
            if status is None or not stat.S_ISREG(status.st_mode):
                continue
            # One that is there and cannot be read is trouble: its files would be taken for foreign ones.
            descriptor = tree.open(parts)
            with reported("read", tree.path.joinpath(*parts)), os.fdopen(descriptor, "rb") as file:
                yield file.read(limits.INNER_BYTES + 1)

    def _keep_documents(self, new: Sequence[bytes]) -> None:
        tree = self._opened()
        for data in [*self._kept_documents(), *new]:
            with tree.directory(MANIFESTS, create=True):
                write_file(tree.path.joinpath(*MANIFESTS) / f"{Digest.of(data).hex}.json", data)

    def _remove_manifests(self) -> None:
        tree = self._opened()
        with reported("remove", tree.path.joinpath(*MANIFESTS)):
            for item in list(tree.walk(below=MANIFESTS)):
                tree.unlink(tuple(item.text.split("/")))
        tree.prune(MANIFESTS)


def lock(tree: Tree) -> None:
    """Keep other pulls out of a directory until it is closed.

    Raises:
        Conflict: if another one is in.
    """
    try:
        fcntl.flock(tree.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(f"another pull is working in {tree.path}", hint="wait until it has ended") from None


def copy_verified(tree: Tree, origin: tuple[str, ...], entry: FileEntry, staging: Staging, name: str) -> None:
    """Stage a durable copy of a file whose content is that of ``entry``, checking its shards on the way."""
    source = tree.open(origin, READ)
    try:
        target = staging.open(entry, name)
        try:
            buffer = memoryview(bytearray(entry.slice_size))
            for index in range(entry.shard_count):
                offset, length = entry.shard_range(index)
                count = read_fully(source, buffer[:length], offset)
                check_shard(entry.shard_digest(index), buffer[:count], path=entry.path, index=index)
                write_fully(target, buffer[:length], offset)
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(source)
