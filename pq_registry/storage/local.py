# SPDX-License-Identifier: Apache-2.0
"""Blobs in a local directory: ``ROOT/sha256/aa/<64 hex digits>``, each a read-only regular file.

Adopting links the finished, fsynced file to its final name (which fails if the name is taken, unlike a rename),
unlinks the temporary name and syncs both directories. A crash in between leaves the file under both names: the blob is
whole, and the temporary name is swept at the next start.

Only ``write``, and ``adopt`` if told to, replace a file, with bytes that are known to be the blob's; the temporary
files of ``write`` are in ROOT itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from io import RawIOBase
from pathlib import Path

from pq_registry import durable, limits
from pq_registry.errors import AlreadyExists, NameSyntaxError, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import SignedRequest, StoredBlob, ignore
from pq_registry.storage.hashing import require_blob

_BLOB_MODE = 0o440


class LocalBlobReader:
    """An open blob file."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        self._size = os.fstat(descriptor).st_size

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            StorageError: if the file system fails or the file ends before.
        """
        with durable.reported("read", self._path):
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    raise StorageError(
                        "a stored blob is shorter than it should be",
                        expected=f"{offset + length} bytes",
                        found=f"{offset + len(data)} bytes",
                        hint="run pqreg fsck",
                    )
                data += more
        return data

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class LocalBlobStore:
    """A ``BlobStore`` in a directory of its own."""

    def __init__(self, root: Path) -> None:
        """Make the directory if it is not there.

        Raises:
            StorageError: if it cannot be made.
        """
        self.root = root
        durable.make_directory(root / "sha256", 0o700)

    def path(self, digest: Digest) -> Path:
        """Where a blob stands. Only a ``Digest`` can name one."""
        return self.root / "sha256" / digest.hex[:2] / digest.hex

    def open(self, blob: StoredBlob, *, size: int | None = None) -> LocalBlobReader:
        """Open a blob for reading.

        Raises:
            NotFound: if there is no such blob.
            StorageError: if the file system fails, or the blob's length is not ``size``.
        """
        path = self.path(blob.digest)
        with durable.reported("open", path):
            try:
                reader = LocalBlobReader(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), path)
            except FileNotFoundError:
                raise NotFound(f"no blob {blob}") from None
        if size is not None and reader.size != size:
            reader.close()
            raise StorageError(
                f"blob {blob} is damaged", expected=f"{size} bytes", found=f"{reader.size}", hint="run pqreg fsck"
            )
        return reader

    def size(self, blob: StoredBlob) -> int | None:
        """A blob's length, or None if there is no such blob.

        Raises:
            StorageError: if the file system fails.
        """
        path = self.path(blob.digest)
        with durable.reported("look at", path):
            try:
                return path.lstat().st_size
            except FileNotFoundError:
                return None

    def locate(self, blob: StoredBlob, now: datetime) -> SignedRequest | None:  # noqa: ARG002 - as in the protocol
        """Nowhere: only the service reads this directory."""
        return None

    def remove(self, blob: StoredBlob) -> None:
        """Remove a blob's file, if it is there. The caller makes sure that no upload of it is being completed.

        Raises:
            StorageError: if the file system fails.
        """
        path = self.path(blob.digest)
        with durable.reported("remove", path):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            durable.sync_directory(path.parent)

    def adopt(self, temporary: Path, digest: Digest, *, replace: bool = False) -> None:
        """Take over a finished file of the same file system; ``temporary`` is gone afterwards.

        ``replace`` is for a blob whose file is known to hold other bytes.

        Raises:
            StorageError: if the file system fails, or other bytes stand under ``digest``; ``temporary`` is then left.
        """
        path = self.path(digest)
        durable.make_directory(path.parent, 0o700)
        with durable.reported("store", path):
            descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fchmod(descriptor, _BLOB_MODE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                durable.publish(temporary, path, replace=replace)
            except AlreadyExists:
                self._require_equal(temporary, path, digest)
                temporary.unlink()

    def stored_at(self, blob: StoredBlob) -> datetime | None:
        """When a blob was stored, or None if there is no such blob.

        Raises:
            StorageError: if the file system fails.
        """
        path = self.path(blob.digest)
        with durable.reported("look at", path):
            try:
                return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
            except FileNotFoundError:
                return None

    def write(self, blob: StoredBlob, chunks: Iterable[bytes], *, size: int) -> None:
        """Put ``chunks`` in the place of the blob's file, once they were found to be the blob.

        Raises:
            FileDigestMismatch: if they are not, or not ``size`` bytes.
            StorageError: if the file system fails.
        """
        path = self.path(blob.digest)
        durable.make_directory(path.parent, 0o700)
        temporary = self.root / durable.temporary_path(path).name
        try:
            with durable.reported("write", temporary):
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(descriptor, "wb", buffering=0) as file:
                    require_blob(blob.digest, _written(file, chunks), size=size)
                    os.fchmod(descriptor, _BLOB_MODE)
                    os.fsync(descriptor)
                durable.publish(temporary, path, replace=True)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def sweep(self) -> None:
        """Remove what an interrupted ``write`` left. Only while nobody else repairs.

        Raises:
            StorageError: if the directory cannot be read.
        """
        durable.sweep(self.root)

    def iterate(self, *, stray: Callable[[str], None] = ignore) -> Iterator[StoredBlob]:
        """Every blob.

        Args:
            stray: told the path of whatever stands among the blobs and is none.

        Raises:
            StorageError: if the file system fails.
        """
        base = self.root / "sha256"
        with durable.reported("list", base):
            for folder in sorted(base.iterdir()):
                if folder.is_symlink() or not folder.is_dir():
                    stray(str(folder))
                    continue
                for entry in sorted(folder.iterdir()):
                    try:
                        digest = Digest(entry.name)
                    except NameSyntaxError:
                        digest = None
                    if digest is None or self.path(digest) != entry:
                        stray(str(entry))
                    else:
                        yield StoredBlob(digest)

    def check(self) -> None:
        """Make sure that the directory can be listed.

        Raises:
            StorageError: if it cannot.
        """
        base = self.root / "sha256"
        with durable.reported("list", base):
            os.close(os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def _require_equal(self, temporary: Path, path: Path, digest: Digest) -> None:
        if not _same_bytes(temporary, path):
            raise StorageError(
                f"other bytes are already stored as {digest}", expected="the same bytes", hint="run pqreg fsck"
            )


def _written(file: RawIOBase, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            view = view[file.write(view) or 0 :]
        yield chunk


def _same_bytes(first: Path, second: Path) -> bool:
    with first.open("rb", buffering=0) as left, second.open("rb", buffering=0) as right:
        if os.fstat(left.fileno()).st_size != os.fstat(right.fileno()).st_size:
            return False
        offset = 0
        while True:
            data = os.pread(left.fileno(), limits.HASH_CHUNK_BYTES, offset)
            if not data:
                return True
            if os.pread(right.fileno(), len(data), offset) != data:
                return False
            offset += len(data)


def require_same_file_system(first: Path, second: Path) -> None:
    """Refuse directories between which a file cannot be linked.

    Raises:
        StorageError: if they are on different file systems.
    """
    with durable.reported("look at", first):
        if first.stat().st_dev != second.stat().st_dev:
            raise durable.storage_error("keep", second, OSError(errno.EXDEV, "incoming and blobs must share a disk"))
