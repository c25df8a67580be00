# SPDX-License-Identifier: Apache-2.0
"""The service's data directory: what stands where, and the lock that keeps a second service out.

::

    DIR/lock                 flock(2) held while a service runs; the file itself means nothing
    DIR/admin.token          the first token, 0600 (service.bootstrap)
    DIR/catalogue.sqlite3    the catalogue (with -wal and -shm beside it)
    DIR/blobs/sha256/aa/…    verified blobs
    DIR/incoming/…           uploads that are not finished
    DIR/xorbs/…              blocks of chunked uploads, until files are made of them
    DIR/log/…                the files of the transparency log, as readers see them
    DIR/log.key              the log's secret keys, 0600 (unless they are kept elsewhere)
    DIR/stores.txt           says that catalogue and weights are elsewhere (storage.logpresence)
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from pq_registry import durable
from pq_registry.errors import StorageError


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The paths below one data directory."""

    root: Path

    @property
    def lock(self) -> Path:
        """The file that is locked while a service runs."""
        return self.root / "lock"

    @property
    def admin_token(self) -> Path:
        """The first admin token."""
        return self.root / "admin.token"

    @property
    def catalogue(self) -> Path:
        """The SQLite database."""
        return self.root / "catalogue.sqlite3"

    @property
    def blobs(self) -> Path:
        """Verified blobs."""
        return self.root / "blobs"

    @property
    def incoming(self) -> Path:
        """Unfinished uploads."""
        return self.root / "incoming"

    @property
    def xorbs(self) -> Path:
        """Blocks of chunked uploads."""
        return self.root / "xorbs"

    @property
    def log(self) -> Path:
        """The transparency log's files."""
        return self.root / "log"

    @property
    def stores_mark(self) -> Path:
        """Left by an instance whose catalogue and weights are elsewhere."""
        return self.root / "stores.txt"

    @property
    def log_key(self) -> Path:
        """The transparency log's secret keys; only ``pqreg_keys`` reads them."""
        return self.root / "log.key"


class DataLock:
    """An exclusive lock on a data directory, held until ``release`` or the end of the process."""

    def __init__(self, directory: DataDirectory) -> None:
        """Take the lock.

        Raises:
            StorageError: if another process holds it, or the lock file cannot be opened.
        """
        with durable.reported("lock", directory.lock):
            self._descriptor = os.open(directory.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._descriptor)
                raise StorageError(
                    "another service uses this data directory",
                    found=directory.root,
                    hint="stop it first, or give this one a directory of its own",
                ) from None

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
