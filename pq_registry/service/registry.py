# SPDX-License-Identifier: Apache-2.0
"""The registry put together: one data directory, its lock, its stores and all use cases on them."""

from __future__ import annotations

from pathlib import Path

from pq_registry import durable
from pq_registry.service.bootstrap import ensure_admin
from pq_registry.service.clock import Clock
from pq_registry.service.grants import Granting
from pq_registry.service.identities import Identities
from pq_registry.service.keys import RecipientKeys
from pq_registry.service.publish import Publishing
from pq_registry.service.resolve import Resolving
from pq_registry.service.tags import Tagging
from pq_registry.service.tokens import Tokens, host_caller
from pq_registry.service.uploads import Uploads
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.datadir import DataDirectory, DataLock
from pq_registry.storage.incoming import Incoming
from pq_registry.storage.local import LocalBlobStore, require_same_file_system


class Registry:
    """Every use case. ``open`` is how a service starts; tests may put one together from other parts."""

    def __init__(self, *, catalogue: Catalogue, blobs: BlobStore, incoming: Incoming, clock: Clock) -> None:
        self.catalogue = catalogue
        self.blobs = blobs
        self.tokens = Tokens(catalogue, clock)
        self.identities = Identities(catalogue, clock)
        self.uploads = Uploads(catalogue, blobs, incoming, clock)
        self.publishing = Publishing(catalogue, blobs, clock)
        self.tagging = Tagging(catalogue, clock)
        self.granting = Granting(catalogue, clock)
        self.keys = RecipientKeys(catalogue, clock)
        self.resolving = Resolving(catalogue, blobs)
        self.first_token: str | None = None
        self._lock: DataLock | None = None

    @classmethod
    def open(cls, root: Path, clock: Clock) -> Registry:
        """Lock the data directory (making it if need be), bring it up to date, and sweep what a crash left.

        Raises:
            SettingError: if the admin token file is exposed or weak.
            StorageError: if anything in it cannot be read or written, or another service uses it.
        """
        directory = DataDirectory(root)
        durable.make_directory(root, 0o700)
        lock = DataLock(directory)
        try:
            durable.sweep(root)
            blobs = LocalBlobStore(directory.blobs)
            incoming = Incoming(directory.incoming)
            require_same_file_system(directory.incoming, directory.blobs)
            catalogue = Catalogue.open_sqlite(directory.catalogue, upgrade=True)
            registry = cls(catalogue=catalogue, blobs=blobs, incoming=incoming, clock=clock)
            registry.first_token = ensure_admin(directory, registry.tokens)
            registry.uploads.sweep(host_caller(), starting=True)
        except BaseException:
            lock.release()
            raise
        registry._lock = lock
        return registry

    def check(self) -> None:
        """Make sure that requests can be served.

        Raises:
            StorageError: if catalogue or blob store do not answer.
        """
        self.catalogue.check()
        self.blobs.check()

    def close(self) -> None:
        """Stop background work, close the catalogue and give the directory back."""
        self.uploads.close()
        self.catalogue.close()
        if self._lock is not None:
            self._lock.release()
