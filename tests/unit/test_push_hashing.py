# SPDX-License-Identifier: Apache-2.0
"""Pass 1 and the screen before it: the digests equal those of independent tools, and nothing unfit gets through."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
from pathlib import Path

import blake3
import pytest

from pq_registry import limits
from pq_registry.client.hashing import hash_files
from pq_registry.client.progress import NullProgress
from pq_registry.client.scan import SourceDirectory
from pq_registry.client.screen import screen
from pq_registry.errors import FormatError, SourceChanged, UnsafeFileType
from pq_registry.format.manifest import FileEntry
from tests.format_samples import WEIGHTS, safetensors, tensor

SHARD = limits.SHARD_BYTES
SIZES = (0, 1, 1023, 1024, 1025, SHARD - 1, SHARD, SHARD + 1, 3 * SHARD, 9 * SHARD + 12345)


class Counter(NullProgress):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self._lock:
            self.count += count


def hashed(root: Path, *, workers: int = 2, progress: NullProgress | None = None) -> tuple[FileEntry, ...]:
    with SourceDirectory(root) as source:
        return hash_files(source, source.scan().files, workers=workers, progress=progress or NullProgress())


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_digests_of_every_size_around_a_shard(tmp_path: Path, workers: int) -> None:
    source = random.Random(workers)
    contents = {f"{size:08}": source.randbytes(size) for size in SIZES}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    counter = Counter()
    entries = hashed(tmp_path, workers=workers, progress=counter)
    assert [entry.path.text for entry in entries] == sorted(contents)
    for entry in entries:
        content = contents[entry.path.text]
        assert entry.size == len(content)
        assert entry.sha256.hex == hashlib.sha256(content).hexdigest()
        assert entry.shards == b"".join(
            blake3.blake3(content[start : start + SHARD]).digest() for start in range(0, len(content), SHARD)
        )
        assert entry.tensors is None
    assert counter.count == sum(SIZES)


def test_known_values(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    (entry,) = hashed(tmp_path)
    # FIPS 180-4's example, and the BLAKE3 of the same three bytes as b3sum prints it.
    assert entry.sha256.hex == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert entry.shards.hex() == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"


def test_the_digest_is_the_one_openssl_computes(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(random.Random(5).randbytes(5 * SHARD + 7))
    (entry,) = hashed(tmp_path)
    printed = subprocess.run(["openssl", "sha256", "-r", path], capture_output=True, check=True, text=True).stdout
    assert printed.split()[0] == entry.sha256.hex


def test_the_tensor_table_comes_from_the_hashed_bytes_whatever_shards_the_header_spans(tmp_path: Path) -> None:
    (tmp_path / "small.safetensors").write_bytes(WEIGHTS)
    many = {f"t{number:06}": tensor("U8", [0], 0, 0) for number in range(40_000)}
    large = safetensors(many)
    assert len(large) > SHARD
    (tmp_path / "wide.safetensors").write_bytes(large)
    by_name = {entry.path.text: entry for entry in hashed(tmp_path)}
    table = by_name["small.safetensors"].tensors
    assert table is not None
    assert [entry.name for entry in table.tensors] == ["b", "nothing", "a"]
    assert table.metadata == (("format", "pt"),)
    wide = by_name["wide.safetensors"].tensors
    assert wide is not None
    assert len(wide.tensors) == 40_000


@pytest.mark.parametrize("content", [b"", b"\x01", WEIGHTS[:-1], WEIGHTS + b"\0", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_only_claims_to_be_safetensors_is_refused_in_both_places(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=r"'x.safetensors' is not a sound safetensors file"):
        hashed(tmp_path)
    with (
        SourceDirectory(tmp_path) as source,
        pytest.raises(FormatError, match=r"'x.safetensors' is not a sound safetensors file"),
    ):
        screen(source, source.scan(), allow_unsafe=True)


class Meddler(NullProgress):
    """Changes a file in the middle of its being hashed."""

    def __init__(self, path: Path, how: str) -> None:
        self._path = path
        self._how = how

    def advance(self, count: int) -> None:
        if self._how == "shorter":
            os.truncate(self._path, SHARD)
        else:
            with self._path.open("r+b") as file:
                file.write(b"x")


@pytest.mark.parametrize("how", ["shorter", "same size"])
def test_a_file_that_changes_while_it_is_hashed_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(12 * SHARD))
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceChanged, match="'weights' changed while it was being pushed"):
        hashed(tmp_path, progress=Meddler(path, how))


# -- the screen ----------------------------------------------------------------------------------------------------


def test_c7_every_file_that_can_execute_code_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "modeling.py").write_text("print()")
    (tmp_path / "notes.txt").write_bytes(b"PK\x03\x04 in disguise")
    with SourceDirectory(tmp_path) as source:
        found = source.scan()
        with pytest.raises(UnsafeFileType) as caught:
            screen(source, found, allow_unsafe=False)
        for name in ("pytorch_model.bin", "modeling.py", "notes.txt"):
            assert name in (caught.value.found or "")
        assert "config.json" not in (caught.value.found or "")
        assert "--allow-unsafe" in (caught.value.hint or "")
        assert screen(source, found, allow_unsafe=True) == ("modeling.py", "notes.txt", "pytorch_model.bin")


def test_a_hundred_offending_files_are_counted(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.pkl").write_bytes(b"x")
    with SourceDirectory(tmp_path) as source, pytest.raises(UnsafeFileType, match="and 80 more"):
        screen(source, source.scan(), allow_unsafe=False)


def test_a_harmless_directory_passes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "empty.txt").write_bytes(b"")
    with SourceDirectory(tmp_path) as source:
        assert screen(source, source.scan(), allow_unsafe=False) == ()
