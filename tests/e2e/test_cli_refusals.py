# SPDX-License-Identifier: Apache-2.0
"""What the commands refuse: the exit status, the error's class in the JSON problem, a hint, and never a traceback.

The registry is a real one; the commands run in this process, because there are many of them.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pqreg_cli.main import run
from tests.e2e.shell import Ended
from tests.e2e.story import REFERENCE, Story, told


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with told(tmp_path_factory.mktemp("story")) as made:
        yield made


class Prompt:
    """Alice's shell, without the cost of a process per command."""

    def __init__(self, story: Story, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(story.root)
        self.export(HOME=str(story.shell.home))
        self.export(**{name: value for name, value in story.shell.environment.items() if name.startswith("PQREG_")})

    def export(self, **settings: str | None) -> None:
        for name, value in settings.items():
            if value is None:
                self._monkeypatch.delenv(name, raising=False)
            else:
                self._monkeypatch.setenv(name, value)

    def run(self, *words: str | Path, expect: int | None = 0) -> Ended:
        self._capsys.readouterr()
        status = run([str(word) for word in words])
        printed = self._capsys.readouterr()
        ended = Ended(tuple(map(str, words)), status, printed.out, printed.err)
        ended.check_presentable()
        assert expect is None or ended.status == expect, ended
        return ended


@pytest.fixture
def prompt(story: Story, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prompt:
    return Prompt(story, monkeypatch, capsys)


def test_one_changed_byte_is_exit_1_at_step_8(story: Story, prompt: Prompt) -> None:
    changed = story.root / "changed"
    shutil.copytree(story.root / "out", changed)
    with (changed / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    problem = prompt.run("verify", "changed", "--json", expect=1).problem
    assert problem["type"] == "/problems/shard-mismatch"
    assert problem["step"] == 8
    assert problem["exit"] == 1
    text = prompt.run("verify", "changed", expect=1).err
    assert "model.safetensors" in text
    assert re.search(r"^  next: ", text, re.MULTILINE)


def test_a_missing_half_is_exit_1_at_step_2(story: Story, prompt: Prompt) -> None:
    stripped = story.root / "stripped"
    shutil.copytree(story.root / "out", stripped)
    (stripped / "model.pq.sig").unlink()
    problem = prompt.run("verify", "stripped", "--json", expect=1).problem
    assert problem["step"] == 2
    assert problem["type"] == "/problems/signature-invalid"


def test_another_name_is_exit_1_at_step_6(prompt: Prompt) -> None:
    problem = prompt.run("verify", "out", "--expect", "acme/other", "--json", expect=1).problem
    assert problem["type"] == "/problems/name-mismatch"


def test_without_trust_everything_is_refused_with_a_hint(story: Story, prompt: Prompt) -> None:
    prompt.export(PQREG_TRUST=None)
    for words in (["pull", REFERENCE, "blind-out"], ["verify", "out"], ["show", REFERENCE], ["verify", REFERENCE]):
        ended = prompt.run(*words, expect=1)
        assert "pqreg trust init" in ended.err, ended
    assert not (story.root / "blind-out" / "config.json").exists()


def test_a_stranger_signs_in_vain(prompt: Prompt) -> None:
    prompt.run("key", "generate", "mallory", "--dir", "mallory", "--no-passphrase")
    prompt.run("push", "model", "acme/minilm:evil", "--key", "mallory/mallory.pqkey")
    problem = prompt.run("pull", "acme/minilm:evil", "evil", "--json", expect=1).problem
    assert problem["step"] == 2


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["show", "acme/minilm:nothing"], 3),
        (["ls", "acme/nothing"], 3),
        (["pull", "acme/minilm@sha256:" + "0" * 64, "nothing"], 3),
        (["pull", REFERENCE], 2),
        (["pull", "not a reference", "x"], 2),
        (["ls", REFERENCE], 2),
        (["ls", "--limit", "0"], 2),
        (["verify", "no-such-directory"], 2),
        (["verify", "out", "--expect", "acme"], 2),
        (["push", "no-such-directory", REFERENCE, "--key", "keys/alice.pqkey"], 2),
        (["push", "model", "acme/minilm:" + "a" * 40, "--key", "keys/alice.pqkey"], 2),
        (["pull", REFERENCE, "x", "--connections", "0"], 2),
        (["pull", REFERENCE, "x", "--limit-rate", "fast"], 2),
        (["pull", REFERENCE, "out/config.json/x"], 3),
        (["login", "ftp://example.org", "--token", "x"], 2),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else str(value),
)
def test_exit_status(prompt: Prompt, words: list[str], status: int) -> None:
    ended = prompt.run(*words, expect=None)
    assert ended.status == status, ended
    assert ended.err.startswith("error: ")
    problem = prompt.run(*words, "--json", expect=status).problem
    assert problem["exit"] == status
    assert problem["detail"]


def test_a_registry_that_is_not_there_is_exit_3(prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BACKOFF_SECONDS", 0.001)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        prompt.export(PQREG_REGISTRY=f"http://127.0.0.1:{unused.getsockname()[1]}")
    for words in (["ls"], ["pull", REFERENCE, "lost-out"], ["whoami"]):
        assert prompt.run(*words, "--json", expect=3).problem["type"] == "/problems/connection-failed"


def test_wrong_and_missing_tokens_are_exit_3_and_are_not_shown(prompt: Prompt) -> None:
    prompt.export(PQREG_TOKEN="canary-0123456789-token")
    ended = prompt.run("ls", "--json", expect=3)
    assert ended.problem["type"] == "/problems/not-authenticated"
    assert "canary" not in ended.err
    prompt.export(PQREG_TOKEN=None)
    assert prompt.run("ls", expect=3).err.startswith("error: ")


@pytest.mark.parametrize(("typed", "status"), [("wrong\n", 3), ("", 2), ("two words\n", 2), ("\x00\n", 2)])
def test_a_wrong_token_is_not_kept(
    story: Story, prompt: Prompt, typed: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    prompt.export(PQREG_TOKEN=None, XDG_CONFIG_HOME=str(tmp_path))
    prompt.run("login", story.url, expect=status)
    assert not (tmp_path / "pqreg").exists()


def test_pushing_a_pickle_is_refused_unless_allowed(story: Story, prompt: Prompt) -> None:
    unsafe = story.root / "unsafe"
    shutil.copytree(story.root / "model", unsafe)
    (unsafe / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    words = ["push", "unsafe", "acme/unsafe:v1", "--key", "keys/alice.pqkey"]
    assert prompt.run(*words, "--json", expect=1).problem["type"] == "/problems/unsafe-file-type"
    prompt.run(*words, "--allow-unsafe")


JUNK = [b"", b"\x00" * 64, b"{}", b"[" * 5000, b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\n", b'{"a":1,"a":2}']


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize("name", ["pqreg.json", "model.sig", "model.pq.sig"])
def test_f8_junk_evidence_is_refused_without_a_traceback(
    story: Story, prompt: Prompt, junk: bytes, name: str, tmp_path: Path
) -> None:
    directory = tmp_path / "junk"
    shutil.copytree(story.root / "out", directory)
    (directory / name).write_bytes(junk)
    ended = prompt.run("verify", directory, expect=1)
    assert ended.err.startswith("error: ") or "\nerror: " in ended.err


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_f8_junk_files_are_refused_without_a_traceback(prompt: Prompt, junk: bytes, tmp_path: Path) -> None:
    file = tmp_path / "junk"
    file.write_bytes(junk)
    file.chmod(0o600)
    lines: tuple[list[str | Path], ...] = (
        ["verify", "out", "--trust", file],
        ["key", "show", file],
        ["push", "model", "acme/junk:v1", "--key", file],
        ["trust", "check", file],
    )
    for words in lines:
        ended = prompt.run(*words, expect=None)
        assert ended.status in (1, 2), ended
    prompt.export(PQREG_CONFIG=str(file))
    assert prompt.run("whoami", expect=None).status in (0, 2)
