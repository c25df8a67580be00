# SPDX-License-Identifier: Apache-2.0
"""``into=``: tensors that exist are filled with verified bytes, and with nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pq_registry import iter_tensors, limits, load
from pq_registry.client.source import DirectorySource
from pq_registry.errors import ShardMismatch, UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.format.tensors import tensor_bits
from pq_registry.loader import api
from pq_registry.loader.existing import Given
from pq_registry.loader.memory import Arena
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Truth]:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    one, first = safetensors_bytes(
        {"w": ("BF16", (3, SHARD)), "v": ("C64", (SHARD // 8, 2)), "s": ("F32", ()), "none": ("I8", (0, 2))}, 1
    )
    two, second = safetensors_bytes({"u": ("U64", (9,)), "f8": ("F8_E4M3", (5, 7)), "flag": ("BOOL", (3, 3))}, 2)
    release_directory(tmp_path / "r", {"a.safetensors": one, "b.safetensors": two})
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    return tmp_path / "r", {**first, **second}


def empty(truth: Truth) -> Truth:
    return {name: np.full_like(array, 1) for name, array in truth.items()}


@pytest.mark.parametrize("call", [load, lambda *a, **k: dict(iter_tensors(*a, **k))], ids=["load", "iter"])
def test_the_tensors_themselves_are_filled_and_nothing_is_allocated(
    call, release: tuple[Path, Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, truth = release

    def no_arena(*_: object) -> None:
        raise AssertionError("memory for tensors was taken")

    monkeypatch.setattr(Arena, "__init__", no_arena)
    into = {**empty(truth), "tied": np.zeros(3)}
    for _ in range(2):
        found = call(path, expect="acme/minilm", into=into)
        assert found.keys() == truth.keys()
        for name, array in found.items():
            assert array is into[name]
            assert array.tobytes() == truth[name].tobytes(), name
            array.reshape(-1).view(np.uint8)[...] = 1
    assert not into["tied"].any(), "what the release does not have is left alone"


def test_what_load_gave_is_filled_again(release: tuple[Path, Truth]) -> None:
    path, truth = release
    before = load(path, expect="acme/minilm", framework="numpy")
    for array in before.values():
        array[...] = 0
    again = load(path, expect="acme/minilm", into=before)
    assert all(again[name] is before[name] for name in truth)
    assert {name: array.tobytes() for name, array in again.items()} == {n: a.tobytes() for n, a in truth.items()}


def test_no_byte_of_a_shard_that_fails_reaches_a_tensor(release: tuple[Path, Truth]) -> None:
    path, truth = release
    file = path / "a.safetensors"
    content = bytearray(file.read_bytes())
    bad = 2
    content[bad * SHARD : (bad + 1) * SHARD] = b"\xaa" * SHARD
    file.write_bytes(content)
    into = empty(truth)
    with pytest.raises(ShardMismatch, match="shard 2 of a"):
        load(path, expect="acme/minilm", into=into)
    for name, array in into.items():
        raw, right = array.reshape(-1).view(np.uint8), truth[name].reshape(-1).view(np.uint8)
        old = empty({name: truth[name]})[name].reshape(-1).view(np.uint8)
        assert ((raw == right) | (raw == old)).all(), name


def wrong(truth: Truth, name: str) -> Any:
    read_only = np.ones_like(truth["w"])
    read_only.flags.writeable = False
    return {
        "another dtype": truth["w"].astype(np.float32),
        "another shape": np.ones((SHARD, 3), truth["w"].dtype),
        "read-only": read_only,
        "strided": np.ones((3, 2 * SHARD), truth["w"].dtype)[:, ::2],
        "a list": [1, 2],
        "nothing": None,
    }[name]


@pytest.mark.parametrize("case", ["another dtype", "another shape", "read-only", "strided", "a list", "nothing"])
def test_what_does_not_fit_is_refused_by_name_before_anything_is_read(
    case: str, release: tuple[Path, Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, truth = release
    into = {**empty(truth), "w": wrong(truth, case)}
    reads: list[str] = []
    monkeypatch.setattr(DirectorySource, "read_into", lambda _self, file, *_a, **_k: reads.append(str(file.path)))
    with pytest.raises(UsageError, match="'w'"):
        load(path, expect="acme/minilm", into=into)
    assert reads == []


def test_what_is_filled_is_what_was_given_whatever_becomes_of_the_mapping(release: tuple[Path, Truth]) -> None:
    path, truth = release
    into = empty(truth)
    given = dict(into)
    tensors = iter_tensors(path, expect="acme/minilm", into=given)
    given.clear()
    assert all(tensor is into[name] for name, tensor in tensors)
    assert {name: array.tobytes() for name, array in into.items()} == {n: a.tobytes() for n, a in truth.items()}


def test_tensors_that_share_memory_are_refused(release: tuple[Path, Truth]) -> None:
    path, truth = release
    into = empty(truth)
    whole = np.zeros(truth["u"].nbytes + 20, np.uint8)
    into["u"] = whole[: truth["u"].nbytes].view(np.uint64)
    into["flag"] = whole[truth["u"].nbytes - 8 :][:9].view(bool).reshape(3, 3)
    with pytest.raises(UsageError, match="share memory"):
        load(path, expect="acme/minilm", into=into)
    load(path, expect="acme/minilm", into=into, names=["flag"])


@pytest.mark.parametrize(
    "option", [{"device": "cuda"}, {"framework": "dlpack"}, {"check_on": "device"}, {"rank": 0}, {"plan": "dim0"}]
)
def test_options_that_say_otherwise_where_tensors_are_do_not_go_with_it(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="into="):
        load("acme/x:v1", into={}, **option)
    with pytest.raises(UsageError, match="mapping"):
        load("acme/x:v1", into=[1])  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("kind", ["matrix", "masked"])
def test_the_memory_of_arrays_that_behave_otherwise_is_filled(kind: str) -> None:
    shape = (3, 2)
    array = np.matrix(np.zeros(shape, np.uint8)) if kind == "matrix" else _hidden(np.zeros(shape, np.uint8))
    raw = Given({"a": array}).memory(TensorEntry("a", "U8", shape, 0, 6))
    assert type(raw) is np.ndarray and raw.shape == (6,)
    raw[3:6] = [7, 8, 9]
    assert np.asarray(array).tobytes() == b"\0\0\0\7\10\11"


def _hidden(array: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.masked_array(array, mask=True, hard_mask=True)


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


def test_sealed_shards_are_decrypted_into_the_tensors(site: SealingSite) -> None:
    key = recipient()
    expected = load(f"{NAME}:v1", framework="numpy", recipient_key=key)
    into = empty(expected)
    found = load(f"{NAME}:v1", recipient_key=key, into=into)
    assert all(found[name] is into[name] for name in expected)
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in expected.items()}


@pytest.mark.torch
def test_torch_tensors_of_every_dtype_are_filled(release: tuple[Path, Truth], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")
    from pq_registry.format.tensors import DTYPES
    from pq_registry.loader.torch_bridge import TORCH

    widest_first = sorted((name for name in TORCH if hasattr(torch, TORCH[name])), key=lambda name: -DTYPES[name])
    every, _ = safetensors_bytes({dtype: (dtype, (4, 6)) for dtype in widest_first}, 3)
    release_directory(tmp_path / "all", {"m.safetensors": every})
    expected = load(tmp_path / "all", expect="acme/minilm", framework="torch")
    into = {name: torch.empty_like(tensor) for name, tensor in expected.items()}
    into["F32"] = torch.nn.Parameter(into["F32"])
    found = load(tmp_path / "all", expect="acme/minilm", into=into)
    for name, tensor in expected.items():
        assert found[name] is into[name]
        one, two = (t.detach().contiguous().view(torch.uint8).numpy() for t in (found[name], tensor))
        assert (one == two).all(), name
    into["F16"] = torch.empty(6, 4, dtype=torch.float16).T
    with pytest.raises(UsageError, match="'F16'"):
        Given(into).check(unit.entry for unit in _entries(tmp_path / "all"))


@pytest.mark.torch
def test_torch_tensors_without_memory_that_holds_their_elements_are_refused() -> None:
    torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")
    emptied = torch.zeros(4)
    emptied.untyped_storage().resize_(0)  # as FSDP does with parameters it has no use for
    cut = torch.zeros(8)[4:]
    cut.untyped_storage().resize_(20)
    complex_ = torch.zeros(1, dtype=torch.complex64).conj()
    for tensor, dtype, shape in (
        (emptied, "F32", (4,)),
        (cut, "F32", (4,)),
        (complex_, "C64", (1,)),
        (complex_.imag, "F32", (1,)),
    ):
        entry = TensorEntry("t", dtype, shape, 0, tensor_bits(dtype, shape) // 8)
        with pytest.raises(UsageError, match="'t' of into="):
            Given({"t": tensor}).check([entry])


def _entries(path: Path):
    from pq_registry.loader.options import Request
    from pq_registry.loader.selection import select

    return select(api.open_for(path, Request(expect="acme/minilm")))
