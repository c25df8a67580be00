# SPDX-License-Identifier: Apache-2.0
"""Pass 2 against a registry in memory: which parts are sent when, and answers no honest registry gives."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pq_registry import limits
from pq_registry.client.answers import Upload
from pq_registry.client.progress import NullProgress
from pq_registry.client.transport import RegistryClient
from pq_registry.client.upload import Blob, Sent, upload_missing
from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import (
    AccessDenied,
    Conflict,
    ConnectionFailed,
    NotFound,
    ResponseInvalid,
    ServerRefused,
    SourceChanged,
)
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName

PART = 4 * limits.SHARD_BYTES
REPOSITORY = RepositoryName.parse("acme/minilm")


class Registry:
    """Keeps what is put; ``trouble`` is called before each request and may raise or change things."""

    def __init__(self) -> None:
        self.have: set[Digest] = set()
        self.parts: dict[str, dict[int, bytes]] = {}
        self.sent: list[tuple[str, int]] = []
        self.part_size = PART
        self.trouble: Callable[[str], None] = lambda what: None
        self.slept: list[float] = []
        self.exchanger = SimpleNamespace(sleep=self.slept.append)

    def missing(self, _name: RepositoryName, digests: Collection[Digest], _slice_size: int) -> frozenset[Digest]:
        return frozenset(digests) - self.have

    def open_upload(self, _name: RepositoryName, digest: Digest, size: int, _slice_size: int) -> Upload:
        self.trouble("open")
        parts = self.parts.setdefault(digest.hex, {})
        return Upload(digest.hex, self.part_size, frozenset(parts))

    def upload_status(self, _name: RepositoryName, upload: str) -> Upload:
        self.trouble("status")
        if upload not in self.parts:
            raise NotFound("gone")
        return Upload(upload, self.part_size, frozenset(self.parts[upload]))

    def put_part(self, _name: RepositoryName, upload: str, number: int, body: memoryview, shards: bytes) -> None:
        self.sent.append((upload, number))
        self.trouble("before put")
        parts = self.parts.get(upload)
        if parts is None:
            raise NotFound("gone")
        assert shard_digests(body) == shards
        parts[number] = bytes(body)
        self.trouble("after put")

    def complete_upload(self, _name: RepositoryName, upload: str) -> Digest:
        self.trouble("complete")
        parts = self.parts.pop(upload, None)
        if parts is None:
            raise NotFound("gone")
        digest = Digest.of(b"".join(parts[number] for number in sorted(parts)))
        self.have.add(digest)
        return digest


def blob(content: bytes) -> Blob:
    def read(view: memoryview, offset: int) -> None:
        view[:] = content[offset : offset + len(view)]

    return Blob(Digest.of(content), len(content), shard_digests(content), read, lambda how: SourceChanged(f"x: {how}"))


def send(registry: Registry, *blobs: Blob, connections: int = 1) -> Sent:
    client = cast("RegistryClient", registry)
    return upload_missing(client, REPOSITORY, blobs, connections=connections, progress=NullProgress())


def raise_once(registry: Registry, where: str, error: Exception, times: int = 1) -> None:
    left = [error] * times

    def trouble(what: str) -> None:
        if what == where and left:
            raise left.pop()

    registry.trouble = trouble


BIG = bytes(range(256)) * (3 * PART // 256) + b"end"


@pytest.mark.parametrize("connections", [1, 5])
def test_every_part_is_sent_once_and_what_is_there_is_not(connections: int) -> None:
    registry = Registry()
    present = blob(b"present")
    registry.have.add(present.digest)
    registry.parts[blob(BIG).digest.hex] = {0: BIG[:PART], 2: BIG[2 * PART : 3 * PART]}
    blobs = [blob(BIG), blob(b""), present, blob(b"small"), blob(b"small")]
    assert send(registry, *blobs, connections=connections) == Sent(
        sent=PART + 3 + 5, resumed=2 * PART, present=len(b"present")
    )
    assert registry.have == {each.digest for each in blobs}
    assert sorted(number for upload, number in registry.sent if upload == blob(BIG).digest.hex) == [1, 3]
    assert len(registry.sent) == 3
    assert send(registry, *blobs) == Sent(0, 0, len(BIG) + 7 + 5)


@pytest.mark.parametrize("error", [ConnectionFailed("broke"), ServerRefused("503")], ids=["connection", "server"])
def test_a_part_whose_acknowledgement_is_lost_is_not_sent_again(error: Exception) -> None:
    registry = Registry()
    raise_once(registry, "after put", error)
    assert send(registry, blob(BIG)).sent == 2 * PART + 3
    assert [number for _, number in registry.sent] == [0, 1, 2, 3]
    assert len(registry.slept) == 1


def test_a_part_that_did_not_arrive_is_sent_again_and_not_for_ever() -> None:
    registry = Registry()
    raise_once(registry, "before put", ConnectionFailed("broke"))
    assert send(registry, blob(b"small")).sent == 5
    assert [number for _, number in registry.sent] == [0, 0]

    registry = Registry()
    raise_once(registry, "before put", ConnectionFailed("broke"), times=100)
    with pytest.raises(ConnectionFailed):
        send(registry, blob(b"small"))
    assert len(registry.sent) == limits.ATTEMPTS
    assert registry.slept == sorted(registry.slept)


def test_a_refusal_is_not_tried_again() -> None:
    registry = Registry()
    raise_once(registry, "before put", AccessDenied("no"), times=100)
    with pytest.raises(AccessDenied):
        send(registry, blob(b"small"))
    assert len(registry.sent) == 1


def test_a_part_that_another_push_is_sending_is_waited_for_longer_and_longer() -> None:
    registry = Registry()
    raise_once(registry, "before put", Conflict("another request is sending part 0"), times=3)
    assert send(registry, blob(b"small")).sent == 5
    assert len(registry.slept) == 3
    assert registry.slept[2] > 2 * registry.slept[0]

    registry = Registry()
    raise_once(registry, "before put", Conflict("another request is sending part 0"), times=10_000)
    with pytest.raises(Conflict):
        send(registry, blob(b"small"))
    assert sum(registry.slept) <= limits.PART_CLAIM_SECONDS


@pytest.mark.parametrize("where", ["before put", "complete"])
def test_an_upload_that_another_push_finished_is_finished(where: str) -> None:
    registry = Registry()

    def finish(what: str) -> None:
        if what == where:
            registry.have.add(blob(BIG).digest)
            registry.parts.pop(blob(BIG).digest.hex, None)

    registry.trouble = finish
    send(registry, blob(BIG), blob(b"small"), connections=3)
    assert blob(BIG).digest in registry.have


def test_an_upload_that_was_swept_says_to_run_again() -> None:
    registry = Registry()
    registry.trouble = lambda what: registry.parts.clear() if what == "complete" else None
    with pytest.raises(NotFound, match="dropped the upload") as caught:
        send(registry, blob(b"small"))
    assert "run the same push again" in (caught.value.hint or "")


def test_a_changed_shard_is_found_and_said_before_it_is_sent() -> None:
    registry = Registry()
    content = bytearray(BIG)
    good = blob(BIG)

    def read(view: memoryview, offset: int) -> None:
        view[:] = content[offset : offset + len(view)]

    content[2 * PART + 5] ^= 1
    changed = Blob(good.digest, good.size, good.shards, read, good.changed)
    with pytest.raises(SourceChanged, match=f"bytes {2 * PART} to {3 * PART}"):
        send(registry, changed)
    assert [number for _, number in registry.sent] == [0, 1]
    assert good.digest not in registry.have


@pytest.mark.parametrize("part_size", [1, limits.SHARD_BYTES + 1, limits.FILE_BYTES, 64 * limits.PART_BYTES])
def test_f3_a_registry_may_not_ask_for_parts_that_do_not_fit_into_memory(part_size: int) -> None:
    registry = Registry()
    registry.part_size = part_size
    with pytest.raises(ResponseInvalid, match="impossible size"):
        send(registry, blob(b"small"))
    assert registry.sent == []


def test_a_registry_that_completes_something_else_is_not_believed() -> None:
    registry = Registry()
    honest = registry.complete_upload

    def lying(name: RepositoryName, upload: str) -> Digest:
        honest(name, upload)
        return Digest("00" * 32)

    cast("Any", registry).complete_upload = lying
    with pytest.raises(ResponseInvalid, match="completed another blob"):
        send(registry, blob(b"small"))
