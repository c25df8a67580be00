# SPDX-License-Identifier: Apache-2.0
"""A verified file in sealed memory: what it holds, that nobody can change it, and what is refused before it is."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import FileDigestMismatch, FileSetMismatch, ShardMismatch, TensorTableMismatch, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.manifest import FileEntry, TensorTable
from pq_registry.loader.integrations import memfd
from pq_registry.loader.integrations.memfd import sealed_memfd
from pq_registry.loader.opening import OpenRelease, open_release
from pq_registry.settings import Settings
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
MODEL = b"GGUF" + os.urandom(9 * SHARD + 1234)
FILES = {
    "empty.txt": b"",
    "model.gguf": MODEL,
    "model.safetensors": safetensors_bytes({"w": ("F32", (SHARD // 4 + 7,))}, 1)[0],
}


@pytest.fixture
def opened(tmp_path: Path) -> OpenRelease:
    release_directory(tmp_path / "r", FILES)
    settings = Settings({"trust": str(write_trust(tmp_path / "trust.json"))}, environment={"HOME": str(tmp_path)})
    return open_release(tmp_path / "r", expect="acme/minilm", settings=settings, now=NOW)


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def entry(opened: OpenRelease, name: str) -> FileEntry:
    return next(file for file in opened.files if file.path.text == name)


@pytest.mark.parametrize("name", sorted(FILES))
def test_it_holds_the_file(opened: OpenRelease, name: str) -> None:
    meter = Meter()
    descriptor = sealed_memfd(opened, entry(opened, name), meter=meter)
    try:
        assert os.fstat(descriptor).st_size == len(FILES[name])
        assert os.pread(descriptor, len(FILES[name]), 0) == FILES[name]
        assert meter["hash"].count == len(FILES[name])
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_nobody_can_change_it(opened: OpenRelease) -> None:
    descriptor = sealed_memfd(opened, entry(opened, "model.gguf"))
    path = f"/proc/self/fd/{descriptor}"
    try:
        for change in (
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, 1),
            lambda: os.ftruncate(descriptor, 100 * SHARD),
            lambda: mmap.mmap(descriptor, SHARD),
            lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        ):
            with pytest.raises(OSError) as caught:
                change()
            assert caught.value.errno in (errno.EPERM, errno.EACCES)
        with open(path, "rb") as again, mmap.mmap(again.fileno(), 0, prot=mmap.PROT_READ) as mapping:
            assert mapping[:4] == b"GGUF"
        # Neither by a mapping that is made writable afterwards.
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        address = libc.mmap(None, SHARD, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        assert libc.mprotect(address, SHARD, mmap.PROT_READ | mmap.PROT_WRITE) == -1
        libc.munmap(address, SHARD)
    finally:
        os.close(descriptor)


def test_another_program_maps_it_by_its_path(opened: OpenRelease) -> None:
    descriptor = sealed_memfd(opened, entry(opened, "model.gguf"))
    code = (
        "import hashlib, mmap, sys\n"
        "with open(sys.argv[1], 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as model:\n"
        "    print(model[:4].decode(), hashlib.sha256(model).hexdigest())\n"
        "try:\n"
        "    open(sys.argv[1], 'r+b', buffering=0).write(b'x')\n"
        "except OSError as error:\n"
        "    print('refused')\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code, f"/proc/self/fd/{descriptor}"], pass_fds=[descriptor],
                              capture_output=True, text=True, timeout=60)  # fmt: skip
    finally:
        os.close(descriptor)
    assert done.stdout.split() == ["GGUF", Digest.of(MODEL).hex, "refused"], done.stderr


@pytest.mark.parametrize("at", [0, SHARD, len(MODEL) - 1])
def test_one_wrong_bit_and_there_is_none(opened: OpenRelease, tmp_path: Path, at: int) -> None:
    path = tmp_path / "r" / "model.gguf"
    data = bytearray(MODEL)
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardMismatch, match=f"shard {at // SHARD} of model.gguf"):
        sealed_memfd(opened, entry(opened, "model.gguf"))
    path.write_bytes(MODEL[:-1])
    with pytest.raises(FileSetMismatch):
        sealed_memfd(opened, entry(opened, "model.gguf"))


def test_who_writes_between_the_shards_and_the_seal_is_found_out(
    opened: OpenRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = memfd._fill

    def and_then(*args: object) -> None:
        filled(*args)  # type: ignore[arg-type]
        os.pwrite(int(args[2]), b"x", 5 * SHARD)  # type: ignore[call-overload]

    monkeypatch.setattr(memfd, "_fill", and_then)
    with pytest.raises(FileDigestMismatch):
        sealed_memfd(opened, entry(opened, "model.gguf"))


def test_a_publisher_who_signed_two_models_is_found_out(opened: OpenRelease) -> None:
    with pytest.raises(FileDigestMismatch):
        sealed_memfd(opened, replace(entry(opened, "model.gguf"), sha256=Digest("0" * 64)))
    file = entry(opened, "model.safetensors")
    assert file.tensors is not None
    other = TensorTable(file.tensors.header_size, (("a", "b"),), file.tensors.tensors)
    with pytest.raises(TensorTableMismatch):
        sealed_memfd(opened, replace(file, tensors=other))


def test_systems_without_it_are_told(opened: OpenRelease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(UsageError, match="no sealed memory"):
        sealed_memfd(opened, entry(opened, "model.gguf"))


def test_of_a_sealed_release_the_plaintext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        settings = Settings({"trust": str(tmp_path / "trust.json"), "registry": registry.url}, environment={
            "HOME": str(tmp_path)})  # fmt: skip
        found = open_release(f"{NAME}:v1", expect=None, settings=settings, now=utc_now(), key=recipient())
        descriptor = sealed_memfd(found, entry(found, "model.safetensors"))
        assert os.pread(descriptor, 1 << 26, 0) == model_files()["model.safetensors"]
        os.close(descriptor)
        site.close()
