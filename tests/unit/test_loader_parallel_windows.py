# SPDX-License-Identifier: Apache-2.0
"""Windows that are exchanged: every rank gets what was signed, each shard is read once, nobody waits for ever."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import Progress
from pq_registry.errors import ConnectionFailed, DeviceFailed, PqregError, ShardMismatch, StorageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.dtypes import Numpy
from pq_registry.loader.fill import Checked
from pq_registry.loader.memory import anonymous
from pq_registry.loader.options import Request
from pq_registry.loader.parallel import windows
from pq_registry.loader.parallel.joint import fingerprint, read_shared
from pq_registry.loader.parallel.place import Place
from pq_registry.loader.parallel.windows import share_of, window_shards
from pq_registry.loader.placement import OwnMemory
from pq_registry.loader.selection import Run, runs, select
from tests.accelerator import OnDevice, Simulated
from tests.exchange import Hub, InProcess
from tests.samples import REPOSITORY, manifest
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES


@pytest.fixture(scope="module")
def model() -> tuple[dict[str, bytes], Truth]:
    """Files of 7.5 and of 1.2 shards, and one of a tensor with nothing in it."""
    a, truth = safetensors_bytes(
        {"big": ("U8", (4 * SHARD,)), "none": ("F32", (0,)), "x": ("U8", (SHARD // 3,)), "y": ("U8", (3 * SHARD,))}, 1
    )
    b, more = safetensors_bytes({"last": ("BF16", (SHARD // 2 + SHARD // 10,)), "end": ("U8", (7,))}, 2)
    c, rest = safetensors_bytes({"void": ("F32", (0, 4))}, 3)
    return {"a.safetensors": a, "b.safetensors": b, "c.safetensors": c}, {**truth, **more, **rest}


class Source:
    """Files in memory, one rank's, with a hook before each read."""

    def __init__(self, files: dict[str, bytes], before: Callable[[str, int], None]) -> None:
        self.files = files
        self.before = before
        self.shards: list[tuple[str, int]] = []
        self.closed = 0

    def read_into(self, file: FileEntry, offset: int, view: memoryview, *, arrived: object = None) -> None:
        for begin in range(offset, offset + len(view), SHARD):
            self.before(file.path.text, begin // SHARD)
            self.shards.append((file.path.text, begin // SHARD))
        view[:] = self.files[file.path.text][offset : offset + len(view)]

    def abort(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


class Rank:
    """One process of a group, as a thread."""

    def __init__(self, hub: Hub, rank: int, files: dict[str, bytes], truth_of: dict[str, bytes], **how: Any) -> None:
        self.exchange = InProcess(hub, rank)
        self.meter = Meter()
        self.source = Source(files, how.pop("before", lambda path, index: None))
        self.form = how.pop("form", Numpy())
        self.whole = how.pop("whole", False)
        self.leave: int | None = how.pop("leave", None)
        self.units = select(manifest(truth_of))
        self.tensors: dict[str, bytes] = {}
        self.error: PqregError | None = None
        self.fillers = 0
        self.opened: Any = SimpleNamespace(
            workers=how.pop("workers", 3),
            filler=self.filler,
            verified=SimpleNamespace(release=SimpleNamespace(name=REPOSITORY)),
        )
        assert not how
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def filler(self, progress: Progress, meter: Meter) -> Checked:
        self.fillers += 1
        return Checked(self.source, request=1, progress=progress, meter=meter)

    def stream(self) -> Generator[tuple[str, Any], None, None]:
        request = Request(stats=self.meter)
        return read_shared(
            self.opened, self.form, self.units, request, self.exchange,
            whole=self.whole, accelerator=self.form.accelerator(),
        )  # fmt: skip

    def run(self) -> None:
        stream = self.stream()
        try:
            for count, (name, tensor) in enumerate(stream, 1):
                self.tensors[name] = tensor.tobytes()
                if count == self.leave:
                    stream.close()
        except PqregError as error:
            self.error = error


def group(size: int, model, each: Callable[[int], dict[str, Any]] = lambda rank: {}, **common: Any) -> list[Rank]:
    hub = Hub(size)
    files, _ = model
    ranks = []
    for rank in range(size):
        how = {**common, **each(rank)}
        ranks.append(Rank(hub, rank, how.pop("files", files), files, **how))
    for one in ranks:
        one.thread.join(100)
        assert not one.thread.is_alive()
        assert one.exchange.closed == 1
        assert one.source.closed == one.fillers
    assert not [one for one in threading.enumerate() if one.name.startswith("pqreg-load")]
    return ranks


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one shard for each, and only three of them ahead of the caller."""
    monkeypatch.setattr(limits, "LOADER_WINDOW_BYTES", 1)
    monkeypatch.setattr(limits, "LOADER_RING_BYTES", 1)


def right(one: Rank, truth: Truth) -> bool:
    return all(truth[name].tobytes() == found for name, found in one.tensors.items())


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_everybody_gets_everything_and_each_shard_is_read_by_one(model, monkeypatch, size, whole, shards):
    monkeypatch.setattr(limits, "LOADER_WINDOW_BYTES", size * shards * SHARD)
    ranks = group(size, model, whole=whole)
    for one in ranks:
        assert one.error is None and list(one.tensors) == list(model[1]) and right(one, model[1])
    read = Counter(shard for one in ranks for shard in one.source.shards)
    assert set(read.values()) == {1}
    assert len(read) == sum(-(-len(content) // SHARD) for name, content in model[0].items() if name[0] != "c")
    for one in ranks:
        assert one.meter["read"].count == one.meter["hash"].count
        assert one.meter["hash"].count + one.meter["gather"].count == sum(
            len(content) for name, content in model[0].items() if name[0] != "c"
        )


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("index", range(8))
def test_a_damaged_shard_is_everybodys_error_and_never_in_a_tensor(model, narrow, index, rank):
    damaged = bytearray(model[0]["a.safetensors"])
    damaged[min(index * SHARD + 12345, len(damaged) - 1)] ^= 1
    copies = {**model[0], "a.safetensors": bytes(damaged)}
    ranks = group(3, model, lambda number: {"files": copies if number == rank else model[0]})
    reads_it = index % 3 == rank or (index >= 6 and index - 6 == rank)
    for number, one in enumerate(ranks):
        assert right(one, model[1])
        if reads_it:
            assert isinstance(one.error, ShardMismatch) and f"shard {index} of a.safetensors" in str(one.error)
            assert str(one.error).startswith(f"rank {rank}: ") == (number != rank)
            assert one.error.expected and one.error.hint
        else:
            assert one.error is None and one.tensors.keys() == model[1].keys()


@pytest.mark.parametrize("leave", [1, 2, 3])
def test_one_that_ends_early_ends_everybody(narrow, leave):
    content, truth = safetensors_bytes({f"t{number:02}": ("U8", (SHARD,)) for number in range(24)}, 1)
    model = ({"a.safetensors": content}, truth)  # more than is ever read ahead
    ranks = group(3, model, lambda number: {"leave": leave if number == 1 else None})
    assert ranks[1].error is None and len(ranks[1].tensors) == leave
    for one in (ranks[0], ranks[2]):
        assert isinstance(one.error, ConnectionFailed) and "rank 1 of the group stopped" in str(one.error)
        assert right(one, model[1])


def test_one_that_fails_between_two_windows_ends_everybody(model, narrow):
    """The failure is not in reading: there is no memory for a tensor."""

    def fail(path: str, index: int) -> None:
        if index == 4:
            raise StorageError("cannot get memory", hint="buy some")

    ranks = group(2, model, lambda number: {"before": fail} if number == 0 else {})
    assert [type(one.error) for one in ranks] == [StorageError] * 2
    heard = ranks[1].error
    assert heard is not None and (str(heard), heard.hint) == ("rank 0: cannot get memory", "buy some")


@pytest.mark.parametrize("shards", [1, 2])
def test_no_memory_for_a_share_or_a_window_is_told_too(model, narrow, monkeypatch, shards):
    def scarce(size: int) -> Any:
        if size == shards * SHARD:
            raise StorageError("cannot get memory")
        return anonymous(size)

    monkeypatch.setattr(limits, "INTERRUPT_SECONDS", 1)
    monkeypatch.setattr(windows, "anonymous", scarce)
    ranks = group(2, model)
    assert [type(one.error) for one in ranks] == [StorageError] * 2
    assert not any(one.tensors for one in ranks)


def test_one_that_is_lost_ends_everybody(model, narrow):
    hub = Hub(3)
    files, truth = model

    def lose(path: str, index: int) -> None:
        if index == 5:
            hub.lose()

    ranks = [Rank(hub, number, files, files, before=lose) for number in range(3)]
    for one in ranks:
        one.thread.join(60)
        assert isinstance(one.error, ConnectionFailed) and right(one, truth)


def test_several_that_fail_have_each_their_own_error(model, narrow):
    broken = {name: bytes(len(content)) for name, content in model[0].items()}
    ranks = group(3, model, files=broken)
    assert [str(one.error).startswith("shard ") for one in ranks] == [True] * 3
    assert all(isinstance(one.error, ShardMismatch) and not one.tensors for one in ranks)


# -- devices -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_windows_are_exchanged_among_devices(model, monkeypatch, size, whole, seed):
    monkeypatch.setattr(limits, "LOADER_WINDOW_BYTES", 2 * size * SHARD)
    devices = [Simulated(seed=seed + 10 * number) for number in range(size)]
    try:
        ranks = group(size, model, lambda number: {"form": OnDevice(devices[number])}, whole=whole)
        for one, device in zip(ranks, devices, strict=True):
            assert one.error is None and list(one.tensors) == list(model[1]) and right(one, model[1])
            assert device.violations == [] and device.pinned == []
            assert device.most_pinned <= 3
    finally:
        for device in devices:
            device.close()


def test_slots_that_were_never_needed_are_given_back_too(model):
    one = {"b.safetensors": model[0]["b.safetensors"]}
    device = Simulated()
    try:
        (rank,) = group(1, (one, model[1]), form=OnDevice(device))
        assert rank.error is None and list(rank.tensors) == ["last", "end"] and right(rank, model[1])
        assert device.most_pinned == 3 and device.pinned == []
    finally:
        device.close()


def test_a_device_with_little_page_locked_memory_goes_on_with_what_there_is(model, narrow):
    devices = [Simulated(seed=number) for number in range(2)]
    devices[1].pin_limit = 1
    try:
        ranks = group(2, model, lambda number: {"form": OnDevice(devices[number])})
        assert all(one.error is None and right(one, model[1]) for one in ranks)
        assert devices[1].most_pinned == 1
    finally:
        for device in devices:
            device.close()


def test_a_device_that_fails_and_a_damaged_shard_end_everybody(model, narrow):
    for fails in (True, False):
        devices = [Simulated(seed=number) for number in range(2)]
        damaged = bytearray(model[0]["a.safetensors"])
        damaged[3 * SHARD] ^= 1

        def fail(path: str, index: int, device: Simulated = devices[1]) -> None:
            if index == 3:
                device.fail("fell off the bus")

        odd: dict[str, Any] = {"before": fail} if fails else {"files": {**model[0], "a.safetensors": bytes(damaged)}}
        try:
            ranks = group(
                2,
                model,
                lambda number: {"form": OnDevice(devices[number]), **(odd if number == 1 else {})},  # noqa: B023
            )
            for one in ranks:
                assert type(one.error) is (DeviceFailed if fails else ShardMismatch), one.error
                assert right(one, model[1])
            assert not devices[0].violations and not devices[0].pinned
        finally:
            for device in devices:
                device.close()


@pytest.mark.parametrize("at", [1, 3])
def test_one_that_fails_after_a_window_was_exchanged_tells_the_others(model, narrow, monkeypatch, at):
    original = OwnMemory.copy_out
    calls = Counter[int]()

    def copy_out(self: OwnMemory, run: Run, checked: memoryview) -> None:
        calls[id(self)] += 1
        if self is chosen and calls[id(self)] == at:
            raise StorageError("no more")
        original(self, run, checked)

    chosen: Any = None
    create = OwnMemory.__init__

    def init(self: OwnMemory, *arguments: Any, **more: Any) -> None:
        nonlocal chosen
        create(self, *arguments, **more)
        chosen = chosen or self

    monkeypatch.setattr(OwnMemory, "__init__", init)
    monkeypatch.setattr(OwnMemory, "copy_out", copy_out)
    ranks = group(3, model)
    assert [type(one.error) for one in ranks] == [StorageError] * 3
    assert sorted(str(one.error).endswith(": no more") for one in ranks) == [False, True, True]


# -- shares --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_cover_a_window_once_in_the_order_of_ranks(model, size):
    units = select(manifest(model[0]))
    for run in runs(units, longest=window_shards(size), by_owner=False):
        parts = [share for rank in range(size) if (share := share_of(run, Place(rank, size))) is not None]
        taken = [index for part in parts for index in range(part.first, part.first + part.count)]
        assert taken == list(range(run.first, run.first + run.count))
        assert sum(part.size for part in parts) == run.size


def test_a_fingerprint_is_of_one_release_and_of_the_same_bytes_of_it(model):
    def of(release: str, names: list[str] | None = None, cut: int = 0) -> str:
        units = select(manifest(model[0]), names=names)
        units = (replace(units[0], end=units[0].end - cut), *units[1:])
        opened: Any = SimpleNamespace(verified=SimpleNamespace(release=SimpleNamespace(digest=release)))
        return fingerprint(opened, units)

    assert of("a") == of("a")
    assert len({of("a"), of("b"), of("a", names=["big", "x"]), of("a", names=["big", "y"]), of("a", cut=1)}) == 5


@pytest.mark.parametrize("size", [1, 2, 7, 8, 64, limits.LOADER_GROUP])
def test_windows_are_bounded(size: int):
    shards = window_shards(size)
    assert shards % size == 0
    assert shards == size or shards * SHARD <= limits.LOADER_WINDOW_BYTES
    assert shards // size <= limits.LOADER_SHARE_SHARDS
