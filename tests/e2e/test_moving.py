# SPDX-License-Identifier: Apache-2.0
"""Bundles and replication as an operator runs them: the real commands, pipes, several media, and kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.shell import Shell
from tests.moving import Move, two_registries
from tests.publishing import make_model, publisher_at, push_as

SIZE = 12_000_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Move]:
    with two_registries(tmp_path_factory.mktemp("moving")) as move:
        move.revoke()
        move.push("acme/minilm:v1", 1, size=SIZE)
        move.push("acme/minilm:v1", 2, size=SIZE)
        yield move


@pytest.fixture
def move(shared: Move, tmp_path: Path) -> Move:
    os.symlink(shared.home / "publisher", tmp_path / "publisher")
    return replace(shared, home=tmp_path)


def shell(move: Move, name: str, *, at: str = "source", **settings: str) -> Shell:
    registry = getattr(move, at)
    (move.home / "trust.json").write_bytes(move.trust.encode())
    return Shell(
        move.home, name, PQREG_REGISTRY=registry.url, PQREG_TOKEN=registry.token,
        PQREG_TRUST=str(move.home / "trust.json"), **settings,
    )  # fmt: skip


def offline(move: Move, name: str) -> Shell:
    """A node without a registry, token or network of ours."""
    (move.home / "trust.json").write_bytes(move.trust.encode())
    return Shell(move.home, name, PQREG_TRUST=str(move.home / "trust.json"))


def test_through_a_pipe(move: Move) -> None:
    out, edge = shell(move, "exporter"), offline(move, "edge")
    words = ("bundle", "import", "-", "--output", "piped", "--expect", "acme/minilm:v1")
    with out.start("bundle", "export", "acme/minilm:v1", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        with edge.start(*words, stdin=writer.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
            said, complained = reader.communicate(timeout=120)
        assert writer.stderr is not None
        told = writer.stderr.read()
    assert (writer.returncode, reader.returncode) == (0, 0), (told, complained)
    assert "verified: acme/minilm" in said
    assert edge.run("verify", "piped", "--expect", "acme/minilm", "--full", "--json").json["content_verified"]
    # A reader that goes away ends the export without a traceback, as with any other command.
    with out.start("bundle", "export", "acme/minilm:v1", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.close()
        assert writer.stderr is not None
        assert "Traceback" not in writer.stderr.read()
    assert writer.returncode not in (0, 1, 2)


def test_media_one_by_one_with_a_kill_in_between(move: Move) -> None:
    out, edge = shell(move, "exporter"), offline(move, "edge")
    made = out.run("bundle", "export", "acme/minilm:v1", "media/", "--volume-size", "5M", "--json").json
    volumes = [volume["path"] for volume in made["volumes"]]
    assert len(volumes) == 3
    assert all((move.home / path).stat().st_size <= 5 * 2**20 for path in volumes)
    first = edge.run("bundle", "import", volumes[1], "--output", "node", "--json", expect=1)
    assert (first.problem["type"], "volumes 1, 3 of 3" in first.problem["detail"]) == (
        "/problems/bundle-incomplete",
        True,
    )
    with edge.start("bundle", "import", "media", "--output", "node", stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        staging = move.home / "node" / ".pqreg" / "incoming"
        before = blocks(staging)
        while blocks(staging) == before and process.poll() is None:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    done = edge.run("bundle", "import", "media", "--output", "node", "--expect", "acme/minilm:v1", "--json").json
    assert done["tags"] == {"v1": 2}
    assert done["present"] + done["read"] >= SIZE
    assert done["present"] > 0
    edge.run("verify", "node", "--full")
    (move.home / "empty").mkdir()
    for words in (("empty", "--output", "x"), ("no-such-file", "--output", "x"), ("media",)):
        edge.run("bundle", "import", *words, expect=2)


def blocks(folder: Path) -> int:
    return sum(path.stat().st_blocks for path in folder.iterdir()) if folder.exists() else 0


def test_a_file_is_not_overwritten_and_a_stream_takes_no_json(move: Move) -> None:
    out = shell(move, "exporter")
    (move.home / "mine.tar").write_bytes(b"mine")
    out.run("bundle", "export", "acme/minilm:v1", "mine.tar", expect=1)
    assert (move.home / "mine.tar").read_bytes() == b"mine"
    assert [path.name for path in move.home.iterdir() if path.suffix == ".tmp"] == []
    out.run("bundle", "export", "acme/minilm:v1", "-", "--json", expect=2)
    out.run("bundle", "export", "acme/minilm:v1", "small/", "--volume-size", "1K", expect=2)


def test_into_the_registry_of_the_site(move: Move) -> None:
    out, site = shell(move, "exporter"), shell(move, "site", at="destination")
    out.run("bundle", "export", "acme/minilm:v1", "now.tar")
    refused = site.run("bundle", "import", "now.tar", "--to-registry", "--json", expect=1)
    assert refused.problem["type"] == "/problems/chain-diverged"
    assert "--with-history" in refused.problem["hint"]
    out.run("bundle", "export", "acme/minilm:v1", "whole.tar", "--with-history")
    for _ in range(2):  # and once more, which changes nothing
        assert site.run("bundle", "import", "whole.tar", "--to-registry", "--json").json["registry"]
    assert move.destination.tag_chain("acme/minilm:v1") == move.source.tag_chain("acme/minilm:v1")
    node = shell(move, "node", at="destination")
    node.run("pull", "acme/minilm:v1", "pulled")
    assert not list((site.home / ".local" / "state" / "pqreg" / "bundles").glob("*"))


def replicated(runner: Shell, move: Move, *words: str, expect: int = 0) -> Any:
    done = runner.run("replicate", move.source.url, move.destination.url, "--json", *words, expect=expect)
    return done.json if expect in (0, 1) else done.problem


def test_replicate_as_a_command(move: Move) -> None:
    runner = shell(move, "runner", at="destination", PQREG_SOURCE_TOKEN=move.source.token)
    planned = replicated(runner, move, "--dry-run")
    assert planned["dry_run"]
    with runner.start(
        "replicate", move.source.url, move.destination.url, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while not move.destination.acknowledged_parts() and process.poll() is None:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    first = replicated(runner, move)
    assert first["refused"] == []
    assert max(move.destination.acknowledged_parts().values()) == 1
    assert replicated(runner, move)["sent"] == []
    mallory = publisher_at(move.source, move.home / "mallory", "mallory")
    push_as(mallory, make_model(move.home / "evil", 9), "acme/evil:v1")
    refused = replicated(runner, move, expect=1)
    assert {one["problem"] for one in refused["refused"]} == {"/problems/untrusted-signer"}
    assert replicated(runner, move, "--namespace", "nobody", expect=1)["refused"][0]["problem"].endswith(
        "trust-missing"
    )
    runner.run("replicate", move.source.url, move.source.url, expect=2)
    # Tokens go where they belong and nowhere else; without one the run ends, it does not report a copy.
    (move.home / "empty").write_text("\n")
    runner.run("replicate", move.source.url, move.destination.url, "--token-file", move.home / "empty", expect=2)
    (move.home / "wrong").write_text("pqreg_" + "A" * 43)
    ended = runner.run(
        "replicate", move.source.url, move.destination.url, "--source-token-file", move.home / "wrong", expect=3
    )
    assert "A" * 43 not in ended.out + ended.err
    assert replicated(shell(move, "poor"), move, "--namespace", "acme", expect=3)
