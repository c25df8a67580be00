# SPDX-License-Identifier: Apache-2.0
"""The command line others script against, as they would: real processes, a real registry, exit statuses and JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.shell import Shell
from tests.e2e.story import REFERENCE, Story, files_below, told


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with told(tmp_path_factory.mktemp("story")) as made:
        yield made


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


def test_an_interrupted_pull_says_how_to_go_on_and_goes_on(story: Story) -> None:
    person = story.person("hasty")
    size = person.run("show", REFERENCE, "--json").json["size"]
    process = person.start("pull", REFERENCE, "hasty", "--limit-rate", str(size // 4), stderr=subprocess.PIPE)
    staged = story.root / "hasty" / ".pqreg" / "incoming"
    deadline = time.monotonic() + 60
    while not (staged.is_dir() and sum(path.stat().st_blocks for path in staged.iterdir()) * 512 > 2 << 20):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # between two looks; the deadline decides
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "continue" in errors
    assert "Traceback" not in errors
    assert not (story.root / "hasty" / "model.safetensors").exists()
    report = person.run("pull", REFERENCE, "hasty", "--json").json
    assert 0 < report["fetched"] < size


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
