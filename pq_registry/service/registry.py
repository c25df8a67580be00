# SPDX-License-Identifier: Apache-2.0
"""The registry put together: one data directory, its lock, its stores and all use cases on them."""

from __future__ import annotations

from pq_registry import durable
from pq_registry.errors import LogHalted, StorageError
from pq_registry.service.bootstrap import ensure_admin
from pq_registry.service.cards import Cards, Lineage
from pq_registry.service.clock import Clock
from pq_registry.service.direct import ObjectTransfer
from pq_registry.service.expiry import Expiry
from pq_registry.service.grants import Granting
from pq_registry.service.hub.capabilities import Capabilities
from pq_registry.service.hub.drafts import Drafts
from pq_registry.service.hub.intake import Intake
from pq_registry.service.hub.models import Models
from pq_registry.service.hub.rebuilding import Rebuilding
from pq_registry.service.hub.revisions import Revisions
from pq_registry.service.hub.smallfiles import SmallFiles
from pq_registry.service.hub.xorbs import Xorbs
from pq_registry.service.identities import Identities
from pq_registry.service.keys import RecipientKeys
from pq_registry.service.ledger import Ledger, LogSetup
from pq_registry.service.logsearch import LogSearch
from pq_registry.service.mirrors import Mirrors
from pq_registry.service.publish import Publishing
from pq_registry.service.quotas import QuotaKeeper
from pq_registry.service.relay import DirectoryTransfer
from pq_registry.service.resolve import Resolving
from pq_registry.service.status import Statuses
from pq_registry.service.tags import Tagging
from pq_registry.service.tokens import Tokens, host_caller
from pq_registry.service.transfer import Transfer
from pq_registry.service.uploads import Uploads
from pq_registry.service.views import Views
from pq_registry.storage.blobs import BlobStore, DirectUploads
from pq_registry.storage.blocks import Blocks
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.datadir import DataDirectory, DataLock
from pq_registry.storage.incoming import Incoming
from pq_registry.storage.local import LocalBlobStore, require_same_file_system
from pq_registry.storage.stores import StoreConfig, Stores


class Registry:
    """Every use case. ``open`` is how a service starts; tests may put one together from other parts."""

    def __init__(
        self, *, catalogue: Catalogue, blobs: BlobStore, blocks: Blocks, transfer: Transfer, ledger: Ledger,
        clock: Clock,
    ) -> None:  # fmt: skip
        self.catalogue = catalogue
        self.blobs = blobs
        self.tokens = Tokens(catalogue, clock)
        self.quotas = QuotaKeeper(catalogue)
        self.expiry = Expiry(catalogue, clock)
        self.identities = Identities(catalogue, clock)
        self.uploads = Uploads(catalogue, transfer, clock)
        self.intake = Intake(catalogue, self.uploads, self.quotas, clock)
        self.small_files = SmallFiles(catalogue, blobs, self.intake, self.quotas, clock)
        self.xorbs = Xorbs(catalogue, blocks, self.quotas, clock)
        self.rebuilding = Rebuilding(catalogue, blobs, blocks, self.xorbs, self.intake)
        self.capabilities = Capabilities(catalogue, clock)
        self.publishing = Publishing(catalogue, blobs, clock)
        self.drafts = Drafts(catalogue, blobs, clock)
        self.tagging = Tagging(catalogue, clock)
        self.granting = Granting(catalogue, clock)
        self.mirrors = Mirrors(catalogue, clock)
        self.keys = RecipientKeys(catalogue, clock)
        self.statuses = Statuses(catalogue, clock)
        self.resolving = Resolving(catalogue, blobs, clock)
        self.ledger = ledger
        self.revisions = Revisions(catalogue, blobs, ledger)
        self.search = LogSearch(catalogue)
        self.views = Views(catalogue, blobs, clock)
        self.cards = Cards(catalogue, blobs)
        self.lineage = Lineage(catalogue)
        self.models = Models(catalogue, self.revisions, self.cards)
        self.first_token: str | None = None
        self._lock: DataLock | None = None
        self._stores: Stores | None = None

    @classmethod
    def open(cls, config: StoreConfig, clock: Clock, *, log: LogSetup) -> Registry:
        """Lock the data directory (making it if need be), bring it up to date, sweep and complete what a crash left.

        Where other instances share the stores, the directory holds nothing that one of them could take from another,
        and whoever writes the log does the sweeping.

        Raises:
            SettingError: if the admin token file is exposed or weak.
            LogHalted: if the log must not go on: what it stored, what it signed and the clock do not agree.
            StorageError: if anything in it cannot be read or written, or another service uses it.
        """
        directory = config.directory
        durable.make_directory(config.data, 0o700)
        lock = None if config.shared else DataLock(directory)
        stores: Stores | None = None
        ledger: Ledger | None = None
        try:
            if lock is not None:
                durable.sweep(config.data)
            stores = Stores.open(config, upgrade=True)
            stores.require()
            transfer = _transfer(stores, directory)
            if lock is not None:
                stores.tiles.sweep()
            ledger = Ledger(stores.catalogue, stores.tiles, clock, log, alone=not config.shared)
            registry = cls(
                catalogue=stores.catalogue, blobs=stores.blobs, blocks=Blocks(Incoming(directory.xorbs), stores.blobs),
                transfer=transfer, ledger=ledger, clock=clock,
            )  # fmt: skip
            registry.first_token = ensure_admin(directory, registry.tokens)
            if ledger.leading:
                registry.uploads.sweep(host_caller(), starting=True)
                registry.xorbs.sweep(starting=True)
            _catch_up(ledger)
        except BaseException:
            if ledger is not None:
                ledger.close()
            if stores is not None:
                stores.close()
            if lock is not None:
                lock.release()
            raise
        registry._lock, registry._stores = lock, stores
        return registry

    def check(self) -> None:
        """Make sure that requests can be served.

        Raises:
            StorageError: if catalogue or blob store do not answer, or the log takes nothing.
        """
        self.catalogue.check()
        self.blobs.check()
        self.ledger.check()

    def close(self) -> None:
        """Stop background work, close the catalogue and give the directory back."""
        self.rebuilding.close()
        self.uploads.close()
        self.ledger.close()
        self.catalogue.close()
        if self._stores is not None:
            self._stores.close()
        if self._lock is not None:
            self._lock.release()


def _transfer(stores: Stores, directory: DataDirectory) -> Transfer:
    """How uploads come in: as the blob store allows."""
    if isinstance(stores.blobs, LocalBlobStore):
        incoming = Incoming(directory.incoming)
        require_same_file_system(directory.incoming, directory.blobs)
        return DirectoryTransfer(stores.blobs, incoming)
    assert isinstance(stores.blobs, DirectUploads)
    return ObjectTransfer(stores.blobs)


def _catch_up(ledger: Ledger) -> None:
    """Log what a crash left unlogged, as far as that goes now: it is tried again, and reported, every minute."""
    try:
        ledger.catch_up()
    except LogHalted:
        raise
    except StorageError:  # a damaged statement, or witnesses or disk that fail at the moment; reading works
        return
