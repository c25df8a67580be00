# SPDX-License-Identifier: Apache-2.0
"""The Hugging Face cache as the destination of a pull, so that their tools find the release offline.

::

    HUB/models--acme--minilm/
    ├── blobs/<hex SHA-256>                  content, verified
    ├── snapshots/<first 40 hex of the release digest>/
    │   ├── config.json -> ../../blobs/<hex>      one more ../ per folder
    │   ├── .pqreg/status.json, …                 the namespace's status and its receipt
    │   └── pqreg.json, model.tlog-proof, …       the evidence: regular files, written last
    ├── refs/<tag>, refs/main                those 40 digits
    └── .pqreg/incoming/                     while a pull is under way

``refs/main`` is what a name without a revision means to those tools; it is the release pulled last. A snapshot is
verified like any release directory. Other snapshots and blobs are left alone; a blob already there is verified first.

The cache is trusted to stay what was verified only as far as its owner is: a directory of it that belongs to somebody
else, or that everybody may write to, is refused.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Set as AbstractSet
from pathlib import Path

from pq_registry.client.destination import lock
from pq_registry.client.directory import STATUS, STATUS_RECEIPT, write_evidence, write_status
from pq_registry.client.occupants import make_room, refuse_foreign
from pq_registry.client.resolve import Resolved
from pq_registry.client.staging import INCOMING, Staging, open_kept
from pq_registry.client.tree import Tree
from pq_registry.client.trust import VerifiedRelease
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import PolicyError
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.name import DEFAULT_TAG, RepositoryName
from pq_registry.format.statement import EVIDENCE

COMMIT_DIGITS = 40
_BLOBS = ("blobs",)
_SNAPSHOTS = ("snapshots",)
_REFS = ("refs",)


def repository_folder(name: RepositoryName) -> str:
    """The directory of a repository in the cache."""
    return f"models--{name.namespace}--{name.name}"


class HubCache:
    """A Hugging Face cache (``$HF_HUB_CACHE``) as a destination."""

    staging: Staging
    copies = False

    def __init__(self, hub: Path, resolved: Resolved) -> None:
        """Pull into the cache at ``hub``; the tag of what was resolved, if any, becomes a reference there."""
        self.path = hub
        self._tag = resolved.reference.tag
        self._tree: Tree | None = None

    def begin(self, verified: VerifiedRelease) -> None:
        """Make the repository's directory if needed, see whose it is, and lock it.

        Raises:
            PolicyError: if a directory belongs to somebody else or everybody may write to it.
            UsageError: if the snapshot holds foreign files, or directories in the place of files.
            Conflict: if another pull works there.
            StorageError: if it cannot be written.
        """
        folder = self.path / repository_folder(verified.release.name)
        make_directory(folder)
        with Tree(self.path) as hub:
            _refuse_shared(hub.descriptor, hub.path)
        self._tree = tree = Tree(folder)
        if tree.path.parent != self.path.resolve():
            raise PolicyError(f"{folder} is a symbolic link", expected="a directory", hint="remove it and pull again")
        _refuse_shared(tree.descriptor, tree.path)
        lock(tree)
        snapshot = (*_SNAPSHOTS, _commit(verified))
        for parts in (_BLOBS, _SNAPSHOTS, _REFS, snapshot):
            path = tree.path.joinpath(*parts)
            with reported("open the directory", path), tree.directory(parts, create=True) as descriptor:
                _refuse_shared(descriptor, path)
        with Tree(tree.path.joinpath(*snapshot)) as inside:
            known = {entry.path.text for entry in verified.release.manifest.files}
            refuse_foreign(inside, known | {MANIFEST_NAME, *EVIDENCE}, what="snapshot of this release", links=True)
            make_room(inside, known | {MANIFEST_NAME, *EVIDENCE, "/".join(STATUS), "/".join(STATUS_RECEIPT)})
        self.staging = Staging(tree)
        self.staging.create()

    def open_kept(self, entry: FileEntry) -> int | None:
        """The blob, if there is one of the right size."""
        return open_kept(self._opened(), (*_BLOBS, entry.sha256.hex), entry)

    def publish(self, verified: VerifiedRelease, in_place: AbstractSet[str]) -> Path:
        """Name the blobs, then the links, the evidence, and the references last.

        Raises:
            StorageError: if any system call fails; a rerun of the pull continues.
        """
        tree = self._opened()
        release = verified.release
        commit = _commit(verified)
        snapshot = tree.path.joinpath(*_SNAPSHOTS, commit)
        placed: set[str] = set()
        with reported("write", tree.path):
            with tree.directory(INCOMING) as incoming, tree.directory(_BLOBS) as blobs:
                for entry in release.manifest.files:
                    name = entry.sha256.hex
                    if entry.path.text not in in_place and name not in placed:
                        os.rename(name, name, src_dir_fd=incoming, dst_dir_fd=blobs)
                        placed.add(name)
                os.fsync(blobs)
            for entry in release.manifest.files:
                self._link(entry, (*_SNAPSHOTS, commit))
        with Tree(snapshot) as inside:
            write_status(inside, verified)
        write_evidence(snapshot, release, verified.signer, receipt=verified.receipt)
        for name in {DEFAULT_TAG, str(self._tag or DEFAULT_TAG)}:
            write_file(tree.path.joinpath(*_REFS) / name, commit.encode())
        self.staging.clear()
        return snapshot

    def end(self) -> None:
        """Unlock the repository's directory."""
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def _opened(self) -> Tree:
        assert self._tree is not None
        return self._tree

    def _link(self, entry: FileEntry, snapshot: tuple[str, ...]) -> None:
        *folders, name = entry.path.parts
        target = "../" * (len(folders) + 2) + f"blobs/{entry.sha256.hex}"
        with self._opened().directory((*snapshot, *folders), create=True) as folder:
            with contextlib.suppress(OSError):
                if os.readlink(name, dir_fd=folder) == target:
                    return
            temporary = f".{secrets.token_hex(8)}.tmp"
            os.symlink(target, temporary, dir_fd=folder)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)


def _commit(verified: VerifiedRelease) -> str:
    return verified.release.digest.hex[:COMMIT_DIGITS]


def _refuse_shared(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise PolicyError(
            f"{path} belongs to somebody else",
            expected=f"owner {os.geteuid()}",
            found=f"owner {status.st_uid}",
            hint="choose a cache of your own: HF_HUB_CACHE, or pull into a plain directory",
        )
    if status.st_mode & stat.S_IWOTH:
        raise PolicyError(
            f"everybody may write to {path}",
            expected="a directory only its owner or group may change",
            found=oct(stat.S_IMODE(status.st_mode)),
            hint=f"chmod o-w {path}",
        )
