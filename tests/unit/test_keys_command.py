# SPDX-License-Identifier: Apache-2.0
"""``pqreg key`` as a user meets it: through the command's own entry and its error boundary."""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.recipient import PublicRecipient
from pqreg_cli.main import run
from pqreg_keys import custody, keyfile
from pqreg_keys.keyfile import PassphraseCost
from pqreg_keys.passphrase import fixed


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id at a cost that is fit for tests only."""
    for function in (custody.store, custody.store_pair):
        monkeypatch.setattr(function, "__kwdefaults__", {"cost": PassphraseCost(64, 1, 1)})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def json_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_generate_without_a_passphrase(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["key", "generate", "alice", "--dir", "keys", "--no-passphrase"]) == 0
    secret, public = here / "keys" / "alice.pqkey", here / "keys" / "alice.pqpub"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    identity = PublicIdentity.from_pem(public.read_bytes())
    assert identity.profile == 5
    assert custody.load(secret).identity == identity
    captured = capsys.readouterr()
    assert identity.id in captured.out
    assert "not sealed" in captured.out
    assert "back up" in captured.err


def test_generate_with_a_passphrase_from_the_environment_or_a_file(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "p").write_bytes(b"from file\n")
    (here / "p").chmod(0o600)
    monkeypatch.setenv("PQREG_PASSPHRASE", "from environment")
    assert run(["key", "generate", "env", "--profile", "3", "--json"]) == 0
    answer = json_of(capsys)
    assert answer["sealed"] is True
    assert answer["profile"] == 3
    assert custody.load(here / "env.pqkey", fixed("from environment")).identity.id == answer["id"]
    assert run(["key", "generate", "file", "--passphrase-file", "p"]) == 0
    assert custody.load(here / "file.pqkey", fixed("from file")).identity.profile == 5


def test_without_terminal_and_passphrase_the_error_names_the_way_out(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert run(["key", "generate", "alice"]) == 2
    assert "--no-passphrase" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_contradicting_options_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["key", "generate", "alice", "--no-passphrase", "--passphrase-file", "p"]) == 2
    assert not list(here.iterdir())
    assert run(["key", "generate", "alice", "--no-passphrase", "--profile", "4"]) == 2
    assert run(["key", "generate", "a/b", "--no-passphrase"]) == 2
    assert not list(here.iterdir())


def test_nothing_is_overwritten_and_nobody_is_asked_in_vain(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "alice.pqpub").write_bytes(b"mine")
    assert run(["key", "generate", "alice", "--passphrase-file", "missing", "--json"]) == 1
    assert "/problems/already-exists" in capsys.readouterr().err
    assert {entry.name: entry.read_bytes() for entry in here.iterdir()} == {"alice.pqpub": b"mine"}


def test_show_tells_the_same_of_both_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["key", "generate", "alice", "--no-passphrase", "--profile", "3", "--json"])
    made = json_of(capsys)
    for name in ("alice.pqkey", "alice.pqpub"):
        assert run(["key", "show", name, "--json"]) == 0
        shown = json_of(capsys)
        assert shown == {key: made[key] for key in ("kind", "id", "profile", "halves")}
        assert shown["kind"] == "identity"
        assert shown["halves"]["pq"]["algorithm"] == "ML-DSA-65"
        assert run(["key", "show", name]) == 0
        assert made["id"] in capsys.readouterr().out


def test_show_of_a_sealed_file(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQREG_PASSPHRASE", "right")
    run(["key", "generate", "alice"])
    capsys.readouterr()
    assert run(["key", "show", "alice.pqkey"]) == 0
    monkeypatch.setenv("PQREG_PASSPHRASE", "wrong")
    assert run(["key", "show", "alice.pqkey", "--json"]) == 1
    captured = capsys.readouterr()
    assert "/problems/wrong-passphrase" in captured.err
    assert "wrong passphrase" in captured.err
    assert "right" not in captured.err.replace("if it is right", "")


def test_export_is_the_public_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["key", "generate", "alice", "--no-passphrase"])
    public = (here / "alice.pqpub").read_bytes()
    capsys.readouterr()
    assert run(["key", "export", "alice.pqkey"]) == 0
    assert capsys.readouterr().out.encode() == public
    assert run(["key", "export", "alice.pqkey", "--out", "copy.pqpub"]) == 0
    assert (here / "copy.pqpub").read_bytes() == public
    assert run(["key", "export", "alice.pqkey", "--out", "copy.pqpub"]) == 1
    capsys.readouterr()
    assert run(["key", "export", "alice.pqkey", "--json"]) == 0
    assert json_of(capsys)["public"].encode() == public


@pytest.mark.parametrize(("level", "algorithm"), [("5", "MLKEM1024-P384"), ("3", "MLKEM768-X25519")])
def test_a_recipient_is_made_shown_and_exported(
    here: Path, capsys: pytest.CaptureFixture[str], level: str, algorithm: str
) -> None:
    command = ["key", "generate", "node1", "--recipient", "--profile", level, "--no-passphrase"]
    assert run([*command, "--json"]) == 0
    made = json_of(capsys)
    assert (made["kind"], made["kem"]["algorithm"]) == ("recipient", algorithm)
    public = (here / "node1.pqpub").read_bytes()
    assert PublicRecipient.from_file(public).id == made["id"]
    assert stat.S_IMODE((here / "node1.pqkey").stat().st_mode) == 0o600
    assert custody.load_recipient(here / "node1.pqkey").public.id == made["id"]
    for name in ("node1.pqkey", "node1.pqpub"):
        assert run(["key", "show", name, "--json"]) == 0
        assert json_of(capsys) == {key: made[key] for key in ("kind", "id", "profile", "kem")}
    for more in ([], ["--recipient"]):
        assert run(["key", "export", "node1.pqkey", *more]) == 0
        assert capsys.readouterr().out.encode() == public
    assert run(["key", "generate", "node2", *command[3:]]) == 0
    assert "can unseal" in capsys.readouterr().out


def test_an_identity_exports_the_recipient_it_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["key", "generate", "alice", "--no-passphrase"])
    assert run(["key", "export", "alice.pqkey", "--recipient", "--out", "r.pqpub"]) == 0
    public = PublicRecipient.from_file((here / "r.pqpub").read_bytes())
    assert public == custody.load(here / "alice.pqkey").recipient.public
    assert public == custody.load_recipient(here / "alice.pqkey").public
    assert public.id in capsys.readouterr().out


def test_exposed_and_wrong_files_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["key", "generate", "alice", "--no-passphrase"])
    (here / "alice.pqkey").chmod(0o644)
    for command in ("show", "export"):
        assert run(["key", command, "alice.pqkey"]) == 1
        assert "chmod 600" in capsys.readouterr().err
    assert run(["key", "export", "alice.pqpub"]) == 1
    assert "not a secret key file" in capsys.readouterr().err
    assert run(["key", "show", "nowhere.pqpub"]) == 3


@pytest.mark.parametrize("command", [["key"], ["key", "generate"], ["key", "show"], ["key", "export"]])
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert len(command) == 1 or "pqreg key" in text.split("Examples:")[1]


# A session leader that opens a terminal gets it as its controlling one: that is where getpass asks.
ON_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
from pqreg_cli.main import main
main(sys.argv[1:])
"""


def on_a_terminal(arguments: list[str], answers: list[bytes]) -> tuple[int, bytes]:
    """Run ``pqreg`` on a pseudo-terminal, answering each prompt; the exit status and everything it showed."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", ON_TERMINAL, *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        shown, answered = b"", 0
        while select.select([ours], [], [], 60)[0]:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the last one at the other end has closed it
                break
            shown += piece
            while answered < len(answers) and shown.count(b"passphrase: ") + shown.count(b"again: ") > answered:
                os.write(ours, answers[answered] + b"\n")
                answered += 1
    os.close(ours)
    return process.returncode, shown


def test_on_a_terminal_it_asks_twice_and_does_not_echo(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(root / part) for part in ("", "cli", "keys")))
    status, shown = on_a_terminal(["key", "generate", "alice"], [b"typed secret", b"typed secret"])
    assert status == 0, shown
    assert b"typed secret" not in shown
    assert (here / "alice.pqkey").read_bytes()[21] == 1
    assert keyfile.DEFAULT_COST.memory_kib.to_bytes(4, "big") == (here / "alice.pqkey").read_bytes()[54:58]
    assert custody.load(here / "alice.pqkey", fixed("typed secret")).identity.profile == 5
    status, shown = on_a_terminal(["key", "generate", "bob"], [b"one", b"two"])
    assert status == 2
    assert b"differ" in shown
    assert not (here / "bob.pqkey").exists()
