# SPDX-License-Identifier: Apache-2.0
"""An object store in memory, for use cases and their races: a ``BlobStore`` with ``DirectUploads``.

``parts`` are put by tests in the place of clients. ``trouble`` is called with the name of each operation before it
happens, and may raise or wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from pq_registry.errors import NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import SignedRequest, StoredBlob, StoredPart, UnfinishedUpload, ignore


class MemoryReader:
    """A blob, open for reading."""

    def __init__(self, store: MemoryStore, data: bytes) -> None:
        self._store = store
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        self._store.happens("read")
        return self._data[offset : offset + length]

    def close(self) -> None:
        pass


class MemoryStore:
    """What it holds is in ``objects`` and ``multiparts``."""

    def __init__(self) -> None:
        self.objects: dict[StoredBlob, bytes] = {}
        self.multiparts: dict[str, tuple[StoredBlob, dict[int, bytes], datetime]] = {}
        self.retained: set[StoredBlob] = set()
        self.calls: list[str] = []
        self.trouble: Callable[[str], None] = lambda what: None
        self.now = datetime.fromisoformat("2026-11-22T00:00:00+00:00")
        self._begun = 0
        self._lock = threading.Lock()

    def happens(self, what: str) -> None:
        with self._lock:
            self.calls.append(what)
        self.trouble(what)

    def open(self, blob: StoredBlob, *, size: int | None = None) -> MemoryReader:
        self.happens("open")
        if blob not in self.objects:
            raise NotFound(f"no blob {blob}")
        if size not in (None, len(self.objects[blob])):
            raise StorageError(f"blob {blob} is damaged")
        return MemoryReader(self, self.objects[blob])

    def size(self, blob: StoredBlob) -> int | None:
        self.happens("size")
        return len(self.objects[blob]) if blob in self.objects else None

    def stored_at(self, blob: StoredBlob) -> datetime | None:
        return self.now if blob in self.objects else None

    def write(self, blob: StoredBlob, chunks: Iterable[bytes], *, size: int) -> None:
        data = b"".join(chunks)
        assert len(data) == size
        self.objects[blob] = data

    def locate(self, blob: StoredBlob, now: datetime) -> SignedRequest | None:
        return SignedRequest(f"http://127.0.0.1/{blob.digest.hex}/{blob.copy}", {}, now + timedelta(seconds=900))

    def remove(self, blob: StoredBlob) -> None:
        self.happens("remove")
        self.objects.pop(blob, None)

    def iterate(self, *, stray: Callable[[str], None] = ignore) -> Iterator[StoredBlob]:
        yield from list(self.objects)

    def check(self) -> None:
        self.happens("check")

    def begin(self, blob: StoredBlob) -> str:
        self.happens("begin")
        with self._lock:
            self._begun += 1
            name = f"multipart-{self._begun}"
            self.multiparts[name] = (blob, {}, self.now)
        return name

    def sign_part(
        self, blob: StoredBlob, storage_id: str, number: int, *, sha256: Digest, length: int, now: datetime
    ) -> SignedRequest:
        headers = {"x-amz-checksum-sha256": sha256.hex, "content-length": str(length)}
        url = f"http://127.0.0.1/{blob.copy}?uploadId={storage_id}&partNumber={number + 1}"
        return SignedRequest(url, headers, now + timedelta(seconds=900))

    def send(self, storage_id: str, number: int, data: bytes) -> None:
        """What a client does with a signed request."""
        self.multiparts[storage_id][1][number] = data

    def send_part(self, blob: StoredBlob, storage_id: str, number: int, data: bytes) -> None:
        self.happens("send_part")
        if storage_id not in self.multiparts:
            raise NotFound("no such upload")
        self.send(storage_id, number, data)

    def parts(self, blob: StoredBlob, storage_id: str) -> dict[int, StoredPart]:
        self.happens("parts")
        if storage_id not in self.multiparts:
            raise NotFound("no such upload")
        return {
            number: StoredPart(len(data), Digest.of(data).hex)
            for number, data in self.multiparts[storage_id][1].items()
        }

    def finish(self, blob: StoredBlob, storage_id: str, parts: Mapping[int, StoredPart]) -> None:
        self.happens("finish")
        with self._lock:
            if storage_id not in self.multiparts:
                if blob in self.objects:
                    return
                raise StorageError("no such upload")
            _, held, _ = self.multiparts.pop(storage_id)
            assert {number: part.size for number, part in parts.items()} == {n: len(held[n]) for n in parts}
            self.objects[blob] = b"".join(held[number] for number in sorted(parts))

    def put(self, blob: StoredBlob, data: bytes) -> None:
        self.happens("put")
        assert blob not in self.objects or self.objects[blob] == data, "an object was overwritten with other bytes"
        self.objects[blob] = data

    def abandon(self, blob: StoredBlob, storage_id: str) -> None:
        self.happens("abandon")
        self.multiparts.pop(storage_id, None)
        self.objects.pop(blob, None)

    def drop_parts(self, blob: StoredBlob, storage_id: str) -> None:
        self.happens("drop_parts")
        self.multiparts.pop(storage_id, None)

    def unfinished(self) -> Iterator[UnfinishedUpload]:
        for name, (blob, _, started) in list(self.multiparts.items()):
            yield UnfinishedUpload(blob, name, started)

    def retain(self, blob: StoredBlob, now: datetime) -> None:
        self.happens("retain")
        self.retained.add(blob)
