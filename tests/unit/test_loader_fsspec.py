# SPDX-License-Identifier: Apache-2.0
"""pqreg:// in fsspec: releases as directories, files as verified bytes, and nothing that can be written."""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fsspec = pytest.importorskip("fsspec", reason='needs fsspec (pip install "pq-registry[fsspec]")')

from pq_registry import limits  # noqa: E402
from pq_registry.client.source import DirectorySource  # noqa: E402
from pq_registry.errors import DigestMismatch, NameSyntaxError, PqregError, ShardMismatch, UsageError  # noqa: E402
from pq_registry.format.digest import Digest  # noqa: E402
from pq_registry.loader import api  # noqa: E402
from pq_registry.loader.integrations.fsspec import PqregFileSystem  # noqa: E402
from tests.fake_registry import serving  # noqa: E402
from tests.releases import release_directory, write_trust  # noqa: E402
from tests.samples import NOW, release  # noqa: E402
from tests.sealed_registry import sealed_registry  # noqa: E402
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files  # noqa: E402
from tests.tensors import safetensors_bytes  # noqa: E402

SHARD = limits.SHARD_BYTES
FILES = {
    "config.json": b'{"a": 1}',
    "empty.txt": b"",
    "lines.txt": "eins\nzwei\ndrei ü\n".encode(),
    "model.safetensors": safetensors_bytes({"w": ("F32", (5 * SHARD // 4 + 1000,))}, 1)[0],
    "sub/deep/a.txt": b"a",
    "sub/deep/b.txt": b"b",
    "sub/c.txt": b"c",
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    release_directory(tmp_path / "r", FILES)
    return tmp_path / "r"


@pytest.fixture
def fs(directory: Path) -> Iterator[Any]:
    fsspec.register_implementation("pqreg", PqregFileSystem, clobber=True)
    found = fsspec.filesystem("pqreg", directory=str(directory), skip_instance_cache=True)
    yield found
    for used in (found, *PqregFileSystem._cache.values()):  # fsspec.open keeps those it makes, and their threads
        used.invalidate_cache()
    PqregFileSystem.clear_instance_cache()


ROOT = "acme/minilm"


def test_the_entry_point_names_it() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["fsspec.specs"]["pqreg"].partition(":")
    assert getattr(import_module(module), name) is PqregFileSystem
    assert PqregFileSystem.protocol == "pqreg"


def test_directories(fs: Any) -> None:
    assert fs.ls(ROOT, detail=False) == [f"{ROOT}/{name}" for name in [*list(FILES)[:4], "sub"]]
    assert fs.ls(f"pqreg://{ROOT}/sub/", detail=False) == [f"{ROOT}/sub/c.txt", f"{ROOT}/sub/deep"]
    assert fs.find(ROOT) == sorted(f"{ROOT}/{name}" for name in FILES)
    assert fs.glob(f"{ROOT}/sub/**/*.txt") == [f"{ROOT}/sub/{name}" for name in ("c.txt", "deep/a.txt", "deep/b.txt")]
    assert fs.glob(f"pqreg://{ROOT}/*.json") == [f"{ROOT}/config.json"]
    assert [(folder, sorted(folders), sorted(files)) for folder, folders, files in fs.walk(f"{ROOT}/sub")] == [
        (f"{ROOT}/sub", ["deep"], ["c.txt"]),
        (f"{ROOT}/sub/deep", [], ["a.txt", "b.txt"]),
    ]
    assert fs.du(ROOT) == sum(map(len, FILES.values()))


def test_what_a_path_is(fs: Any) -> None:
    found = fs.info(f"pqreg://{ROOT}/config.json")
    assert (found["name"], found["type"], found["size"]) == (f"{ROOT}/config.json", "file", 8)
    assert found["sha256"] == "sha256:" + hashlib.sha256(FILES["config.json"]).hexdigest() == fs.checksum(found["name"])
    assert fs.isdir(ROOT) and fs.isdir(f"{ROOT}/sub/deep") and not fs.isdir(f"{ROOT}/config.json")
    assert fs.isfile(f"{ROOT}/sub/c.txt") and not fs.isfile(f"{ROOT}/sub")
    assert fs.exists(f"{ROOT}/empty.txt") and not fs.exists(f"{ROOT}/nothing")
    assert fs.size(f"{ROOT}/model.safetensors") == len(FILES["model.safetensors"])
    assert fs.checksum(ROOT) == found["release"]


def test_files(fs: Any) -> None:
    for name, content in FILES.items():
        assert fs.cat(f"{ROOT}/{name}") == content
        with fsspec.open(f"pqreg://{ROOT}/{name}", directory=str(fs._directory)) as file:
            assert file.read() == content
    assert fs.cat(f"{ROOT}/sub", recursive=True, on_error="omit") == {
        f"{ROOT}/{name}": content for name, content in FILES.items() if name.startswith("sub/")
    }
    with fs.open(f"{ROOT}/lines.txt", "r", encoding="utf-8") as file:
        assert list(file) == ["eins\n", "zwei\n", "drei ü\n"]
    weights = FILES["model.safetensors"]
    for start, end in (
        (None, None),
        (5, 9),
        (SHARD - 2, SHARD + 2),
        (-7, None),
        (-7, -2),
        (3, -3),
        (9, 4),
        (1 << 40, None),
    ):
        assert fs.cat_file(f"{ROOT}/model.safetensors", start, end) == weights[start:end], (start, end)
    assert fs.cat_ranges([f"{ROOT}/config.json"] * 2, [0, 2], [2, 4]) == [weights and b'{"', b'a"']
    assert fs.head(f"{ROOT}/model.safetensors", 10) == weights[:10]
    assert fs.tail(f"{ROOT}/model.safetensors", 10) == weights[-10:]


def test_a_file_can_be_read_in_any_order(fs: Any) -> None:
    weights = FILES["model.safetensors"]
    rng = np.random.default_rng(1)
    with fs.open(f"{ROOT}/model.safetensors") as file:
        assert file.size == len(weights) and file.seekable() and file.readable() and not file.writable()
        for _ in range(200):
            at, size = int(rng.integers(0, len(weights) + 100)), int(rng.integers(0, 3000))
            assert file.seek(at) == at == file.tell()
            assert file.read(size) == weights[at : at + size]
        assert file.seek(-5, io.SEEK_END) == len(weights) - 5 and file.read() == weights[-5:]
        assert file.seek(0) == 0
        assert b"".join(iter(lambda: file.read(100_000), b"")) == weights
        memory = bytearray(SHARD + 5)
        file.seek(7)
        assert file.readinto(memory) == len(memory) and memory == weights[7 : 12 + SHARD]
        for offset, whence in ((-1, 0), (-len(weights) - 1, 2), (0, 9)):
            with pytest.raises((UsageError, ValueError)):
                file.seek(offset, whence)
        file.read(1)
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_bytes_that_were_altered_are_not_read(fs: Any, directory: Path) -> None:
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[2 * SHARD + 100] ^= 1
    fs.info(ROOT)
    path.write_bytes(data)
    with fs.open(f"{ROOT}/model.safetensors") as file:
        assert file.read(100) == FILES["model.safetensors"][:100]
        file.seek(2 * SHARD)
        with pytest.raises(ShardMismatch):
            file.read(1)
    with pytest.raises(ShardMismatch):
        fs.cat_file(f"{ROOT}/model.safetensors", 2 * SHARD + 5, 2 * SHARD + 6)
    with pytest.raises(ShardMismatch):
        fs.get_file(f"{ROOT}/model.safetensors", str(directory.parent / "copy"))


def test_from_front_to_back_the_next_shard_is_sent_for(fs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = DirectorySource.read_into

    def watched(self: DirectorySource, file: Any, offset: int, view: memoryview, **options: Any) -> None:
        read.append(offset // SHARD)
        original(self, file, offset, view, **options)

    monkeypatch.setattr(DirectorySource, "read_into", watched)
    with fs.open(f"{ROOT}/model.safetensors") as file:
        file.read(10)
        assert set(read) == {0}
        file.seek(3 * SHARD)
        file.read(10)
        assert set(read) == {0, 3}
    with fs.open(f"{ROOT}/model.safetensors") as file:
        while file.read(300_000):
            pass
    fs.invalidate_cache()  # waits for what is on its way
    assert sorted(read) == [0, 1, 2, 3, 4, 5]  # each once


def test_paths_that_are_not_there(fs: Any) -> None:
    for path in ("nothing", "sub/nothing", "../trust.json", "pqreg.json", "model.sig"):
        for call in (fs.info, fs.cat_file, fs.open):
            with pytest.raises(FileNotFoundError):
                call(f"{ROOT}/{path}")
    with pytest.raises(NotADirectoryError):
        fs.info(f"{ROOT}/config.json/x")
    for call in (fs.cat_file, fs.open):
        with pytest.raises(IsADirectoryError):
            call(f"{ROOT}/sub")
    for path in ("", "acme", "pqreg://"):
        with pytest.raises(FileNotFoundError, match="namespace/name"):
            fs.ls(path)
    with pytest.raises(NameSyntaxError):
        fs.ls("acme/mini lm")
    with pytest.raises(PqregError):
        fs.ls("acme/other")
    assert not fs.exists("acme/other/config.json")


def test_nothing_can_be_written(fs: Any, tmp_path: Path) -> None:
    for mode in ("wb", "ab", "r+b", "xb", "w"):
        with pytest.raises(UsageError, match="read-only"):
            fs.open(f"{ROOT}/config.json", mode)
    for call in (fs.rm, fs.rm_file, fs.mkdir, fs.makedirs, fs.rmdir, fs.touch):
        with pytest.raises(UsageError, match="read-only"):
            call(f"{ROOT}/sub")
    for call in (fs.mv, fs.cp_file):
        with pytest.raises(UsageError, match="read-only"):
            call(f"{ROOT}/config.json", f"{ROOT}/other.json")
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(UsageError):
        fs.put_file(str(tmp_path / "x"), f"{ROOT}/x")


def test_a_release_is_opened_once_until_it_is_forgotten(fs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = api.open_for
    monkeypatch.setattr(api, "open_for", lambda *args, **kwargs: calls.append("open") or original(*args, **kwargs))
    for _ in range(3):
        fs.ls(ROOT)
        fs.cat(f"{ROOT}/config.json")
    assert len(calls) == 1
    fs.invalidate_cache(f"{ROOT}/config.json")
    fs.ls(ROOT)
    assert len(calls) == 2


def test_a_digest_in_the_path_is_demanded(fs: Any) -> None:
    digest = fs.info(ROOT)["release"]
    assert fs.cat(f"pqreg://{ROOT}@{digest}/config.json") == FILES["config.json"]
    with pytest.raises(DigestMismatch):
        fs.cat(f"pqreg://{ROOT}@{Digest('0' * 64)}/config.json")


def test_it_can_be_sent_to_another_process_and_describes_itself_without_its_token(directory: Path) -> None:
    fs = PqregFileSystem(directory=str(directory), token="geheim", skip_instance_cache=True)
    other = pickle.loads(pickle.dumps(fs))
    assert other.cat(f"{ROOT}/config.json") == FILES["config.json"]
    assert "geheim" not in repr(fs) + str(fs.to_dict(include_password=False)) + fs.to_json(include_password=False)
    other.invalidate_cache()


FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")
from pq_registry.loader import api
from tests.samples import NOW
api.utc_now = lambda: NOW
from pq_registry.loader.integrations.fsspec import PqregFileSystem
fs = PqregFileSystem(directory=sys.argv[1])
def read():
    return fs.cat("acme/minilm/config.json") == b'{"a": 1}' and fs.cat_file("acme/minilm/model.safetensors", -9) != b""
assert read()
child = os.fork()
if not child:
    os._exit(0 if read() else 1)
assert os.waitpid(child, 0)[1] == 0 and read()
"""


def test_a_forked_process_opens_releases_again(directory: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", FORKED, str(directory)], check=True, timeout=60, cwd=root)


def test_from_a_registry(directory: Path, tmp_path: Path) -> None:
    with serving() as registry:
        digest = registry.add_release(*release(FILES), FILES)
        fs = PqregFileSystem(registry=registry.url, trust=str(tmp_path / "trust.json"), skip_instance_cache=True)
        root = f"acme/minilm@{digest}"
        assert fs.find(root) == sorted(f"{root}/{name}" for name in FILES)
        before = registry.bytes_served()
        weights = FILES["model.safetensors"]
        assert fs.cat_file(f"{root}/model.safetensors", -100, None) == weights[-100:]
        assert registry.bytes_served() - before <= SHARD
        with fs.open(f"pqreg://{root}/model.safetensors") as file:
            assert file.read() == weights
        fs.invalidate_cache()


def test_sealed_files_in_the_clear(tmp_path: Path) -> None:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        fs = PqregFileSystem(
            registry=registry.url,
            trust=str(tmp_path / "trust.json"),
            recipient_key=recipient(),
            skip_instance_cache=True,
        )
        root = f"{NAME}:v1"
        assert fs.find(root) == sorted(f"{root}/{name}" for name in model_files())
        for name, content in model_files().items():
            assert fs.cat(f"{root}/{name}") == content
        fs.invalidate_cache()
        site.close()
