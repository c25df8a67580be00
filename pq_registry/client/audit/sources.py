# SPDX-License-Identifier: Apache-2.0
"""What an audit asks a registry for: files of the log, statements with receipts, manifests, sizes and content of blobs.

Nothing that is answered is believed; ``audit.judging`` and ``log.tree`` see to that.

With a directory to keep them in, every envelope, receipt and manifest is also written down there once it has been
judged. A registry that withholds or alters them later cannot take them away from the auditor: what is as it was logged
never gives way to what is not::

    STATE/kept/<payload>.json  STATE/kept/<payload>.tlog-proof  STATE/kept/<digest>.manifest
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from pq_registry import limits
from pq_registry.client.audit.finding import Code
from pq_registry.client.audit.judging import Judgement
from pq_registry.client.content import check_file
from pq_registry.client.source import RemoteSource
from pq_registry.client.transport import RegistryClient
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import AlreadyExists, ContentError, FileSetMismatch, FormatError, NotFound, SignatureInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import FileEntry
from pq_registry.format.sealing import SLICE_BYTES
from pq_registry.format.tile import ENTRIES, WIDTH, tile_at


class LogReader:
    """The files of a registry's log as a ``TileReader``; tiles that will be asked for next are fetched ahead."""

    def __init__(self, client: RegistryClient, *, connections: int = 4) -> None:
        """Nothing is read yet; ``connections`` files are fetched at once."""
        self._client = client
        self._ahead = 4 * connections
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="pqreg-log")
        self._coming: dict[str, Future[bytes]] = {}
        self._order: Iterator[str] = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def checkpoint(self) -> bytes:
        """The newest checkpoint. Raises TransportError."""
        return self._client.log_file("checkpoint")

    def expect(self, start: int, size: int) -> None:
        """The leaves from ``start`` on of a tree of ``size`` will be read, in order; nothing else is expected."""
        for coming in self._coming.values():
            coming.cancel()
        self._coming.clear()  # also failures of an audit that ended early
        self._order = _paths(start, size)
        self._top_up()

    def read(self, path: str) -> bytes:
        """The file at ``path``. Raises TransportError, NotFound among them."""
        coming = self._coming.pop(path, None)
        if coming is None:
            return self._client.log_file(path)
        self._top_up()
        return coming.result()

    def _top_up(self) -> None:
        while len(self._coming) < self._ahead and (path := next(self._order, None)) is not None:
            self._coming[path] = self._pool.submit(self._client.log_file, path)


def _paths(start: int, size: int) -> Iterator[str]:
    # The partial tile of hashes at the end is read first of all and once, when the tree is opened.
    for index in range(start // WIDTH, -(-size // WIDTH)):
        yield tile_at(ENTRIES, index, size).path
        if (index + 1) * WIDTH <= size:
            yield tile_at(0, index, size).path


class RegistryStatements:
    """Statements, receipts and manifests from a registry; kept in a directory if there is one to keep them in."""

    def __init__(self, client: RegistryClient, keep: Path | None = None) -> None:
        """Nothing is asked yet.

        Raises:
            StorageError: if the directory cannot be made.
        """
        self._client = client
        self._keep = keep
        if keep is not None:
            make_directory(keep, 0o700)

    def statement(self, payload: Digest) -> tuple[bytes, bytes | None]:
        """Envelope and receipt. Raises NotFound or another TransportError."""
        return self._client.statement(payload)

    def manifest(self, digest: Digest) -> bytes:
        """A pqreg.json, kept if it is the one asked for. Raises NotFound, or another TransportError or StorageError."""
        data = self._client.blob_bytes(digest, limits.MANIFEST_BYTES)
        if self._keep is not None and Digest.of(data) == digest:
            write_file(self._keep / f"{digest.hex}.manifest", data, mode=0o600)
        return data

    def keep(self, judgement: Judgement) -> None:
        """Keep what was shown for a leaf, if there is a directory for it and it is no worse than what is kept there.

        Raises:
            StorageError: if it cannot be written.
        """
        if self._keep is None or judgement.envelope is None:
            return
        payload = judgement.leaf.payload
        self._put(f"{payload.hex}.json", judgement.envelope, better=judgement.faithful)
        if judgement.receipt is not None:
            self._put(f"{payload.hex}.tlog-proof", judgement.receipt, better=judgement.proved is not None)

    def _put(self, name: str, data: bytes, *, better: bool) -> None:
        assert self._keep is not None
        with contextlib.nullcontext() if better else contextlib.suppress(AlreadyExists):
            write_file(self._keep / name, data, mode=0o600, replace=better)


class KeptStatements:
    """What ``RegistryStatements`` kept, and behind it, where it kept nothing that is still whole, the registry."""

    def __init__(self, keep: Path, behind: RegistryStatements | None) -> None:
        """Nothing is read yet."""
        self._keep = keep
        self._behind = behind

    def statement(self, payload: Digest) -> tuple[bytes, bytes | None]:
        """Envelope and receipt. Raises NotFound, or another TransportError or StorageError."""
        envelope = self._read(f"{payload.hex}.json", limits.ENVELOPE_BYTES)
        receipt = self._read(f"{payload.hex}.tlog-proof", limits.TLOG_PROOF_BYTES)
        if envelope is not None and (receipt is not None or self._behind is None) and _is_of(envelope, payload):
            return envelope, receipt
        if self._behind is None:
            raise NotFound("the statement was not kept", found=payload)
        return self._behind.statement(payload)

    def manifest(self, digest: Digest) -> bytes:
        """A pqreg.json. Raises NotFound, or another TransportError or StorageError."""
        data = self._read(f"{digest.hex}.manifest", limits.MANIFEST_BYTES)
        if data is not None and Digest.of(data) == digest:
            return data
        if self._behind is None:
            raise NotFound("the manifest was not kept", found=digest)
        return self._behind.manifest(digest)

    def _read(self, name: str, limit: int) -> bytes | None:
        path = self._keep / name
        with reported("read", path), contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            return file.read(limit + 1)
        return None


def _is_of(envelope: bytes, payload: Digest) -> bool:
    try:
        return Envelope.parse(envelope).payload_digest == payload
    except (FormatError, SignatureInvalid):
        return False


def check_blobs(judgement: Judgement, client: RegistryClient, *, content: bool) -> None:
    """Whether the registry has the files of a release: each in its size or, with ``content``, byte for byte.

    What is missing or altered becomes a finding of ``judgement``.

    Raises:
        TransportError, AccessDenied: if the registry cannot be asked.
    """
    manifest = judgement.manifest
    if manifest is None or not judgement.genuine:
        return
    if not content:
        for entry in {entry.sha256: entry for entry in manifest.files}.values():
            _check_size(judgement, client, entry)
        return
    buffer = memoryview(bytearray(SLICE_BYTES))
    with RemoteSource(client) as source:
        for entry in manifest.files:
            if not _check_size(judgement, client, entry):
                continue
            try:
                check_file(
                    entry, lambda offset, view, entry=entry: source.read_into(entry, offset, view),  # type: ignore[misc]
                    buffer, advance=lambda _count: None, stopped=lambda: False,
                )  # fmt: skip
            except (NotFound, FileSetMismatch):
                judgement.find(Code.BLOB_MISSING, f"the registry does not have {entry.path}", entry.sha256)
            except ContentError as error:
                judgement.refuse(Code.BLOB_ALTERED, error)


def _check_size(judgement: Judgement, client: RegistryClient, entry: FileEntry) -> bool:
    try:
        size = client.blob_size(entry.sha256)
    except NotFound:
        judgement.find(Code.BLOB_MISSING, f"the registry does not have {entry.path}", entry.sha256)
        return False
    if size != entry.size:
        judgement.find(
            Code.BLOB_ALTERED, f"the registry has {entry.path} in another size", f"{entry.size} bytes", f"{size} bytes"
        )
        return False
    return True
