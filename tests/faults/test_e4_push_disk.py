# SPDX-License-Identifier: Apache-2.0
"""E3 and E4 for push: a disk that is full, read-only or fails, too few file descriptors, short reads.

Each is a StorageError that names the file and says what to do, nothing is published, and the push that is run again
when the trouble is over succeeds. After a failed fsync nothing is read back and tried again: the plan is drawn anew.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pq_registry.errors import StorageError
from tests.publishing import Registry, make_model, publisher_at, push_as, running_registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def failing(number: int, *, when: Callable[..., bool], original: Callable[..., Any]) -> Callable[..., Any]:
    """``original``, failing with errno ``number`` where ``when`` says so."""

    def call(*arguments: Any, **options: Any) -> Any:
        if when(*arguments, **options):
            raise OSError(number, os.strerror(number))
        return original(*arguments, **options)

    return call


def is_plan(path: object, *_: object, **__: object) -> bool:
    return "/plans/" in str(path)


@pytest.mark.parametrize(
    ("call", "number", "when", "hint"),
    [
        ("open", errno.ENOSPC, is_plan, "free some space"),
        ("open", errno.EROFS, is_plan, "read-only"),
        ("open", errno.EACCES, is_plan, "who owns"),
        ("fsync", errno.EIO, lambda _descriptor: True, None),
        ("fsync", errno.ENOSPC, lambda _descriptor: True, "free some space"),
        ("link", errno.EIO, is_plan, None),
        ("open", errno.EMFILE, lambda path, *_args, **_options: path == "model.safetensors", "ulimit -n"),
        ("preadv", errno.EIO, lambda *_arguments: True, None),
    ],
    ids=["plan ENOSPC", "plan EROFS", "plan EACCES", "fsync EIO", "fsync ENOSPC", "link EIO", "EMFILE", "read EIO"],
)
def test_e4_trouble_with_the_disk_is_said_and_passes(
    registry: Registry,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    call: str,
    number: int,
    when: Any,
    hint: str | None,
) -> None:
    name = f"acme/{request.node.callspec.id.replace(' ', '-')}"
    model = make_model(tmp_path / "model", name)
    publisher = publisher_at(registry, tmp_path / "state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, failing(number, when=when, original=getattr(os, call)))
        with pytest.raises(StorageError) as caught:
            push_as(publisher, model, name)
    assert caught.value.found == os.strerror(number)
    assert hint is None or hint in (caught.value.hint or "")
    assert registry.releases(name) == []
    assert not list((tmp_path / "state").rglob("*.json")), "a plan that is not durable is no plan"
    assert not list((tmp_path / "state").rglob("*.tmp"))
    assert registry.releases(name) == []
    assert push_as(publisher, model, name).minted


def test_e4_short_reads_are_completed(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.preadv

    def short(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return original(descriptor, [buffers[0][: max(1, len(buffers[0]) // 3)]], offset)

    model = make_model(tmp_path / "model", "short", size=3_000_000)
    plain = push_as(publisher_at(registry, tmp_path / "one"), model, "acme/short")
    monkeypatch.setattr(os, "preadv", short)
    again = push_as(publisher_at(registry, tmp_path / "two"), model, "acme/short")
    assert again.release == plain.release
    assert push_as(publisher_at(registry, tmp_path / "three"), model, "acme/short-two").minted


def test_e4_a_plan_that_cannot_be_deleted_does_not_undo_the_commit(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "model", "stuck")
    publisher = publisher_at(registry, tmp_path / "state")
    original = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".json" and "plans" in path.parts:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        original(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(StorageError, match="cannot remove"):
            push_as(publisher, model, "acme/stuck")
    result = push_as(publisher, model, "acme/stuck")
    assert registry.releases("acme/stuck") == [result.release]
    assert not list((tmp_path / "state" / "plans").glob("*.json"))
