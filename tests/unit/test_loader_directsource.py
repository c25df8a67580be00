# SPDX-License-Identifier: Apache-2.0
"""Reading past the page cache: the same bytes at any offset and address, and through the cache where it is refused."""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.directory import ReleaseDirectory
from pq_registry.errors import FileSetMismatch
from pq_registry.format.manifest import FileEntry
from pq_registry.loader import directsource
from pq_registry.loader.directsource import DirectSource, is_direct
from tests.samples import file_entry

STEP = limits.DIRECT_ALIGNMENT
SIZE = 2 * limits.DIRECT_PIECE_BYTES + 3 * STEP + 77


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(1).randbytes(SIZE)


@pytest.fixture
def folder(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "model.bin").write_bytes(content)
    return tmp_path / "r"


@pytest.fixture
def source(folder: Path) -> Iterator[DirectSource]:
    source = DirectSource(folder)
    yield source
    source.close()


def entry(content: bytes) -> FileEntry:
    return file_entry("model.bin", content)


def refuses(folder: Path) -> bool:
    descriptor = os.open(folder / "model.bin", os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("address", [0, 1, 64, STEP])
def test_every_range_at_every_address(source: DirectSource, content: bytes, address: int) -> None:
    file = entry(content)
    memory = memoryview(mmap.mmap(-1, SIZE + 2 * STEP))
    rng = random.Random(address)
    edges = [0, 1, STEP - 1, STEP, limits.DIRECT_PIECE_BYTES, SIZE - 77, SIZE - 1, SIZE]
    edges += [rng.randrange(SIZE) for _ in range(4)]
    for begin in edges:
        for end in edges:
            if begin < end:
                view = memory[address : address + end - begin]
                arrived: list[int] = []
                source.read_into(file, begin, view, arrived=arrived.append)
                assert bytes(view) == content[begin:end], (begin, end)
                assert sum(arrived) == end - begin
                assert bytes(memory[address + end - begin :][:STEP]) == bytes(STEP), "not a byte more"
                view[:] = bytes(len(view))


def test_nothing_goes_through_the_page_cache(source: DirectSource, folder: Path, content: bytes) -> None:
    if refuses(folder):
        pytest.skip("the file system of the temporary directory does not read past the page cache")
    descriptor = os.open(folder / "model.bin", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    source.read_into(entry(content), 5, memoryview(bytearray(SIZE - 5)))
    assert not directsource._is_cached(descriptor, SIZE // 2)
    os.pread(descriptor, 1, SIZE // 2)
    assert directsource._is_cached(descriptor, SIZE // 2)
    os.close(descriptor)


@pytest.mark.parametrize("when", ["asked", "read"])
def test_a_file_system_that_refuses_is_read_through_the_page_cache(
    when: str,
    source: DirectSource,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    control, preadv = fcntl.fcntl, os.preadv

    def no_flag(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return control(descriptor, command, argument)

    def no_read(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if control(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return preadv(descriptor, buffers, offset, flags)

    if when == "asked":
        monkeypatch.setattr(fcntl, "fcntl", no_flag)
    else:
        monkeypatch.setattr(os, "preadv", no_read)
    view = memoryview(bytearray(SIZE - 3))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            source.read_into(entry(content), 3, view)
    assert bytes(view) == content[3:]
    assert [record.message for record in caplog.records if "page cache" in record.message] != []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("left", [0, 5, STEP, STEP + 5])
def test_a_file_that_shrinks_is_refused(source: DirectSource, folder: Path, content: bytes, left: int) -> None:
    file = entry(content)
    source.read_into(file, 0, memoryview(bytearray(10)))
    os.truncate(folder / "model.bin", left)
    for offset, length in ((0, 2 * STEP), (STEP, 2 * STEP), (7, STEP + 20), (SIZE - 10, 10)):
        with pytest.raises(FileSetMismatch):
            source.read_into(file, offset, memoryview(mmap.mmap(-1, length)))


def test_auto_reads_past_the_cache_what_is_not_in_it_and_has_no_room_there(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [entry(content)]
    assert is_direct(folder, files, "direct")
    assert not is_direct(folder, files, "buffered")
    cached = True
    monkeypatch.setattr(directsource, "_is_cached", lambda *_: cached)
    for free, cold, expected in (
        (2 * SIZE, True, False), (2 * SIZE - 1, False, False), (2 * SIZE - 1, True, True), (None, True, False),
    ):  # fmt: skip
        cached = not cold
        monkeypatch.setattr("pq_registry.client.machine.free_memory", lambda free=free: free)
        assert is_direct(folder, files, "auto") is expected
        with ReleaseDirectory(folder) as directory:
            assert is_direct(directory, files, "auto") is expected


def test_no_descriptor_is_left(folder: Path, content: bytes) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with DirectSource(folder) as source:
        source.read_into(entry(content), 0, memoryview(bytearray(100)))
    assert set(os.listdir("/proc/self/fd")) == before
