# SPDX-License-Identifier: Apache-2.0
"""Plans: together the ranks get every element exactly once, cut where numpy would cut, or the plan is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pq_registry
from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import ShardMismatch, UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.loader import api
from pq_registry.loader.parallel.place import Place, place_of
from pq_registry.loader.parallel.plan import Cutting, cutting
from tests.releases import release_directory, write_trust
from tests.samples import NOW, file_entry
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
SHAPES = {
    "scale": ("F64", ()),
    "layers.0.q_proj.weight": ("BF16", (12, 30)),
    "layers.0.o_proj.weight": ("F32", (10, 12)),
    "none": ("F32", (0, 7)),
    "layers.0.norm.weight": ("BF16", (30,)),
    "fused.experts": ("I16", (6, 4, 8)),
    "row": ("I16", (1, 6, 4)),
    "packed": ("F4", (4, 6)),
    "layers.0.experts.0.w": ("U8", (5, 4)),
    "layers.0.experts.1.w": ("U8", (5, 4)),
    "layers.0.experts.2.w": ("U8", (5, 4)),
    "layers.0.experts.10.w": ("U8", (5, 4)),
}


@pytest.fixture(autouse=True)
def the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)


@pytest.fixture(scope="module")
def content():
    return safetensors_bytes(SHAPES, 7)


@pytest.fixture
def loaded(tmp_path: Path, content):
    release_directory(tmp_path / "r", {"model.safetensors": content[0]})
    trust = write_trust(tmp_path / "trust.json")

    def load(function=pq_registry.load, **options):
        return dict(function(tmp_path / "r", expect="acme/minilm", trust=trust, framework="numpy", **options))

    return load


def ranks(load, size: int, plan, **options) -> list[dict]:
    return [load(rank=rank, world_size=size, plan=plan, **options) for rank in range(size)]


def entry(dtype: str = "F32", shape: tuple[int, ...] = (8, 4), name: str = "t") -> TensorEntry:
    size = int(np.prod(shape)) * 4
    return TensorEntry(name, dtype, shape, 64, 64 + size)


@pytest.mark.parametrize("function", [pq_registry.load, pq_registry.iter_tensors])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_dim0_is_even_slices_where_they_exist_and_whole_tensors_elsewhere(loaded, content, function, size):
    found = ranks(loaded, size, "dim0", function=function)
    for name, truth in content[1].items():
        whole = not truth.shape or truth.shape[0] % size
        expected = [truth] * size if whole else np.split(truth, size)
        for rank in range(size):
            assert same(found[rank][name], expected[rank]), (name, rank)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Bit for bit: there are NaNs among random floats."""
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@pytest.mark.parametrize("size", [2, 3, 5, 16])
@pytest.mark.parametrize("dim", [0, 1])
def test_uneven_slices_are_those_of_tensor_split_and_chunk(loaded, content, size, dim):
    name = "layers.0.o_proj.weight"
    truth = content[1][name]
    split = ranks(loaded, size, {name: f"dim{dim}:split"}, names=[name])
    for found, expected in zip(split, np.array_split(truth, size, axis=dim), strict=True):
        assert same(found[name], expected)
    chunk = ranks(loaded, size, {name: f"dim{dim}:chunk"}, names=[name])
    each = -(-truth.shape[dim] // size)
    for rank, found in enumerate(chunk):
        assert same(found[name], truth.take(range(truth.shape[dim])[rank * each : (rank + 1) * each], dim))


@pytest.mark.parametrize("name", ["fused.experts", "row"])
def test_a_part_of_another_dimension_is_a_copy_that_keeps_nothing_else(loaded, content, name):
    for found, expected in zip(ranks(loaded, 2, {name: "dim1"}), np.split(content[1][name], 2, axis=1), strict=True):
        assert same(found[name], expected)
        root = found[name]
        while isinstance(root.base, np.ndarray):
            root = root.base
        assert root.nbytes == expected.nbytes


def test_experts_go_to_their_ranks_whole(loaded, content):
    plan = {"*.experts.#.*": "experts", "none": "skip"}
    found = ranks(loaded, 3, plan)
    experts = [sorted(name for name in one if ".experts." in name) for one in found]
    # Eleven are numbered, so 4, 4 and 3 of them.
    assert experts == [
        ["layers.0.experts.0.w", "layers.0.experts.1.w", "layers.0.experts.2.w"],
        [],
        ["layers.0.experts.10.w"],
    ]
    for one in found:
        assert "none" not in one
        assert one.keys() >= SHAPES.keys() - {"none"} - {name for name in SHAPES if ".experts." in name}
        for name, array in one.items():
            assert same(array, content[1][name])


def test_the_first_pattern_that_matches_decides(loaded, content):
    found = loaded(rank=1, world_size=2, plan={"*.norm.*": "whole", "layers.?.*": "skip"})
    assert found.keys() == {"layers.0.norm.weight", "scale", "none", "fused.experts", "row", "packed"}
    assert found["layers.0.norm.weight"].shape == (30,)


def test_a_callable_plan_is_asked_once_per_tensor_and_gives_rows_words_or_none(loaded, content):
    asked: list[str] = []

    def plan(one: TensorEntry):
        asked.append(one.name)
        if one.name == "layers.0.q_proj.weight":
            return 2, 9
        return {"scale": "skip", "layers.0.o_proj.weight": "dim1"}.get(one.name)

    found = loaded(rank=0, world_size=4, plan=plan)
    assert sorted(asked) == sorted(SHAPES)
    truth = content[1]
    assert same(found["layers.0.q_proj.weight"], truth["layers.0.q_proj.weight"][2:9])
    assert same(found["layers.0.o_proj.weight"], truth["layers.0.o_proj.weight"][:, :3])
    assert same(found["fused.experts"], truth["fused.experts"])
    assert "scale" not in found


def test_packed_dtypes_are_cut_at_whole_bytes(loaded, content):
    truth = content[1]["packed"]
    for found, expected in zip(ranks(loaded, 2, {"packed": "dim0"}), np.split(truth, 2), strict=True):
        assert same(found["packed"], expected)
    for found, expected in zip(ranks(loaded, 3, {"packed": "dim1"}), np.split(truth, 3, axis=1), strict=True):
        assert same(found["packed"], expected)
    with pytest.raises(UsageError, match="within a byte"):
        loaded(rank=0, world_size=2, plan={"packed": "dim1"})


@pytest.mark.parametrize(
    ("plan", "match"),
    [
        ("dim7", "no such plan"),
        (3, "no such plan"),
        ({"*": "row"}, "patterns of names to words"),
        ({3: "dim0"}, "patterns of names to words"),
        ({"*": ["dim0"]}, "patterns of names to words"),
        ({"*.missing": "dim0"}, "matches"),
        ({"*.norm.*": "dim1"}, "has no dimension 1"),
        ({"scale": "dim0"}, "has no dimension 0"),
        ({"layers.0.o_proj.weight": "dim0"}, "cannot be cut evenly"),
        ({"*.experts.*": "experts"}, "numbered"),
        ({"*.experts.#.*": "dim0"}, "numbered"),
        ({"*.#.experts.#.*": "experts"}, "numbered"),
        (lambda one: (0, one.shape[0] + 1) if one.shape else None, "where it is not"),
        (lambda one: (3, 2), "where it is not"),
        (lambda one: (-1, 0), "where it is not"),
        (lambda one: (True, 1), "what cannot be done"),
        (lambda one: [0, 1], "what cannot be done"),
        (lambda one: "experts", "what cannot be done"),
        (lambda one: 0, "what cannot be done"),
    ],
    ids=range(19),
)
def test_plans_that_cannot_be_meant_are_refused(loaded, plan, match):
    with pytest.raises(UsageError, match=match):
        loaded(rank=0, world_size=4, plan=plan)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"plan": "dim0"}, "among ranks"),
        ({"plan": "dim0", "rank": 0}, "belong together"),
        ({"plan": "dim0", "world_size": 2}, "belong together"),
        ({"plan": "dim0", "rank": 2, "world_size": 2}, "rank is wrong"),
        ({"plan": "dim0", "rank": -1, "world_size": 2}, "rank is wrong"),
        ({"plan": "dim0", "rank": 0, "world_size": 0}, "world_size is wrong"),
        ({"plan": "dim0", "rank": 0, "world_size": limits.LOADER_WORLD + 1}, "world_size is wrong"),
        ({"plan": "dim0", "rank": True, "world_size": 2}, "rank is wrong"),
        ({"plan": "dim0", "rank": 0, "world_size": "2"}, "world_size is wrong"),
        ({"rank": 0, "world_size": 2}, "not how"),
        ({"group": "world"}, "needs torch.distributed"),
        ({"plan": "dim0", "group": "world", "rank": 0, "world_size": 1}, "needs torch|says who"),
    ],
    ids=range(12),
)
def test_places_that_cannot_be_meant_are_refused(loaded, options, match):
    with pytest.raises(UsageError, match=match):
        loaded(**options)


def test_whole_is_the_same_as_no_plan(loaded, content):
    for options in ({}, {"plan": "whole"}, {"plan": "whole", "rank": 1, "world_size": 2}):
        found = loaded(**options)
        assert all(same(found[name], truth) for name, truth in content[1].items())


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_spans_and_chunks_cover_everything_once(size: int, count: int):
    for of in (Place.span, Place.chunk):
        taken = [index for rank in range(size) for index in range(*of(Place(rank, size), count))]
        assert taken == list(range(count)), of


def test_experts_of_a_pattern_with_many_stars_do_not_take_for_ever():
    name = "a" * 500
    files = [file_entry("m.safetensors", safetensors_bytes({name + ".7": ("U8", (1,))}, 1)[0])]
    plan = cutting({"*" * 50 + "a" + "*.#": "experts"}, Place(0, 1), files)
    assert plan is not None and plan.lot(replace(entry("U8"), name=name + ".7")) is not None


def test_a_plan_says_for_an_entry_what_a_rank_gets():
    assert place_of(None, None, None) is None
    even = Cutting(Place(1, 4), lambda one: "dim0", even=True)
    lot = even.lot(entry(shape=(8, 4)))
    assert lot is not None and lot.part is not None and (lot.part.begin, lot.part.end, lot.alone) == (2, 4, True)
    assert even.lot(entry(shape=(9, 4))).part is None  # type: ignore[union-attr]


# -- what is read ------------------------------------------------------------------------------------------------------
def big(tmp_path: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    content, truth = safetensors_bytes({"w": ("U8", (16, SHARD // 2)), "v": ("U8", (16, SHARD // 2))}, 3)
    release_directory(tmp_path / "r", {"model.safetensors": content})
    return tmp_path / "r", write_trust(tmp_path / "trust.json"), truth


def test_a_rank_reads_only_the_shards_of_its_slices(tmp_path: Path):
    path, trust, truth = big(tmp_path)
    total = 0
    for rank in range(4):
        meter = Meter()
        found = pq_registry.load(
            path,
            expect="acme/minilm",
            trust=trust,
            framework="numpy",
            rank=rank,
            world_size=4,
            plan="dim0",
            stats=meter,
        )
        for name, one in found.items():
            assert same(one, truth[name][4 * rank : 4 * rank + 4])
        # Two slices of 2 shards' bytes each, which begin and end somewhere in a shard.
        assert meter["hash"].count <= 2 * 3 * SHARD
        assert meter["read"].count == meter["hash"].count
        total += meter["hash"].count
    assert total < path.joinpath("model.safetensors").stat().st_size + 8 * SHARD


def test_shards_of_a_slice_are_checked_whole_and_shards_of_other_ranks_not_at_all(tmp_path: Path):
    path, trust, truth = big(tmp_path)
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[3 * SHARD + 5] ^= 1  # in rows 6 and 7 of w, which rank 1 of 4 has
    file.write_bytes(content)
    for rank in range(4):
        options: Any = {"rank": rank, "world_size": 4, "plan": "dim0", "framework": "numpy"}
        if rank == 1:
            with pytest.raises(ShardMismatch, match="shard 3"):
                pq_registry.load(path, expect="acme/minilm", trust=trust, **options)
        else:
            found = pq_registry.load(path, expect="acme/minilm", trust=trust, **options)
            assert same(found["w"], truth["w"][4 * rank : 4 * rank + 4])


def test_a_part_of_another_dimension_is_taken_only_of_what_was_checked_whole(tmp_path: Path):
    path, trust, _ = big(tmp_path)
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[3 * SHARD + 5] ^= 1
    file.write_bytes(content)
    for rank in range(2):  # whichever columns a rank has, the whole tensor is what is checked
        with pytest.raises(ShardMismatch, match="shard 3"):
            pq_registry.load(
                path, expect="acme/minilm", trust=trust, framework="numpy", rank=rank, world_size=2, plan={"*": "dim1"}
            )
