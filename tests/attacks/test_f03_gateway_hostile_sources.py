# SPDX-License-Identifier: Apache-2.0
"""F3, F5, B1: whatever a source or the cache holds, the gateway sends the signed bytes, or fewer, and says so."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.progress import ignored
from pq_registry.client.trust import Verifier
from pq_registry.errors import ConnectionFailed, NotFound
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import RepositoryName
from pq_registry.gateway.origins import Named, Wanted
from pq_registry.gateway.served import Served, as_stored
from tests.gateway_site import RunningGateway, running_gateway
from tests.samples import NOW, release, trust_file

SHARD = limits.SHARD_BYTES
FILES = {"a.bin": random.Random(1).randbytes(5 * SHARD + 12345), "b.bin": b"small"}
Tamper = Callable[[FileEntry, int, memoryview], None]


class Source:
    """Delivers FILES from memory, after ``tamper`` had its way with what is delivered."""

    def __init__(self, tamper: Tamper) -> None:
        self.tamper = tamper

    def read_into(
        self, file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        view[:] = FILES[file.path.text][offset : offset + len(view)]
        self.tamper(file, offset, view)
        for begin in range(0, len(view), 300_000):
            arrived(min(300_000, len(view) - begin))

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


class Memory:
    """A source of one release, which passed the verification."""

    label = "memory"

    def __init__(self, tamper: Tamper = lambda _file, _offset, _view: None, *, remote: bool = True) -> None:
        envelope, manifest = release(FILES)
        verifier = Verifier(trust_file().encode(), NOW, online=True)
        verified = verifier.release(envelope.encode(), manifest, expected_name=None, expected_digest=None)
        self.served = as_stored(verified, Source(tamper), remote=remote, proven=True)

    def find(self, name: RepositoryName, wanted: Wanted) -> Served:
        if name.key != "acme/minilm":
            raise NotFound("nothing of that name")
        return self.served

    def repositories(self) -> list[RepositoryName]:
        return []

    def tags(self, name: RepositoryName) -> list[Named]:
        return []

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def fetched(gateway: RunningGateway, path: str = "a.bin", first: int = 0) -> bytes | None:
    """What a client gets of a file from ``first`` on; None for a refusal. Never a byte that is not the signed one."""
    answer = gateway.get(f"/acme/minilm/resolve/main/{path}", Range=f"bytes={first}-")
    if answer.status == 422:
        assert answer.json["type"] == "/problems/shard-mismatch"
        return None
    assert answer.status == 206
    assert answer.body == FILES[path][first : first + len(answer.body)]
    assert answer.complete == (len(answer.body) == len(FILES[path]) - first)
    return answer.body


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_bits_turned_at_random_for_good(seed: int, remote: bool) -> None:
    chance = random.Random(seed)
    place = chance.randrange(len(FILES["a.bin"]))

    def turn(file: FileEntry, offset: int, view: memoryview) -> None:
        if file.path.text == "a.bin" and offset <= place < offset + len(view):
            view[place - offset] ^= 1 << chance.randrange(8)

    with running_gateway([Memory(turn, remote=remote)], None) as gateway:
        body = fetched(gateway)
        assert body is None or len(body) <= place // SHARD * SHARD
        behind = (place // SHARD + 1) * SHARD
        if behind < len(FILES["a.bin"]):
            rest = fetched(gateway, first=behind)
            assert rest is not None and len(rest) == len(FILES["a.bin"]) - behind
        assert fetched(gateway, "b.bin") == FILES["b.bin"]


def test_a_source_that_is_wrong_now_and_then_costs_time_only() -> None:
    left = [3]

    def turn(_file: FileEntry, _offset: int, view: memoryview) -> None:
        if left[0]:
            left[0] -= 1
            view[0] ^= 1

    with running_gateway([Memory(turn)], None) as gateway:
        assert fetched(gateway) == FILES["a.bin"]
        assert left == [0]


def test_shards_of_another_place_or_file_are_no_better() -> None:
    def swap(file: FileEntry, offset: int, view: memoryview) -> None:
        if file.path.text == "a.bin" and offset == 2 * SHARD:
            view[:SHARD] = FILES["a.bin"][SHARD : 2 * SHARD]

    with running_gateway([Memory(swap)], None, connections=1) as gateway:
        assert fetched(gateway, first=2 * SHARD) is None


def test_a_source_that_breaks_off_ends_the_answer() -> None:
    def fail(_file: FileEntry, offset: int, view: memoryview) -> None:
        if offset + len(view) > 3 * SHARD:
            raise ConnectionFailed("gone")

    with running_gateway([Memory(fail)], None) as gateway:
        body = fetched(gateway)
        assert body is not None and len(body) < len(FILES["a.bin"])
        assert gateway.get("/acme/minilm/resolve/main/a.bin", Range=f"bytes={4 * SHARD}-").status == 502


def test_a_cache_of_nothing_but_lies(tmp_path: Path) -> None:
    with running_gateway([Memory()], tmp_path / "cache") as gateway:
        assert fetched(gateway) == FILES["a.bin"]
    for seed, path in enumerate(sorted((tmp_path / "cache").glob("*.shards"))):
        path.write_bytes(random.Random(seed).randbytes(path.stat().st_size))
    with running_gateway([Memory()], tmp_path / "cache") as gateway:
        assert fetched(gateway) == FILES["a.bin"]
        assert fetched(gateway) == FILES["a.bin"], "what was wrong was replaced"
        assert gateway.value("pqreg_gateway_wrong_shards_total") == 6
    (tmp_path / "precious").write_bytes(b"x")
    for path in (tmp_path / "cache").glob("*.have"):
        path.write_bytes(b"\1" * 1000)
    for path in (tmp_path / "cache").glob("*.shards"):
        path.unlink()
        path.symlink_to(tmp_path / "precious")
    with running_gateway([Memory()], tmp_path / "cache") as gateway:
        assert fetched(gateway) == FILES["a.bin"]
        assert fetched(gateway) == FILES["a.bin"]
    assert (tmp_path / "precious").read_bytes() == b"x", "no link is followed"


def test_what_nobody_expected_says_nothing_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    origin = Memory()
    with running_gateway([origin], None) as gateway:
        with monkeypatch.context() as patch:
            patch.setattr(origin, "find", surprise)
            answer = gateway.get("/acme/minilm/resolve/main/a.bin")
            assert answer.status == 500 and b"secret" not in answer.body
        with monkeypatch.context() as patch:
            patch.setattr(origin.served.source, "read_into", surprise)
            answer = gateway.get("/acme/minilm/resolve/main/a.bin")
            assert answer.status == 500 and b"secret" not in answer.body
        assert fetched(gateway) == FILES["a.bin"]
