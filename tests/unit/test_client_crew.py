# SPDX-License-Identifier: Apache-2.0
"""Threads that work together end together; an interrupted pull stops at once and is continued."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import durable, limits
from pq_registry.client.crew import Crew, Shared, cores
from pq_registry.client.pull import pull
from pq_registry.client.rate import TokenBucket
from pq_registry.client.schedule import Schedule
from pq_registry.client.source import DirectorySource, RemoteSource
from pq_registry.client.staging import StagedFile, Staging
from pq_registry.client.transport import RegistryClient
from pq_registry.client.tree import Tree
from pq_registry.errors import FileSetMismatch, UsageError
from tests.fake_registry import Handler, serving
from tests.pull_site import FILES, SHARD, TENSORS, Site, content, final_names
from tests.samples import file_entry


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


def test_items_are_dealt_to_exactly_one_thread() -> None:
    items = Shared(range(2000))
    taken: list[int] = []
    Crew().run(lambda: taken.extend(items), 8)
    assert sorted(taken) == list(range(2000))
    assert cores() >= 1


def test_the_first_error_stops_the_others_and_is_raised() -> None:
    aborted: list[int] = []
    crew = Crew(lambda: aborted.append(1))
    turn = iter(range(3))
    lock = threading.Lock()

    def work() -> None:
        with lock:
            mine = next(turn)
        if mine == 1:
            raise KeyError("first")
        while not crew.stopped():
            time.sleep(0.001)
        raise ValueError("because of the first")

    with pytest.raises(KeyError):
        crew.run(work, 3)
    assert aborted == [1]
    assert crew.ended


def test_an_interrupt_stops_a_pull_that_waits_for_its_peer(site: Site) -> None:
    files = {"big": os.urandom(20 * SHARD)}
    digest = site.add(files)
    resolved = site.resolve(digest)
    release = threading.Event()
    seen: list[int] = []

    def hang(_handler: Handler) -> bool:
        seen.append(1)
        if len(seen) > 1:
            if len(seen) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            release.wait(30)
        return False

    site.registry.rules["GET /v1/blobs"] = hang
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        site.pull(resolved, connections=1)
    assert time.monotonic() - begun < limits.INTERRUPT_SECONDS
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("pqreg-") for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)  # they have said that they are done, and are about to end
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pqreg-")]
    release.set()
    assert final_names(site.out) == set()
    site.registry.rules.clear()
    assert site.pull(digest).present == 8 * SHARD
    assert content(site.out) == files


def test_descriptors_are_not_leaked(site: Site) -> None:
    digest = site.add()
    before = len(os.listdir("/proc/self/fd"))
    resolved = site.resolve(digest)
    for _ in range(3):
        site.pull(resolved)
    site.registry.blobs.clear()
    with pytest.raises(Exception, match="not-found"):
        site.pull(resolved, site.home / "other")
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the server's threads close their ends
    assert len(os.listdir("/proc/self/fd")) <= before


def staged(tmp_path: Path, name: str, data: bytes) -> StagedFile:
    (tmp_path / "d").mkdir(exist_ok=True)
    staging = Staging(Tree(tmp_path / "d"))
    staging.create()
    return StagedFile(staging, file_entry(name, data))


def test_connections_stay_with_their_file_and_help_at_the_end(tmp_path: Path) -> None:
    size = limits.RANGE_SHARDS * SHARD
    files = [
        staged(tmp_path, "a", bytes(3 * size)),
        staged(tmp_path, "b", bytes(2 * size)),
        staged(tmp_path, "c", b"c"),
    ]
    begun: list[str] = []
    schedule = Schedule(files, lambda file: begun.append(file.entry.path.text))
    one, two = schedule.next(None), schedule.next(None)
    assert one is not None and two is not None
    assert (one[0].entry.path.text, two[0].entry.path.text) == ("a", "b")
    again = schedule.next(one[0])
    assert again is not None and again[0] is one[0] and again[1] == limits.RANGE_SHARDS
    assert begun == ["a", "b"]
    rest = []
    while (gap := schedule.next(two[0])) is not None:
        rest.append(gap[0].entry.path.text)
    assert sorted(rest) == ["a", "b", "c"]
    for file in files:
        file._staging.tree.close()


def test_shards_in_any_order_give_the_whole_digest(tmp_path: Path) -> None:
    file = staged(tmp_path, "m.safetensors", TENSORS)
    file.open()
    scratch = memoryview(bytearray(SHARD))
    order = [2, 0, 1, 3, 4, 5]
    assert file.entry.shard_count == 6
    for position, index in enumerate(order):
        offset, length = file.entry.shard_range(index)
        complete = file.put(index, memoryview(TENSORS)[offset : offset + length], scratch)
        assert complete == (position == 5)
    file.finish()
    file.close()
    again = StagedFile(file._staging, file.entry)
    again.open()
    counted: list[int] = []
    again.restore(scratch, counted.append, lambda: False)
    assert (again.missing, again.missing_bytes, sum(counted)) == (0, 0, len(TENSORS))
    again.finish()
    again.close()
    file._staging.tree.close()


def test_a_directory_as_a_source_reads_what_is_there(site: Site) -> None:
    site.pull(site.add())
    manifest = site.resolve(site.add()).verified.release.manifest
    entries = {entry.path.text: entry for entry in manifest.files}
    with DirectorySource(site.out) as source:
        view = memoryview(bytearray(100))
        for name in ("vocab.txt", "sub/model.safetensors", "vocab.txt"):
            arrived: list[int] = []
            source.read_into(entries[name], 1000, view, arrived=arrived.append)
            assert bytes(view) == FILES[name][1000:1100]
            assert arrived == [100]
        (site.out / "vocab.txt").unlink()
        source.read_into(entries["vocab.txt"], 0, view)  # still open: nobody can exchange it meanwhile
        source.read_into(entries["config.json"], 0, view[:2])
        with pytest.raises(FileSetMismatch):
            source.read_into(entries["vocab.txt"], 0, view)
        os.truncate(site.out / "config.json", 4)
        with pytest.raises(FileSetMismatch):
            source.read_into(entries["config.json"], 0, view[:8])
    with pytest.raises(UsageError):
        DirectorySource(site.home / "nothing")


def test_writing_early_is_a_hint_and_may_be_missing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"big": os.urandom(17 * SHARD)}
    resolved = site.resolve(site.add(files))
    site.pull(resolved)
    monkeypatch.setattr(durable, "_sync_file_range", lambda: None)
    site.pull(resolved, site.home / "other")
    assert content(site.out) == content(site.home / "other") == files


def test_an_interrupt_ends_a_capped_pull_although_everything_has_been_sent(site: Site) -> None:
    """What waits in the socket's buffer is left there: an interrupted transfer does not first finish."""
    resolved = site.resolve(site.add({"big": os.urandom(3 * SHARD)}))
    interrupted = threading.Event()

    def sleep(_seconds: float) -> None:
        if not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    rate = TokenBucket(SHARD, sleep=sleep)
    with (
        RegistryClient(site.registry.url, rate=rate) as client,
        RemoteSource(client) as source,
        pytest.raises(KeyboardInterrupt),
    ):
        pull(resolved, source, site.out, connections=1)
    assert site.pull(resolved).fetched == 3 * SHARD
