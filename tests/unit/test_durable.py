# SPDX-License-Identifier: Apache-2.0
"""Durable writes: whole or not at all, never over something that must stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pq_registry import durable
from pq_registry.errors import AlreadyExists, StorageError


def test_write_replaces_wholly(tmp_path: Path) -> None:
    target = tmp_path / "file"
    durable.write_file(target, b"one")
    durable.write_file(target, b"two")
    assert target.read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_write_without_replace_keeps_the_first(tmp_path: Path) -> None:
    target = tmp_path / "file"
    durable.write_file(target, b"one", replace=False)
    with pytest.raises(AlreadyExists):
        durable.write_file(target, b"two", replace=False)
    assert target.read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_mode_is_applied_from_the_first_moment(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    durable.write_file(target, b"x", mode=0o600)
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["fsync", "rename", "open"])
def test_a_failing_call_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "file"
    durable.write_file(target, b"one")

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageError) as caught:
            durable.write_file(target, b"two")
    assert caught.value.found == "Input/output error"
    assert target.read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        durable.write_file(tmp_path / "file", b"x")
    assert "free some space" in (caught.value.hint or "")


def test_the_order_of_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def record(name: str) -> None:
        original = getattr(os, name)

        def recorded(*args: object, **kwargs: object) -> object:
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(os, name, recorded)

    for name in ("fsync", "rename"):
        record(name)
    durable.write_file(tmp_path / "file", b"x")
    assert calls == ["fsync", "rename", "fsync"]


def test_sweep_removes_leftovers_only(tmp_path: Path) -> None:
    (tmp_path / "kept.tmp").write_bytes(b"")
    leftover = durable.temporary_path(tmp_path / "file")
    leftover.write_bytes(b"half")
    assert durable.sweep(tmp_path) == [leftover]
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.tmp"]


def test_make_directory_refuses_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError):
        durable.make_directory(tmp_path / "a" / "b")
    durable.make_directory(tmp_path / "c" / "d")
    durable.make_directory(tmp_path / "c" / "d")
    assert (tmp_path / "c" / "d").is_dir()


def test_several_files_are_renamed_and_each_directory_is_synced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = [tmp_path / folder / name for folder, name in (("a", "1"), ("a", "2"), ("b", "1"))]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    targets[0].write_bytes(b"old")
    done: list[str] = []
    rename, sync = os.rename, durable.sync_directory
    monkeypatch.setattr(os, "rename", lambda old, new: done.append(f"rename {Path(new).name}") or rename(old, new))
    monkeypatch.setattr(durable, "sync_directory", lambda path: done.append(f"sync {path.name}") or sync(path))
    finished = [(durable.temporary_path(target), target) for target in targets]
    durable.write_temporaries([(temporary, str(target).encode()) for temporary, target in finished])
    assert done == []
    durable.publish_all(finished)
    assert done == ["rename 1", "rename 2", "rename 1", "sync a", "sync b"]
    assert [target.read_bytes() for target in targets] == [str(target).encode() for target in targets]
    assert sum(len(list(each.iterdir())) for each in tmp_path.iterdir()) == 3


@pytest.mark.parametrize("call", ["fsync", "open", "write"])
def test_the_first_half_fails_as_an_error_of_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError) as caught:
        durable.write_temporaries([(durable.temporary_path(tmp_path / "file"), b"x")])
    assert caught.value.found == "No space left on device"
    assert caught.value.hint is not None


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    durable.write_temporaries([(tmp_path / "file", b"0123456789")])
    assert (tmp_path / "file").read_bytes() == b"0123456789"
