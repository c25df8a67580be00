# SPDX-License-Identifier: Apache-2.0
"""The guard of a private directory in bad moments, and places that are named by ways that can change."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pq_registry.errors import StorageError
from pq_registry.loader.integrations import private
from pq_registry.loader.integrations.private import private_directory
from pq_registry.settings import Settings


def guard(path: Path, *, stdout: int = subprocess.PIPE, before: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", before + private._GUARD, str(path)],
                            stdin=subprocess.PIPE, stdout=stdout)  # fmt: skip


def test_a_relative_place_is_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path)
    with private_directory(Settings({"private_dir": "place"}, environment={"HOME": str(tmp_path)})) as path:
        assert path.is_absolute() and path.parent == (tmp_path / "place").resolve()
        monkeypatch.chdir("/")
        assert path.exists()
    assert not path.exists()


def test_a_link_that_others_may_exchange_is_not_part_of_the_path(tmp_path: Path) -> None:
    for name in ("place", "loose"):
        (tmp_path / name).mkdir()
    (tmp_path / "loose").chmod(0o777)
    (tmp_path / "loose" / "link").symlink_to(tmp_path / "place")
    settings = Settings({"private_dir": str(tmp_path / "loose" / "link")}, environment={"HOME": str(tmp_path)})
    with private_directory(settings) as path:
        assert path.parent == (tmp_path / "place").resolve()


def test_killed_before_the_guard_says_that_it_is_there(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    (tmp_path / "d").mkdir()
    process = guard(tmp_path / "d", stdout=write)
    os.close(write)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not (tmp_path / "d").exists()


LATE = """
import os, shutil
remove = shutil.rmtree
def first(path, **options):  # somebody writes between the removal of what is there and that of the directory
    shutil.rmtree = remove
    rmdir = os.rmdir
    def late(*words, **more):
        os.rmdir = rmdir
        open(os.path.join(path, "late"), "w").close()
        rmdir(*words, **more)
    os.rmdir = late
    remove(path, **options)
    assert os.listdir(path) == ["late"]
shutil.rmtree = first
"""


def test_what_is_written_while_the_guard_removes_does_not_keep_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    (path / "first").touch()
    process = guard(path, before=LATE)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not path.exists()


def test_a_place_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "_free", lambda _: 10)
    settings = Settings({"private_dir": str(tmp_path)}, environment={"HOME": str(tmp_path)})
    with private_directory(settings, room=10):
        pass
    with pytest.raises(StorageError, match="too little room") as caught, private_directory(settings, room=11):
        raise AssertionError("no directory was to be made")
    assert (caught.value.expected, caught.value.found) == ("11 bytes", "10 bytes")
    assert "private_dir" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_what_was_sealed_goes_to_a_disk_only_if_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "_file_system", lambda _: "ext4")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with (
        pytest.raises(StorageError, match="no room in memory") as caught,
        private_directory(Settings(environment={"HOME": str(tmp_path)}), secret=True),
    ):
        raise AssertionError("no directory was to be made")
    assert "--private-dir" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())
    told = Settings({"private_dir": str(tmp_path)}, environment={"HOME": str(tmp_path)})
    with private_directory(told, secret=True) as path:
        assert path.parent == tmp_path


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_place_that_is_no_directory_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    settings = Settings({"private_dir": str(tmp_path / kind)}, environment={"HOME": str(tmp_path)})
    with pytest.raises(StorageError, match="has no place") as caught, private_directory(settings):
        raise AssertionError("no directory was to be made")
    assert caught.value.found == str(tmp_path / kind) and "--private-dir" in (caught.value.hint or "")
