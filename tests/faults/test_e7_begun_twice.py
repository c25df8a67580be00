# SPDX-License-Identifier: Apache-2.0
"""E7: the answer to the beginning of an upload is lost, and the store begins it a second time for the next try.

The store then has two uploads under one name. One becomes the blob of a release; the other one, which nobody knows, is
given up a day later, by the service or by gc: its parts go, and the blob stays.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import Conflict
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.collection import Collection, Kind, Stock
from pq_registry.service.registry import Registry
from pq_registry.storage.blobs import DirectUploads, StoredBlob
from pq_registry.storage.catalogue.tables import UploadRow
from pq_registry.storage.fsck import check_registry
from pq_registry.storage.incoming import new_upload_id
from pq_registry.storage.s3.blobs import S3BlobStore
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.stores import StoreConfig, opened
from tests.engines import Bucket
from tests.faultproxy import FaultProxy, Lost
from tests.faults.publishing import publish
from tests.logsetup import log_setup
from tests.samples import REPOSITORY
from tests.upload_instances import BIG, CALLER, Site, begin, complete, site, small_parts

__all__ = ["site", "small_parts"]  # fixtures


def test_a_lost_answer_begins_an_upload_twice(s3_bucket: Bucket) -> None:
    blob = StoredBlob(Digest.of(BIG), new_upload_id())
    with FaultProxy(s3_bucket.server.endpoint) as proxy:
        session = S3Session(s3_bucket.config(s3_endpoint=proxy.url))
        assert session.capabilities
        store = S3BlobStore(session)
        proxy.inject(Lost(), method="POST", when=lambda request: "uploads" in request.query)
        known = store.begin(blob)
        both = [upload.storage_id for upload in store.unfinished()]
        assert len(both) == 2 and known in both
        store.put(blob, BIG)
        store.drop_parts(blob, next(each for each in both if each != known))
        assert [upload.storage_id for upload in store.unfinished()] == [known]
        assert store.size(blob) == len(BIG)
        session.close()


def test_the_sweep_takes_the_parts_and_leaves_the_blob(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, BIG)
    blob = StoredBlob(Digest.of(BIG), state.id)
    site.store.begin(blob)
    site.send(state, BIG)
    assert complete(uploads, state) == Digest.of(BIG)
    site.clock.offset = timedelta(seconds=limits.ORPHAN_UPLOAD_SECONDS + 3600)
    site.store.now = site.clock() - timedelta(seconds=limits.ORPHAN_UPLOAD_SECONDS + 60)
    site.store.begin(blob)
    assert uploads.sweep(CALLER, starting=False) == 2
    assert not site.store.multiparts
    assert site.store.objects == {blob: BIG}


def test_gc_takes_the_parts_and_leaves_the_blob(s3_bucket: Bucket, tmp_path: Path) -> None:
    config = StoreConfig(data=tmp_path, s3=s3_bucket.config())
    registry = Registry.open(config, utc_now, log=log_setup())
    try:
        publish(registry)
        registry.ledger.catch_up()
        blobs = list(registry.blobs.iterate())
        assert isinstance(registry.blobs, DirectUploads)
        for blob in blobs:
            registry.blobs.begin(blob)
        with opened(config) as stores:
            stock = Stock(catalogue=stores.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=None)
            collection = Collection(stock, now=utc_now() + timedelta(days=2), grace=timedelta(days=1), dry=False)
            assert [each.kind for each in collection.run()] == [Kind.PARTS] * len(blobs)
            assert check_registry(stores.catalogue, stores.blobs, tiles=stores.tiles) == []
        assert list(registry.blobs.unfinished()) == []
    finally:
        registry.close()


def test_who_begins_again_too_late_takes_nothing_of_the_other_one(site: Site) -> None:
    first, second = site.instance(), site.instance()
    state = begin(first, BIG)
    site.store.multiparts.clear()  # a lifecycle rule of the bucket
    refused: list[Conflict] = []

    def late() -> None:
        with pytest.raises(Conflict, match="began this upload again") as error:
            first.show(CALLER, REPOSITORY, state.id)
        refused.append(error.value)

    with site.held_up("begin") as (begun, may):
        thread = threading.Thread(target=late)
        thread.start()
        assert begun.wait(30)
        second.show(CALLER, REPOSITORY, state.id)
        site.send(state, BIG)
        assert complete(second, state) == Digest.of(BIG)
        may.set()
        thread.join(30)
    assert refused
    assert site.store.objects == {StoredBlob(Digest.of(BIG), state.id): BIG}
    assert not site.store.multiparts
    with site.catalogue.reading() as session:
        assert session.get(UploadRow, state.id) is None
