# SPDX-License-Identifier: Apache-2.0
"""Tags as their publisher sets, renews and withdraws them, and the commands push, tag and rm as a script runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.tagging import move_tag
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from tests.e2e.shell import Shell
from tests.publishing import Registry, make_model, publisher_at, push_as, running_registry, tag_of

YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return make_model(tmp_path / "model", request.node.name)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return f"acme/{request.node.name[:90].replace('[', '-').replace(']', '').replace('_', '-').replace(' ', '-')}"


# -- tags ----------------------------------------------------------------------------------------------------------


def test_a_tag_is_withdrawn_set_again_and_renewed(registry: Registry, model: Path, name: str, tmp_path: Path) -> None:
    publisher = publisher_at(registry, tmp_path)
    release = push_as(publisher, model, name).release
    repository, tag = tag_of(name)

    def move(target: Digest | None, **options: bool) -> tuple[int, bool]:
        change = move_tag(publisher, repository, tag, target, lifetime=YEAR, **options)
        return change.statement.sequence, change.changed

    assert move(None) == (2, True)
    assert move(None) == (2, False)
    assert move(release) == (3, True)
    assert move(release) == (3, False)
    assert move(release, renew=True) == (4, True)
    assert [statement.target for statement in registry.tag_chain(name)] == [release, None, release, release]
    with pytest.raises(NotFound, match="there is no tag"):
        move_tag(publisher, repository, tag_of("acme/x:never")[1], None, lifetime=YEAR)


def test_an_expired_tag_is_set_again_without_being_asked(
    registry: Registry, model: Path, name: str, tmp_path: Path
) -> None:
    publisher = publisher_at(registry, tmp_path)
    result = push_as(publisher, model, name, tag_lifetime=timedelta(days=1))
    repository, tag = tag_of(name)
    later = replace(publisher, now=publisher.now + timedelta(days=1))
    seen: list[str] = []

    def put_tag(_name: object, _tag: object, envelope: bytes) -> None:
        seen.append("put")

    later.client.put_tag = put_tag  # type: ignore[method-assign, assignment]  # the registry's own clock would refuse what comes later
    change = move_tag(later, repository, tag, result.release, lifetime=YEAR)
    assert (change.changed, change.statement.sequence, seen) == (True, 2, ["put"])


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(registry: Registry, tmp_path: Path) -> Shell:
    person = Shell(tmp_path, "alice", PQREG_REGISTRY=registry.url, PQREG_TOKEN=registry.token)
    person.run("key", "generate", "alice", "--dir", "keys", "--no-passphrase")
    person.export(PQREG_KEY="keys/alice.pqkey")
    return person


def test_the_commands_say_what_they_did(registry: Registry, model: Path, name: str, shell: Shell) -> None:
    (model / ".gitignore").write_text("x")
    base = f"acme/base@{Digest('5e' * 32)}"
    done = shell.run("push", model, f"{name}:v1", "--json", "--license", "MIT", "--base", base).json
    assert done["minted"]
    assert done["registered"]
    assert done["skipped"] == [".gitignore"]
    assert done["lineage"] == [{"name": "acme/base", "release": str(Digest("5e" * 32))}]
    assert done["tag"]["sequence"] == 1
    assert registry.releases(name) == [Digest.parse(done["digest"])]
    again = shell.run("push", model, f"{name}:v1")
    assert "nothing changed: this release exists" in again.out
    assert "points there already" in again.out
    assert ".gitignore is not part of a release" in again.err

    moved = shell.run("tag", f"{name}:stable", done["digest"], "--json").json
    assert (moved["target"], moved["sequence"], moved["before"], moved["changed"]) == (done["digest"], 1, None, True)
    same = shell.run("tag", f"{name}:stable", f"{name}@{done['digest']}", "--json").json
    assert not same["changed"]
    assert shell.run("tag", f"{name}:stable", done["digest"], "--renew", "--json").json["sequence"] == 2
    gone = shell.run("rm", f"{name}:stable", "--json").json
    assert (gone["target"], gone["before"], gone["sequence"]) == (None, done["digest"], 3)
    assert "nothing changed" in shell.run("rm", f"{name}:stable").out


def test_what_the_commands_refuse(model: Path, name: str, shell: Shell) -> None:
    digest = str(Digest("00" * 32))
    for words, status, text in (
        (("push", model, "no-namespace"), 2, "not a repository name"),
        (("push", "nowhere", name), 2, "is not a directory"),
        (("push", model, name, "--base", "acme/x:v1"), 2, "--base is wrong"),
        (("push", model, name, "--limit-rate", "fast"), 2, "not a number of bytes"),
        (("tag", name, digest), 2, "which tag?"),
        (("tag", f"{name}:v1", f"{name}:v2"), 2, "must be named by its digest"),
        (("tag", f"{name}:v1", f"acme/other@{digest}"), 2, "of its own repository"),
        (("tag", f"{name}:v1", digest), 3, "no"),
        (("rm", name), 2, "which tag?"),
        (("rm", f"{name}:v1"), 3, "there is no tag"),
    ):
        ended = shell.run(*words, expect=status)
        assert text in ended.err, ended
    os.mkfifo(model / "pipe")
    assert "'pipe' is not a regular file" in shell.run("push", model, name, expect=1).err


def test_the_result_does_not_depend_on_how_the_key_is_given(model: Path, name: str, shell: Shell) -> None:
    shell.export(PQREG_KEY=None)
    assert "no key is configured" in shell.run("push", model, name, expect=2).err
    assert shell.run("push", model, name, "--key", "keys/alice.pqkey", "--json").json["minted"]


def test_tags_that_differ_in_case_are_two_tags(registry: Registry, model: Path, name: str, tmp_path: Path) -> None:
    publisher = publisher_at(registry, tmp_path)
    push_as(publisher, model, f"{name}:V1")
    push_as(publisher, make_model(model, "changed"), f"{name}:V1")
    assert push_as(publisher, model, f"{name}:v1").tag_change.statement.sequence == 1
    assert [statement.sequence for statement in registry.tag_chain(f"{name}:V1")] == [1, 2]


def test_an_interrupted_push_ends_at_once_with_status_130_and_is_taken_up(
    registry: Registry, name: str, shell: Shell, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", name, size=2 * limits.PART_BYTES)
    running = shell.start("push", model, name, "--limit-rate", "4M", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    opened = re.compile(rf"/v1/repos/{re.escape(name)}/uploads")
    deadline = time.monotonic() + 60
    while not any(opened.match(line["path"]) for line in registry.requests()):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.02)  # between two looks at the log; the deadline above decides
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert registry.releases(name) == []
    assert shell.run("push", model, name, "--json").json["minted"]
    assert max(registry.acknowledged_parts().values()) == 1
