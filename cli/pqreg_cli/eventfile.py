# SPDX-License-Identifier: Apache-2.0
"""Files of exported audit events: a line each (``pq_registry.format.eventline``), only ever added to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pq_registry import durable, limits
from pq_registry.errors import EventsInvalid, FormatError, PqregError

if TYPE_CHECKING:
    from pq_registry.format.eventline import Link


def read_events(paths: Iterable[Path], *, torn: bool = False) -> Iterator[Link]:
    """The events of files, oldest file first, each seen to follow the one before.

    Args:
        paths: the files.
        torn: whether the last file may end within a line, which then is left out: what a crash leaves.

    Raises:
        FormatError: if a line is not an event.
        EventsInvalid: if one was changed, or does not follow.
        StorageError: if a file cannot be read.
    """
    last: Link | None = None
    for path in paths:
        number = 0
        for number, link in enumerate(_lines(path, torn=torn), 1):
            if last is not None and (link.previous != last.hash or link.event.id <= last.event.id):
                raise EventsInvalid(
                    f"{path}, line {number}: event {link.event.id} does not follow event {last.event.id}",
                    expected=f"previous {last.hash}", found=link.previous,
                    hint="give the files oldest first, and leave none out",
                )  # fmt: skip
            yield link
            last = link
        if not number:
            raise FormatError(f"{path} holds no event")


@dataclass(frozen=True, slots=True)
class Extent:
    """What files of events hold."""

    first: Link
    last: Link
    count: int


def extent(paths: Iterable[Path], *, torn: bool = False) -> Extent:
    """Check files as ``read_events`` does, and answer what they hold.

    Raises:
        FormatError: if there is no file, or one is malformed.
        EventsInvalid: if an event was changed, or does not follow.
        StorageError: if a file cannot be read.
    """
    first = last = None
    count = 0
    for last in read_events(paths, torn=torn):
        first, count = first or last, count + 1
    if first is None or last is None:
        raise FormatError("there are no events", expected="a file of them")
    return Extent(first, last, count)


def _lines(path: Path, *, torn: bool) -> Iterator[Link]:
    from pq_registry.format.eventline import Link

    with durable.reported("read", path), path.open("rb") as file:
        number = 0
        while line := file.readline(limits.EVENT_BYTES + 1):
            number += 1
            if not line.endswith(b"\n"):
                if torn and len(line) <= limits.EVENT_BYTES:
                    return
                raise FormatError(f"{path}, line {number} is cut off", hint="continue the export, which repairs that")
            try:
                yield Link.parse(line)
            except PqregError as error:
                message = f"{path}, line {number}: {error.message}"
                raise type(error)(message, expected=error.expected, found=error.found) from None


def add_events(path: Path, links: Iterable[Link]) -> int:
    """Add events to a file, made for its owner alone if it is not there; durable. Answers how many.

    Raises:
        StorageError: if it cannot be written.
        PqregError: whatever ``links`` raises; the lines before it stay.
    """
    count = 0
    with durable.reported("write", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            end = _whole(descriptor)
            os.ftruncate(descriptor, end)  # half a line of a write that a crash cut off
            for link in links:
                count += 1
                line = memoryview(link.encode())
                while line:
                    written = os.pwrite(descriptor, line, end)
                    line, end = line[written:], end + written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        durable.sync_directory(path.parent)
    return count


def _whole(descriptor: int) -> int:
    """The length of the file up to its last line feed."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - limits.EVENT_BYTES - 1)
    tail = os.pread(descriptor, size - start, start)
    return start + tail.rfind(b"\n") + 1
