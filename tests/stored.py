# SPDX-License-Identifier: Apache-2.0
"""What lies in the stores of a registry, looked at and altered behind its back, whichever stack the suite runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pq_registry.format.digest import Digest
from pq_registry.storage.catalogue.tables import BlobRow
from pq_registry.storage.local import LocalBlobStore
from pq_registry.storage.stores import Stores, opened
from tests.engines import object_store
from tests.stack import SHARED, store_config

_POSTGRESQL = {
    "zeroblob(32)": "decode(repeat('00', 32), 'hex')",
    "sealed = 0": "sealed = false",
    "withdrawn = 1": "withdrawn = true",
    "(SELECT envelope FROM statements WHERE kind = 'key')": (
        "(SELECT envelope FROM statements WHERE kind = 'key' LIMIT 1)"
    ),
    "zeroblob(length(shards))": "decode(repeat('00', length(shards)), 'hex')",
    "CAST(replace(envelope, '=', 'A') AS BLOB)": (
        "convert_to(replace(convert_from(envelope, 'UTF8'), '=', 'A'), 'UTF8')"
    ),
}
Change = Callable[[bytes], bytes | None]
"""From the bytes that are there to those that shall be; None removes them."""


def log_files(data: Path) -> dict[str, bytes]:
    """The files of the log, by name."""
    with opened(store_config(data)) as stores:
        found = {name: stores.tiles.read(name) for name in stores.tiles.names()}
    assert None not in found.values()
    return {name: content for name, content in found.items() if content is not None}


def replace_log_file(data: Path, name: str, content: bytes) -> None:
    """Put other bytes in the place of a file of the log."""
    with opened(store_config(data)) as stores:
        stores.tiles.replace(name, content)


def largest_blob(data: Path) -> Digest:
    """The largest blob the catalogue knows."""
    with opened(store_config(data)) as stores, stores.catalogue.reading() as session:
        return Digest(max(session.query(BlobRow).all(), key=lambda row: row.size).digest)


def change_blob(data: Path, digest: Digest, change: Change) -> bytes:
    """Alter what is stored of a blob; answers what it was."""
    with opened(store_config(data)) as stores:
        stored = _Stored(stores, digest)
        before = stored.read()
        stored.write(change(before))
    return before


@contextmanager
def changed_blob(data: Path, digest: Digest, change: Change) -> Iterator[None]:
    """A blob whose stored bytes are others while the block runs."""
    with opened(store_config(data)) as stores:
        stored = _Stored(stores, digest)
        before = stored.read()
        stored.write(change(before))
        try:
            yield
        finally:
            stored.write(before)


def in_dialect(statement: str) -> str:
    """A statement of SQLite's as the catalogue of the stack understands it."""
    for here, there in _POSTGRESQL.items() if SHARED else ():
        statement = statement.replace(here, there)
    return statement


class _Stored:
    """The file or the object that is a blob."""

    def __init__(self, stores: Stores, digest: Digest) -> None:
        self._path: Path | None = None
        self._object: dict[str, Any] = {}
        if isinstance(stores.blobs, LocalBlobStore):
            self._path = stores.blobs.path(digest)
            return
        with stores.catalogue.reading() as session:
            row = session.get(BlobRow, digest.hex)
            assert row is not None
            s3 = stores.config.s3
            assert s3 is not None
            key = f"{s3.prefix}sha256/{digest.hex[:2]}/{digest.hex}/{row.copy}"
        self._object = {"Bucket": s3.bucket, "Key": key}

    def read(self) -> bytes:
        if self._path is not None:
            return self._path.read_bytes()
        client = object_store().client()
        body: bytes = client.get_object(**self._object)["Body"].read()
        client.close()
        return body

    def write(self, content: bytes | None) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            if content is not None:
                self._path.write_bytes(content)
                self._path.chmod(0o444)
            return
        client = object_store().client()
        client.delete_object(**self._object)
        if content is not None:
            client.put_object(**self._object, Body=content)
        client.close()
