# SPDX-License-Identifier: Apache-2.0
"""G2, build-time trust: ``import oqs`` clones and builds code where it finds no library. It never gets that far.

Each case runs in a child whose environment is hostile: a PATH on which git, cmake, gcc and ldconfig record that they
were called, a HOME without anything, proxies that lead nowhere, and settings of the wrapper's downloader.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pq_registry.crypto import oqslibrary
from pq_registry.errors import ProviderUnavailable
from pq_registry.settings import LibraryPlaces, library_places
from tests.oqs_site import library

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("git", "cmake", "cc", "gcc", "ld", "objdump", "ldconfig", "sh", "bash", "curl", "pip")
PROBE = """
import os, socket, subprocess, sys

started = []
def recorded(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect",
                 "socket.getaddrinfo"):
        started.append((event, arguments))
sys.addaudithook(recorded)

from pq_registry.crypto.providers import provider_named
from pq_registry.errors import PqregError
try:
    print("loaded", provider_named("liboqs").name)
except PqregError as error:
    print("refused", type(error).__name__, bool(error.hint))
print("started", started)
print("imported", sorted(name for name in sys.modules if name.split(".")[0] == "oqs"))
"""

needs_wrapper = pytest.mark.skipif(
    importlib.util.find_spec("oqs") is None, reason="liboqs-python is not installed (pip install 'pq-registry[liboqs]')"
)


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        tool = tools / name
        tool.write_text(f"#!/bin/sh\necho {name} >> {tmp_path / 'called'}\nexit 0\n")
        tool.chmod(0o755)
    (tmp_path / "home").mkdir()
    return {
        "PATH": str(tools),
        "HOME": str(tmp_path / "home"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "cli", "keys")),
        "PYOQS_VERSION": "latest",
        "https_proxy": "http://127.0.0.1:1",
        "PYOQS_ENABLE_FAULTHANDLER": "1",
    }


def run(environment: dict[str, str]) -> tuple[list[str], str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


@needs_wrapper
def test_g2_without_a_library_nothing_is_fetched_or_started(hostile: dict[str, str], tmp_path: Path) -> None:
    lines, _ = run({**hostile, "OQS_INSTALL_PATH": str(tmp_path / "nowhere")})
    assert lines == ["refused ProviderUnavailable True", "started []", "imported []"]
    assert not (tmp_path / "called").exists()
    assert not list((tmp_path / "home").iterdir())


@needs_wrapper
def test_g2_a_library_that_cannot_be_loaded_starts_nothing_either(hostile: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "given" / "lib"
    folder.mkdir(parents=True)
    (folder / "liboqs.so").write_bytes(b"no library")
    lines, _ = run({**hostile, "OQS_INSTALL_PATH": str(tmp_path / "given")})
    assert lines == ["refused ProviderUnavailable True", "started []", "imported []"]
    assert not (tmp_path / "called").exists()


@needs_wrapper
def test_g2_a_library_of_something_else_starts_nothing_either(hostile: dict[str, str], tmp_path: Path) -> None:
    """It loads, but has none of liboqs's functions."""
    other = next((Path(sys.base_prefix) / "lib").rglob("*.so*"), None) or next(Path("/usr/lib").rglob("libz.so*"), None)
    if other is None:
        pytest.skip("no shared library to take for liboqs")
    folder = tmp_path / "given" / "lib"
    folder.mkdir(parents=True)
    (folder / "liboqs.so").write_bytes(other.read_bytes())
    lines, _ = run({**hostile, "OQS_INSTALL_PATH": str(tmp_path / "given")})
    assert lines == ["refused ProviderUnavailable True", "started []", "imported []"]
    assert not (tmp_path / "called").exists()


def test_g2_with_a_library_it_loads_that_one_and_starts_nothing(hostile: dict[str, str], tmp_path: Path) -> None:
    lines, _ = run({**hostile, "OQS_INSTALL_PATH": str(library().parents[1])})
    assert lines == ["loaded liboqs", "started []", "imported []"]
    assert not (tmp_path / "called").exists()


@needs_wrapper
def test_g2_the_wrapper_has_no_way_to_start_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Even with the search out of the way: what it takes for ``subprocess`` starts nothing."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: None)  # as if the file were fine
    with pytest.raises(ProviderUnavailable, match="does not work with") as caught:
        oqslibrary.load_wrapper(tmp_path / "liboqs.so")
    assert "tried to start a program" in str(caught.value.found)


def test_g2_only_the_place_that_was_named_is_searched(tmp_path: Path) -> None:
    places = library_places({"OQS_INSTALL_PATH": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")})
    assert places == LibraryPlaces(tmp_path, tmp_path / "data")
    with pytest.raises(ProviderUnavailable, match="not installed") as caught:
        oqslibrary.find_library(places)
    assert str(tmp_path) in str(caught.value.found)
    assert "make liboqs" in str(caught.value.hint)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
@pytest.mark.parametrize("what", ["file", "directory"])
def test_g2_a_library_that_others_may_replace_is_refused(tmp_path: Path, mode: int, what: str) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    file = folder / "liboqs.so"
    file.write_bytes(b"")
    folder.chmod(0o755)
    file.chmod(0o755)
    assert oqslibrary.find_library(LibraryPlaces(tmp_path, tmp_path)) == file.resolve()
    (file if what == "file" else folder).chmod(mode)
    with pytest.raises(ProviderUnavailable, match="others may replace"):
        oqslibrary.find_library(LibraryPlaces(tmp_path, tmp_path))
