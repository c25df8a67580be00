# SPDX-License-Identifier: Apache-2.0
"""The command line others script against, as they would: real processes, a real registry, exit statuses and JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.shell import Shell
from tests.tensors import safetensors_bytes

REFERENCE = "acme/minilm:v1"


@dataclass
class Story:
    """A registry that runs, a publisher's shell, and a directory with what was pushed and pulled."""

    root: Path
    shell: Shell
    url: str
    token: str
    log: Path

    def person(self, name: str, **settings: str) -> Shell:
        """Somebody else, who has the registry's URL, the token and the trust file unless told otherwise."""
        base = {"PQREG_REGISTRY": self.url, "PQREG_TOKEN": self.token, "PQREG_TRUST": str(self.root / "trust.json")}
        return Shell(self.root, name, **{**base, **settings})


def make_model(directory: Path) -> None:
    (directory / "1_Pooling").mkdir(parents=True)
    (directory / "config.json").write_text('{"hidden_size": 8}\n')
    (directory / "1_Pooling" / "config.json").write_text("{}\n")
    (directory / "README.md").write_text("A model for tests.\n")
    (directory / "empty.txt").write_bytes(b"")
    weights, _ = safetensors_bytes({"weight": ("F32", (1280, 1024)), "bias": ("BF16", (1280,))}, seed=2)
    (directory / "model.safetensors").write_bytes(weights)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The scripted command lines, once: everything up to the pull."""
    root = tmp_path_factory.mktemp("story")
    make_model(root / "model")
    shell = Shell(root, "alice")
    shell.run("key", "generate", "alice", "--dir", "keys", "--no-passphrase")
    shell.run("trust", "init", "trust.json", "--publisher", "acme=keys/alice.pqpub")
    with shell.serving("data") as (url, log):
        token = (root / "data" / "admin.token").read_text().strip()
        shell.export(PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_TRUST="trust.json")
        shell.run("push", "model", REFERENCE, "--key", "keys/alice.pqkey")
        shell.run("pull", REFERENCE, "out")
        yield Story(root, shell, url, token, log)


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".pqreg" not in path.parts
    }


def test_keys_are_made_private(story: Story) -> None:
    assert (story.root / "keys" / "alice.pqkey").stat().st_mode & 0o777 == 0o600
    assert (story.root / "keys" / "alice.pqpub").read_text().startswith("-----BEGIN PUBLIC KEY-----")


def test_the_admin_token_is_private_and_printed_once(story: Story) -> None:
    assert (story.root / "data" / "admin.token").stat().st_mode & 0o777 == 0o600
    assert story.log.read_text().count(story.token) <= 1


def test_what_was_pulled_is_what_was_pushed(story: Story) -> None:
    pulled, pushed = files_below(story.root / "out"), files_below(story.root / "model")
    assert {name: pulled[name] for name in pushed} == pushed
    assert set(pulled) - set(pushed) == {"pqreg.json", "model.sig", "model.pq.sig"}


def test_verify_says_what_it_verified(story: Story) -> None:
    ended = story.shell.run("verify", "out")
    assert "acme/minilm@sha256:" in ended.out
    offline = story.person("offline", PQREG_REGISTRY="http://127.0.0.1:9", PQREG_TOKEN="none")
    report = offline.run("verify", "out", "--expect", "acme/minilm", "--json").json
    assert report["name"] == "acme/minilm"
    assert report["verified"] is True
    offline.run("verify", "out", "--expect", f"acme/minilm@{report['digest']}")
    assert any("transparency log" in note for note in report["notes"])


def test_show_json(story: Story) -> None:
    shown = story.shell.run("show", REFERENCE, "--json").json
    assert shown["name"] == "acme/minilm"
    assert shown["tag"]["sequence"] == 1
    assert {entry["path"] for entry in shown["files"]} == set(files_below(story.root / "model"))
    by_digest = story.shell.run("show", f"acme/minilm@{shown['digest']}", "--json").json
    assert by_digest["tag"] is None
    assert by_digest["digest"] == shown["digest"]


def test_listings(story: Story) -> None:
    assert story.shell.run("ls", "--json").json["repositories"][0]["name"] == "acme/minilm"
    assert story.shell.run("ls", "acme", "--json").json["repositories"][0]["releases"] >= 1
    assert story.shell.run("ls", "nobody", "--json").json["repositories"] == []
    view = story.shell.run("ls", "acme/minilm", "--json").json
    assert "v1" in {tag["tag"] for tag in view["tags"]}
    assert len(view["releases"]) >= 1
    assert "acme/minilm" in story.shell.run("ls").out


def test_a_remote_release_is_verified_without_its_weights(story: Story) -> None:
    report = story.shell.run("verify", REFERENCE, "--json").json
    assert report["name"] == "acme/minilm"
    assert report["content_verified"] is False


def test_whoami_version_and_trust(story: Story) -> None:
    assert story.shell.run("whoami", "--json").json["role"] == "admin"
    assert story.shell.run("version", "--json").json["pq-registry"]
    assert story.shell.run("trust", "check", "trust.json", "--json").json["usable"] is True
    assert story.shell.run("key", "show", "keys/alice.pqpub", "--json").json["profile"] == 5


def test_pushing_the_same_again_sends_nothing_and_renews_the_tag(story: Story) -> None:
    before = story.shell.run("show", "acme/minilm:v1", "--json").json["digest"]
    ended = story.shell.run("push", "model", "acme/minilm:again", "--key", "keys/alice.pqkey", "--json")
    assert story.shell.run("show", "acme/minilm:again", "--json").json["digest"] == before
    assert isinstance(ended.json, dict)


def test_pulling_again_fetches_nothing(story: Story) -> None:
    report = story.shell.run("pull", REFERENCE, "out", "--json").json
    assert report["fetched"] == 0
    assert report["digest"]


def test_tags_move_and_are_withdrawn(story: Story) -> None:
    digest = story.shell.run("show", REFERENCE, "--json").json["digest"]
    story.shell.run("tag", "acme/minilm:stable", digest, "--key", "keys/alice.pqkey")
    assert story.shell.run("show", "acme/minilm:stable", "--json").json["digest"] == digest
    story.shell.run("rm", "acme/minilm:stable", "--key", "keys/alice.pqkey")
    problem = story.shell.run("show", "acme/minilm:stable", "--json", expect=1).problem
    assert problem["type"] == "/problems/tag-withdrawn"
    assert problem["step"] == 1


def test_the_hugging_face_cache(story: Story) -> None:
    node = story.person("node", HF_HUB_CACHE=str(story.root / "hf"))
    node.run("pull", REFERENCE, "--hf-cache")
    (snapshot,) = (story.root / "hf" / "models--acme--minilm" / "snapshots").iterdir()
    assert (snapshot / "config.json").read_bytes() == (story.root / "model" / "config.json").read_bytes()
    node.run("verify", snapshot, "--expect", "acme/minilm")
    node.run("pull", REFERENCE, story.root / "hf2", "--hf-cache")
    assert (story.root / "hf2" / "models--acme--minilm").is_dir()


def test_one_changed_byte_is_exit_1_at_step_8(story: Story) -> None:
    changed = story.root / "changed"
    shutil.copytree(story.root / "out", changed)
    with (changed / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    problem = story.shell.run("verify", "changed", "--json", expect=1).problem
    assert problem["type"] == "/problems/shard-mismatch"
    assert problem["step"] == 8
    assert problem["exit"] == 1
    text = story.shell.run("verify", "changed", expect=1).err
    assert "model.safetensors" in text
    assert re.search(r"^  next: ", text, re.MULTILINE)


def test_a_missing_half_is_exit_1_at_step_2(story: Story) -> None:
    stripped = story.root / "stripped"
    shutil.copytree(story.root / "out", stripped)
    (stripped / "model.pq.sig").unlink()
    problem = story.shell.run("verify", "stripped", "--json", expect=1).problem
    assert problem["step"] == 2
    assert problem["type"] == "/problems/signature-invalid"


def test_another_name_is_exit_1_at_step_6(story: Story) -> None:
    problem = story.shell.run("verify", "out", "--expect", "acme/other", "--json", expect=1).problem
    assert problem["type"] == "/problems/name-mismatch"


def test_without_trust_everything_is_refused_with_a_hint(story: Story) -> None:
    blind = story.person("blind")
    blind.export(PQREG_TRUST=None)
    for words in (["pull", REFERENCE, "blind-out"], ["verify", "out"], ["show", REFERENCE], ["verify", REFERENCE]):
        ended = blind.run(*words, expect=1)
        assert "pqreg trust init" in ended.err, ended
    assert not (story.root / "blind-out" / "config.json").exists()


def test_a_stranger_signs_in_vain(story: Story) -> None:
    mallory = story.person("mallory")
    mallory.run("key", "generate", "mallory", "--dir", "mallory", "--no-passphrase")
    mallory.run("push", "model", "acme/minilm:evil", "--key", "mallory/mallory.pqkey")
    problem = story.shell.run("pull", "acme/minilm:evil", "evil", "--json", expect=1).problem
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
def test_exit_status(story: Story, words: list[str], status: int) -> None:
    ended = story.shell.run(*words, expect=None)
    assert ended.status == status, ended
    assert ended.err.startswith("error: ")
    problem = story.shell.run(*words, "--json", expect=status).problem
    assert problem["exit"] == status
    assert problem["detail"]


def test_a_registry_that_is_not_there_is_exit_3(story: Story) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    lost = story.person("lost", PQREG_REGISTRY=url)
    for words in (["ls"], ["pull", REFERENCE, "lost-out"], ["whoami"]):
        assert lost.run(*words, "--json", expect=3).problem["type"] == "/problems/connection-failed"


def test_wrong_and_missing_tokens_are_exit_3_and_are_not_shown(story: Story) -> None:
    stranger = story.person("stranger", PQREG_TOKEN="canary-0123456789-token")
    ended = stranger.run("ls", "--json", expect=3)
    assert ended.problem["type"] == "/problems/not-authenticated"
    assert "canary" not in ended.err
    stranger.export(PQREG_TOKEN=None)
    assert stranger.run("ls", expect=3).err.startswith("error: ")


def test_login_keeps_registry_and_token_privately(story: Story) -> None:
    newcomer = Shell(story.root, "newcomer")
    assert newcomer.run("whoami", expect=2).err.startswith("error: no registry is configured")
    ended = newcomer.run("login", story.url, "--trust", "trust.json", stdin=story.token + "\n")
    assert story.token not in ended.out + ended.err
    config = newcomer.home / ".config" / "pqreg" / "config.toml"
    assert config.stat().st_mode & 0o777 == 0o600
    assert newcomer.run("whoami", "--json").json["role"] == "admin"
    newcomer.run("pull", REFERENCE, "newcomer-out")
    newcomer.run("logout")
    assert story.token not in config.read_text()
    newcomer.run("whoami", expect=2)


def test_a_wrong_token_is_not_kept(story: Story) -> None:
    newcomer = Shell(story.root, "newcomer2")
    newcomer.run("login", story.url, stdin="wrong\n", expect=3)
    newcomer.run("login", story.url, stdin="", expect=2)
    assert not (newcomer.home / ".config" / "pqreg" / "config.toml").exists()


def test_tokens_are_made_and_end(story: Story) -> None:
    words = ["token", "create", "--role", "reader", "--namespace", "acme", "--days", "1", "--json"]
    made = story.shell.run(*words).json
    reader = story.person("reader", PQREG_TOKEN=made["token"])
    assert reader.run("whoami", "--json").json["role"] == "reader"
    refused = reader.run("push", "model", "acme/minilm:reader", "--key", "keys/alice.pqkey", "--json", expect=None)
    assert refused.status == 3
    assert refused.problem["type"] == "/problems/access-denied"
    story.shell.run("token", "revoke", made["id"])
    reader.run("whoami", expect=3)


def test_fsck_is_content(story: Story) -> None:
    story.shell.run("fsck", "--data", "data")


def test_pushing_a_pickle_is_refused_unless_allowed(story: Story) -> None:
    unsafe = story.root / "unsafe"
    shutil.copytree(story.root / "model", unsafe)
    (unsafe / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    words = ["push", "unsafe", "acme/unsafe:v1", "--key", "keys/alice.pqkey"]
    assert story.shell.run(*words, "--json", expect=1).problem["type"] == "/problems/unsafe-file-type"
    story.shell.run(*words, "--allow-unsafe")


JUNK = [b"", b"\x00" * 64, b"{}", b"[" * 5000, b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\n", b'{"a":1,"a":2}']


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize("name", ["pqreg.json", "model.sig", "model.pq.sig"])
def test_f8_junk_evidence_is_refused_without_a_traceback(story: Story, junk: bytes, name: str, tmp_path: Path) -> None:
    directory = tmp_path / "junk"
    shutil.copytree(story.root / "out", directory)
    (directory / name).write_bytes(junk)
    ended = story.shell.run("verify", directory, expect=1)
    assert ended.err.startswith("error: ") or "\nerror: " in ended.err


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_f8_junk_files_are_refused_without_a_traceback(story: Story, junk: bytes, tmp_path: Path) -> None:
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
        ended = story.shell.run(*words, expect=None)
        assert ended.status in (1, 2), ended
    config = {"PQREG_CONFIG": str(file)}
    assert story.person("junk", **config).run("whoami", expect=None).status in (0, 2)


def test_output_in_a_pipe_is_plain_even_without_no_color(story: Story) -> None:
    assert "NO_COLOR" not in story.shell.environment
    ended = story.shell.run("verify", "out")  # Shell.run looks for escape sequences
    assert ended.out


def on_a_terminal(shell: Shell, *words: str) -> str:
    """Run with a terminal as standard output and error; answers everything it wrote."""
    main_end, other_end = pty.openpty()
    try:
        process = shell.start(*words, stdout=other_end, stderr=other_end, stdin=subprocess.DEVNULL)
    finally:
        os.close(other_end)
    written = bytearray()
    with open(main_end, "rb", buffering=0) as terminal:
        try:
            while data := terminal.read(65536):
                written += data
        except OSError:
            pass  # EIO: the other end is closed
    assert process.wait(60) == 0, written
    return written.decode()


def test_a_terminal_gets_colours_and_bars_unless_no_color_is_set(story: Story) -> None:
    person = story.person("terminal", TERM="xterm-256color")
    colourful = on_a_terminal(person, "pull", REFERENCE, "terminal-1")
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", colourful)
    assert "100%" in colourful or "MB" in colourful
    person.export(NO_COLOR="1")
    plain = on_a_terminal(person, "pull", REFERENCE, "terminal-2")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain)


def test_progress_in_a_log_is_lines_and_json_has_none(story: Story) -> None:
    person = story.person("log")
    assert "\r" not in person.run("pull", REFERENCE, "log-1").err
    assert person.run("pull", REFERENCE, "log-2", "--json").err == ""
    assert person.run("pull", REFERENCE, "log-3", "--quiet").err == ""


def test_nothing_shows_a_secret(story: Story) -> None:
    secret = (story.root / "keys" / "alice.pqkey").read_bytes()
    for words in (
        ["show", REFERENCE],
        ["ls", "acme/minilm"],
        ["whoami"],
        ["token", "list"],
        ["pull", REFERENCE, "out"],
    ):
        ended = story.shell.run(*words, "--debug")
        assert story.token not in ended.out + ended.err
        assert secret.hex() not in ended.out + ended.err
    assert story.token not in json.dumps(story.shell.run("token", "list", "--json").json)
