# SPDX-License-Identifier: Apache-2.0
"""Reading one volume, from a file or a pipe, from its beginning to its end and never back.

What comes next is known at every point: two small documents of fixed names, then what the first of them lists. A header
that is not exactly the one expected, a byte too few, padding that is not zero, or anything behind the end is refused.
Nothing read here becomes a path, and nothing is believed because it was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pq_registry import limits
from pq_registry.errors import BundleMismatch, FormatError, StorageError
from pq_registry.format.bundleindex import INDEX_NAME, VOLUME_NAME, Bundle, Segment, Volume, document_name
from pq_registry.format.digest import Digest
from pq_registry.format.tarstream import BLOCK, END, padding, parse_header


class Stream(Protocol):
    """Bytes from a file, a pipe or memory."""

    def readinto(self, view: memoryview, /) -> int | None:
        """Fill at most ``view``; 0 at the end."""
        ...


class VolumeReader:
    """One volume. ``documents``, then ``segments``, then ``finish``, in this order."""

    def __init__(self, stream: Stream, label: str) -> None:
        """Read what the volume says of itself.

        Args:
            stream: its bytes.
            label: what to call it in messages, e.g. the name of the file.

        Raises:
            FormatError: if it is not a volume of a bundle.
            BundleMismatch: if its two documents are not of one bundle.
            StorageError: if it cannot be read.
        """
        self.label = label
        self._stream = stream
        index = self._member(INDEX_NAME, limits.BUNDLE_INDEX_BYTES)
        self.bundle = Bundle.parse(index)
        self.id = Digest.of(index)
        stated = Volume.parse(self._member(VOLUME_NAME, limits.BUNDLE_VOLUME_INDEX_BYTES))
        if stated.bundle != self.id or stated.number > len(self.bundle.volumes):
            raise BundleMismatch(
                f"{label} contradicts itself",
                expected=f"a volume of bundle {self.id}, 1 to {len(self.bundle.volumes)}",
                found=f"volume {stated.number} of bundle {stated.bundle}",
                hint="volumes of two bundles were mixed, or this one was altered; get another copy",
            )
        self.number = stated.number

    def documents(self) -> dict[str, bytes]:
        """The documents by role, as the index describes them.

        Raises:
            FormatError: if one is missing or malformed.
            BundleMismatch: if one is another than the index says.
        """
        found = {}
        for position, document in enumerate(self.bundle.documents):
            data = self._member(document_name(position), document.size, exactly=True)
            if Digest.of(data) != document.sha256:
                raise BundleMismatch(
                    f"{self.label}: {document.role} is damaged", expected=document.sha256, found=Digest.of(data),
                    hint="copy the volume again from where it came",
                )  # fmt: skip
            found[document.role] = data
        return found

    def segments(self) -> Iterator[Segment]:
        """The segments in their order; the caller reads all bytes of one by ``read`` before it takes the next."""
        for segment in self.bundle.volumes[self.number - 1]:
            self._header(segment.name, segment.size, exactly=True)
            yield segment
            self._zeros(padding(segment.size), segment.name)

    def read(self, view: memoryview) -> None:
        """Fill ``view`` with the next bytes.

        Raises:
            FormatError: if the volume ends before.
            StorageError: if it cannot be read.
        """
        got = self._fill(view)
        if got != len(view):
            raise self._cut_off(f"{len(view) - got} bytes more")

    def finish(self) -> None:
        """The end of the volume, and nothing behind it.

        Raises:
            FormatError: if something else comes.
        """
        self._zeros(len(END), "the last file")
        if self._fill(memoryview(bytearray(1))):
            raise FormatError(
                f"{self.label} goes on behind its end", expected="nothing more", found="more bytes",
                hint="it was altered, or is another kind of file; get another copy",
            )  # fmt: skip

    def _member(self, name: str, limit: int, *, exactly: bool = False) -> bytes:
        data = bytearray(self._header(name, limit, exactly=exactly))
        self.read(memoryview(data))
        self._zeros(padding(len(data)), name)
        return bytes(data)

    def _header(self, name: str, limit: int, *, exactly: bool) -> int:
        block = bytearray(BLOCK)
        self.read(memoryview(block))
        try:
            size = parse_header(bytes(block), name, limit=limit)
        except FormatError as error:
            raise FormatError(
                f"{self.label}: {error.message}", expected=error.expected, found=error.found, hint=error.hint
            ) from None
        if exactly and size != limit:
            raise FormatError(
                f"{self.label}: {name} has another size", expected=f"{limit} bytes", found=f"{size} bytes"
            )
        return size

    def _zeros(self, count: int, behind: str) -> None:
        data = bytearray(count)
        self.read(memoryview(data))
        if any(data):
            raise FormatError(
                f"{self.label} has bytes where it must have none", expected=f"zeros behind {behind}",
                hint="it was altered or damaged; get another copy",
            )  # fmt: skip

    def _fill(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            try:
                count = self._stream.readinto(view[done:])
            except OSError as error:
                raise StorageError(
                    f"cannot read {self.label}",
                    found=error.strerror,
                    hint="the medium may be damaged; get another copy",
                ) from None
            if not count:
                break
            done += count
        return done

    def _cut_off(self, expected: str) -> FormatError:
        return FormatError(
            f"{self.label} is cut off", expected=expected, found="its end",
            hint="copy it again; what was verified before is kept",
        )  # fmt: skip
