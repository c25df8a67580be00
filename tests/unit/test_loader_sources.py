# SPDX-License-Identifier: Apache-2.0
"""Sources under a load: local files past the page cache, and shards of a registry that arrive damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pq_registry import iter_tensors, limits, load
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress, ignored
from pq_registry.client.source import DirectorySource, RemoteSource
from pq_registry.errors import ShardMismatch, UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader import api
from pq_registry.loader.directsource import DirectSource
from pq_registry.loader.dtypes import Numpy
from pq_registry.loader.fill import Checked
from pq_registry.loader.placement import WholeFiles
from pq_registry.loader.selection import runs, select
from pq_registry.loader.stream import Pace, TensorStream
from tests.releases import release_directory, write_trust
from tests.samples import NOW, manifest
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES
CALLS = pytest.mark.parametrize("call", [load, lambda *a, **k: dict(iter_tensors(*a, **k))], ids=["load", "iter"])


def same(found: dict[str, np.ndarray], truth: Truth) -> bool:
    return {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in truth.items()}


# -- past the page cache -----------------------------------------------------------------------------------------------


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Truth]:
    one, first = safetensors_bytes({"a": ("U8", (3 * SHARD + 5,)), "b": ("U8", (100,)), "c": ("U8", (2 * SHARD,))}, 1)
    two, second = safetensors_bytes({"d": ("F32", (SHARD // 2, 3))}, 2, header_padding=3)
    release_directory(tmp_path / "r", {"x.safetensors": one, "sub/y.safetensors": two, "config.json": b"{}"})
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    return tmp_path / "r", {**first, **second}


@CALLS
@pytest.mark.parametrize("io", ["auto", "buffered", "direct"])
def test_every_way_of_reading_gives_the_same(
    call: Callable[..., dict[str, np.ndarray]], io: str, release: tuple[Path, Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, truth = release
    used: Counter[type] = Counter()
    read = DirectorySource.read_into, DirectSource.read_into
    for kind, original in zip((DirectorySource, DirectSource), read, strict=True):

        def counting(self: DirectorySource, *arguments: object, original: object = original, **options: object) -> None:
            used[type(self)] += 1
            original(self, *arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(kind, "read_into", counting)
    assert same(call(path, expect="acme/minilm", framework="numpy", io=io), truth)
    assert set(used) == {DirectSource if io == "direct" else DirectorySource}
    into = {name: np.empty_like(array) for name, array in truth.items()}
    assert same(call(path, expect="acme/minilm", io=io, into=into), truth)


@CALLS
@pytest.mark.parametrize("place", [0, SHARD - 1, 3 * SHARD + 7])
def test_a_flipped_bit_is_found_past_the_page_cache(
    call: Callable[..., object], place: int, release: tuple[Path, Truth]
) -> None:
    path, _ = release
    with (path / "x.safetensors").open("r+b") as file:
        file.seek(place + 4096)
        byte = file.read(1)[0]
        file.seek(place + 4096)
        file.write(bytes([byte ^ 4]))
    index = (place + 4096) // SHARD
    with pytest.raises(ShardMismatch, match=f"shard {index} of x"):
        call(path, expect="acme/minilm", framework="numpy", io="direct")


def test_there_is_no_other_way(release: tuple[Path, Truth]) -> None:
    with pytest.raises(UsageError, match="no such io"):
        load(release[0], expect="acme/minilm", io="mmap")  # type: ignore[arg-type]


# -- damaged on the way ------------------------------------------------------------------------------------------------


class Flaky:
    """Damages each shard of the files as often as it is told, wherever in a range it is read."""

    def __init__(self, files: dict[str, bytes], times: dict[tuple[str, int], int]) -> None:
        self.files = files
        self.times = Counter(times)
        self.reads: Counter[tuple[str, int, int]] = Counter()

    def read_into(self, file: FileEntry, offset: int, view: memoryview, *, arrived: object = None) -> None:
        path = file.path.text
        self.reads[path, offset, len(view)] += 1
        view[:] = self.files[path][offset : offset + len(view)]
        for start in range(0, len(view), SHARD):
            key = (path, (offset + start) // SHARD)
            if self.times[key]:
                self.times[key] -= 1
                view[start + 3] ^= 0x10

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def read_all(files: dict[str, bytes], source: Flaky, *, attempts: int, meter: Meter | None = None) -> Truth:
    units = select(manifest(files))
    meter = meter or Meter()
    filler = Checked(source, request=4, progress=NullProgress(), meter=meter, attempts=attempts)
    ready = runs(units, longest=4, by_owner=False)
    stream = TensorStream(units, ready, filler, WholeFiles(units), Numpy(), pace=Pace(2, None), meter=meter)
    return dict(stream.tensors())


def test_a_damaged_shard_is_fetched_again_by_itself() -> None:
    content, truth = safetensors_bytes({"a": ("U8", (9 * SHARD + 11,)), "b": ("U8", (3,))}, 4)
    files = {"m.safetensors": content}
    source = Flaky(files, {("m.safetensors", 2): 4, ("m.safetensors", 9): 1})
    meter = Meter()
    assert same(read_all(files, source, attempts=5, meter=meter), truth)
    assert source.reads["m.safetensors", 2 * SHARD, SHARD] == 4
    assert source.reads["m.safetensors", 9 * SHARD, len(content) - 9 * SHARD] == 1
    assert sum(source.reads.values()) == 3 + 5, "nothing else is fetched twice"
    assert meter["hash"].count == len(content) + 4 * SHARD + len(content) - 9 * SHARD


@pytest.mark.parametrize("attempts", [1, 3])
def test_one_that_stays_damaged_is_refused_after_so_many_attempts(attempts: int) -> None:
    content, _ = safetensors_bytes({"a": ("U8", (6 * SHARD,))}, 4)
    files = {"m.safetensors": content}
    source = Flaky(files, {("m.safetensors", 5): attempts})
    with pytest.raises(ShardMismatch, match="shard 5 of m"):
        read_all(files, source, attempts=attempts)
    assert source.times["m.safetensors", 5] == 0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        monkeypatch.setenv("PQREG_TRUST", str(tmp_path / "trust.json"))
        monkeypatch.setenv("PQREG_REGISTRY", registry.url)
        site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        yield site
        site.close()


@CALLS
@pytest.mark.parametrize("times", [limits.ATTEMPTS - 1, limits.ATTEMPTS])
def test_sealed_shards_of_a_registry_too(
    call: Callable[..., dict[str, np.ndarray]], times: int, site: SealingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_into = RemoteSource.read_into
    left = Counter({1: times})

    def damaging(self: RemoteSource, file: FileEntry, offset: int, view: memoryview, **options: object) -> None:
        read_into(self, file, offset, view)
        begin, size = file.shard_range(1) if file.shard_count > 1 else (0, 0)
        if begin >= offset and begin + size <= offset + len(view) and size and left[1]:
            left[1] -= 1
            view[begin - offset] ^= 1
        options.get("arrived", ignored)(len(view))  # type: ignore[operator]

    expected = load(f"{NAME}:v1", framework="numpy", recipient_key=recipient())
    monkeypatch.setattr(RemoteSource, "read_into", damaging)
    if times < limits.ATTEMPTS:
        assert same(call(f"{NAME}:v1", framework="numpy", recipient_key=recipient()), expected)
    else:
        with pytest.raises(ShardMismatch, match="shard 1 of"):
            call(f"{NAME}:v1", framework="numpy", recipient_key=recipient())
    assert left[1] == 0
