# SPDX-License-Identifier: Apache-2.0
"""What a blob store promises. The service is written against these protocols and against no particular store.

A blob is named by the SHA-256 digest of its bytes and never changes. Only verified bytes are ever adopted, adopting is
atomic and durable, and a digest that is already there with other bytes is a failure of the store, never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pq_registry.format.digest import Digest


class BlobReader(Protocol):
    """One blob, open for reading; may be used from several threads at once until it is closed."""

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            StorageError: if the store fails or holds fewer bytes than that.
        """
        ...

    def close(self) -> None:
        """Give up what the store holds for this reader."""
        ...


class BlobStore(Protocol):
    """Immutable blobs by digest."""

    def open(self, digest: Digest, *, size: int | None = None) -> BlobReader:
        """Open a blob for reading.

        Args:
            digest: which one.
            size: the length it must have, as far as the caller knows it.

        Raises:
            NotFound: if there is no such blob.
            StorageError: if the store fails, or the blob has another length.
        """
        ...

    def size(self, digest: Digest) -> int | None:
        """A blob's length, or None if there is no such blob.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def adopt(self, temporary: Path, digest: Digest) -> None:
        """Take over a finished file whose SHA-256 the caller has computed to be ``digest``; ``temporary`` is gone then.

        Raises:
            StorageError: if the store fails, or holds other bytes under ``digest``; ``temporary`` is then left.
        """
        ...

    def iterate(self) -> Iterator[Digest]:
        """Every blob, in no particular order.

        Raises:
            StorageError: if the store fails or holds something that is no blob.
        """
        ...

    def check(self) -> None:
        """Make sure that the store can be read.

        Raises:
            StorageError: if it cannot.
        """
        ...
