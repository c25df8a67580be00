# SPDX-License-Identifier: Apache-2.0
"""Where ``pqreg fsck --repair-from`` fetches blobs: other registries, and directories of blobs.

Nothing they answer is believed: the store compares every byte with the blob's digest before it takes the blob's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pq_registry import limits
from pq_registry.client.places import parse_origins
from pq_registry.client.ranges import RangeReader
from pq_registry.client.rate import TokenBucket
from pq_registry.client.transport import RegistryClient, blob_path
from pq_registry.errors import NotFound, UsageError
from pq_registry.format.digest import Digest
from pq_registry.settings import Settings, parse_rate
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.local import LocalBlobStore
from pq_registry.storage.repair import BlobSource
from pqreg_cli.session import read_small

_TOKEN_BYTES = 512
_CHUNK_BYTES = limits.RANGE_SHARDS * limits.SHARD_BYTES


class RegistrySource:
    """Another registry, read in ranges; a range that fails is asked for again as in every pull."""

    def __init__(self, client: RegistryClient) -> None:
        """``client`` stays the caller's."""
        self._client = client
        self._reader = RangeReader(client.exchanger)

    def __str__(self) -> str:
        return str(self._client.origin)

    def fetch(self, digest: Digest, size: int) -> Iterator[bytes]:
        """The blob's bytes, unverified. Raises PqregError."""
        if self._client.blob_size(digest) != size:
            raise NotFound(f"{self} has another length of {digest}", expected=size)
        buffer = bytearray(min(size, _CHUNK_BYTES))
        for offset in range(0, size, _CHUNK_BYTES):
            with memoryview(buffer)[: min(_CHUNK_BYTES, size - offset)] as view:
                self._reader.read_into(blob_path(digest), offset, view, size=size)
                yield bytes(view)

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()


class DirectorySource:
    """A directory as a registry keeps its blobs, or a copy of one: ``DIR/sha256/aa/<digest>``."""

    def __init__(self, root: Path) -> None:
        """Look only whether it is there.

        Raises:
            UsageError: if it is not such a directory.
        """
        if not (root / "sha256").is_dir():
            raise UsageError(f"{root} is not a directory of blobs", expected="sha256/ in it", found=root)
        self._root, self._store = root, LocalBlobStore(root)

    def __str__(self) -> str:
        return str(self._root)

    def fetch(self, digest: Digest, size: int) -> Iterator[bytes]:
        """The blob's bytes, unverified. Raises PqregError."""
        reader = self._store.open(StoredBlob(digest), size=size)
        try:
            for offset in range(0, size, limits.HASH_CHUNK_BYTES):
                yield reader.read(offset, min(limits.HASH_CHUNK_BYTES, size - offset))
        finally:
            reader.close()


def open_sources(
    places: Sequence[str], settings: Settings, token_file: Path | None, stack: ExitStack
) -> list[BlobSource]:
    """What ``--repair-from`` names, each a URL or a directory, in its order.

    The token of the file goes to every registry among them; that of the settings to the one they name, or, where they
    name none, to the only one that is given.

    Raises:
        UsageError: if one is neither.
        SettingError: if a URL cannot be one.
    """
    given = None
    if token_file is not None:
        given = read_small(token_file, "token file", _TOKEN_BYTES).decode("ascii", errors="replace").strip()
    urls = [place for place in places if "://" in place]
    own = settings.get("registry") or (urls[0] if len(urls) == 1 else None)
    ca = settings.get("tls_ca")
    sources: list[BlobSource] = []
    for place in places:
        if place not in urls:
            sources.append(DirectorySource(Path(place)))
            continue
        token = given or (settings.get("token") if place == own else None)
        client = stack.enter_context(
            RegistryClient(
                place, token, ca=None if ca is None else Path(ca),
                rate=TokenBucket(parse_rate(settings.require("limit_rate"))),
                storage_origins=parse_origins(settings.get("storage_origins")),
            )
        )  # fmt: skip
        source = RegistrySource(client)
        stack.callback(source.close)
        sources.append(source)
    return sources
