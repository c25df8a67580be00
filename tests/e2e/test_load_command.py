# SPDX-License-Identifier: Apache-2.0
"""``pqreg load`` by the real command, from a registry, a directory and a sealed mirror; and what damage ends as."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from pq_registry import limits
from pq_registry.format.digest import Digest
from tests.e2e.shell import Shell
from tests.e2e.story import REFERENCE, Story, told
from tests.stored import changed_blob
from tests.tensors import safetensors_bytes

SECRET = "acme/secret:v1"
BYTES = 4 * 1280 * 1024 + 2 * 1280


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with told(tmp_path_factory.mktemp("load")) as made:
        shell = made.shell
        shell.run("key", "generate", "node1", "--recipient", "--dir", "keys", "--no-passphrase")
        seal = ("--key", "keys/alice.pqkey", "--seal", "--to", "keys/node1.pqpub")
        shell.run("push", "model", SECRET, *seal)
        shell.run("pull", SECRET, "mirror", "--sealed")
        yield made


@pytest.fixture
def node(story: Story) -> Shell:
    return story.person("node")


@pytest.fixture
def offline(story: Story) -> Shell:
    shell = story.person("offline")
    shell.export(PQREG_REGISTRY=None, PQREG_TOKEN=None)
    return shell


def test_from_the_registry_and_from_a_directory(node: Shell, offline: Shell) -> None:
    for ended in (
        node.run("load", REFERENCE, "--framework", "numpy", "--stats"),
        offline.run("load", "out", "--expect", "acme/minilm", "--framework", "numpy", "--stats"),
    ):
        assert ended.out.startswith("loaded: acme/minilm, 2 tensors, 5.2 MB, every shard as signed\n")
        assert "limited by" in ended.out
        assert "load acme/minilm: 5.2 MB in" in ended.err
    remote = node.run("load", REFERENCE, "--framework", "numpy", "--json", "--connections", "3").json
    assert (remote["source"], remote["threads"], remote["bytes"]) == ("registry", 3, BYTES)
    assert remote["tag"] == node.run("verify", REFERENCE, "--json").json["tag"]
    assert remote["tag"]["tag"] == "v1"
    pinned = node.run("load", f"acme/minilm@{remote['digest']}", "--framework", "numpy", "--iterate", "--json").json
    assert (pinned["bytes"], pinned["tag"]) == (BYTES, None)
    local = offline.run("load", "out", "--expect", f"acme/minilm@{remote['digest']}", "--framework", "numpy", "--json")
    assert local.json["source"] == "directory"


def test_a_rate_that_is_limited_is_kept_and_shows_as_the_network(node: Shell) -> None:
    found = node.run("load", REFERENCE, "--framework", "numpy", "--limit-rate", "10M", "--json").json
    assert found["seconds"] > 0.2
    assert found["limited_by"] == "network"


def test_a_sealed_release_from_the_registry_and_from_a_mirror(node: Shell, offline: Shell) -> None:
    key = ("--recipient-key", "keys/node1.pqkey", "--framework", "numpy", "--json")
    for ended in (node.run("load", SECRET, *key), offline.run("load", "mirror", "--expect", "acme/secret", *key)):
        found = ended.json
        assert found["unsealed"]
        assert found["bytes"] == BYTES
        assert found["passes"][0]["stages"]["unseal"]["bytes"] >= BYTES
    refused = node.run("load", SECRET, "--framework", "numpy", expect=1)
    assert "--recipient-key" in refused.err
    assert "  step:     7, the seal" in refused.err


@pytest.mark.parametrize("place", ["out", "mirror"])
def test_one_flipped_bit_in_a_directory_is_exit_1(story: Story, offline: Shell, place: str) -> None:
    bad = story.root / f"bad-{place}"
    shutil.copytree(story.root / place, bad)
    file = max((path for path in bad.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    with file.open("r+b") as damaged:
        damaged.seek(limits.SHARD_BYTES + 99)
        byte = damaged.read(1)[0]
        damaged.seek(-1, os.SEEK_CUR)
        damaged.write(bytes([byte ^ 1]))
    name = "acme/minilm" if place == "out" else "acme/secret"
    words = ("load", bad.name, "--expect", name, "--framework", "numpy", "--recipient-key", "keys/node1.pqkey")
    ended = offline.run(*words, expect=1)
    assert ended.out == ""
    assert f"shard 1 of {file.relative_to(bad).as_posix()}" in ended.err
    assert "  step:     8, the content" in ended.err
    assert "  next: " in ended.err
    assert offline.run(*words, "--json", expect=1).problem["type"] == "/problems/shard-mismatch"


@pytest.mark.parametrize("reference", [REFERENCE, SECRET])
def test_one_flipped_bit_in_the_registrys_storage_is_exit_1(story: Story, node: Shell, reference: str) -> None:
    def flip(good: bytes) -> bytes:
        return good[:5000] + bytes([good[5000] ^ 0x80]) + good[5001:]

    mirror = story.root / ("out" if reference == REFERENCE else "mirror")
    file = max((path for path in mirror.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    words = ("load", reference, "--framework", "numpy", "--recipient-key", "keys/node1.pqkey", "--json")
    with changed_blob(story.root / "data", Digest.of(file.read_bytes()), flip):
        problem = node.run(*words, expect=1).problem
    assert problem["type"] == "/problems/shard-mismatch"
    assert f"shard 0 of {file.relative_to(mirror).as_posix()}" in problem["detail"]
    assert node.run(*words).json["bytes"] == BYTES


def test_what_is_not_there_is_exit_3_or_2(node: Shell, offline: Shell) -> None:
    assert node.run("load", "acme/nothing", "--json", expect=3).problem["type"] == "/problems/not-found"
    assert "PQREG_REGISTRY" in offline.run("load", REFERENCE, expect=2).err
    assert "--expect" in offline.run("load", "out", expect=2).err


def test_ctrl_c_ends_it_with_130_and_no_traceback(node: Shell) -> None:
    process = node.start(
        "load", REFERENCE, "--framework", "numpy", "--limit-rate", "1M", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        # The limited load takes five seconds; it is under way once its threads exist.
        deadline = time.monotonic() + 60
        while len(os.listdir(f"/proc/{process.pid}/task")) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)  # between two looks; the deadline decides
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize("language", ["de_DE.UTF-8", "C.UTF-8", "C"])
def test_names_of_any_language_in_any_locale(story: Story, node: Shell, language: str) -> None:
    model = story.root / f"größe-{language}"
    model.mkdir()
    (model / "gewichte.safetensors").write_bytes(safetensors_bytes({"größe.数": ("F32", (3,))}, 5)[0])
    story.shell.run("push", model, f"acme/umlaut:{language.partition('.')[0]}", "--key", "keys/alice.pqkey")
    node.export(LC_ALL=language, PYTHONUTF8="0" if language == "C" else "1")
    words = ("load", f"acme/umlaut:{language.partition('.')[0]}", "--framework", "numpy", "--names")
    assert "1 tensor" in node.run(*words, "gr*").out
    assert "no tensor has a name" in node.run(*words, "klein*", expect=2).err
