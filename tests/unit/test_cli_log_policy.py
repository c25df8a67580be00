# SPDX-License-Identifier: Apache-2.0
"""``pqreg log keygen`` and ``log policy``: what is written, what is never overwritten, what a service starts with."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pq_registry.format.tlogpolicy import Policy
from pqreg_cli.main import main


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    assert run("log", "keygen", "--data", tmp_path / "data", "--origin", "log.example/one") == 0
    assert run("witness", "keygen", "--state", tmp_path / "w", "--name", "w.example/1") == 0
    return tmp_path


def test_the_keys_are_private_and_stay(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = keys / "data" / "log.key"
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert before not in (keys / "data" / "log.vkey").read_bytes()
    assert run("log", "keygen", "--data", keys / "data", "--origin", "log.example/two") == 1
    assert path.read_bytes() == before
    (keys / "old" / "log").mkdir(parents=True)
    assert run("log", "keygen", "--data", keys / "old", "--origin", "log.example/two") == 1
    assert not (keys / "old" / "log.key").exists()
    assert run("log", "keygen", "--data", keys / "new", "--origin", "a name with spaces") == 2
    assert "PRIVATE" not in "".join(capsys.readouterr())


def test_a_policy_asks_the_log_and_its_witness(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    words = ["log", "policy", "--vkey", keys / "data" / "log.vkey"]
    witness = f"first=http://127.0.0.1:1,{keys / 'w' / 'witness.vkey'}"
    assert run(*words, "--witness", witness) == 0
    policy = Policy.parse(capsys.readouterr().out)
    assert policy.origin == "log.example/one"
    assert {witness.url for witness in policy.witnesses.values()} == {None, "http://127.0.0.1:1"}
    assert not policy.satisfied({"log-pq"})
    assert run(*words, "--witness", witness, "--json") == 0
    assert json.loads(capsys.readouterr().out)["policy"] == policy.text


@pytest.mark.parametrize(
    "value", ["first", "first=http://127.0.0.1:1", "first=w/witness.vkey", "=http://127.0.0.1:1,x", "first=ftp://x,y"]
)
def test_what_is_no_witness_is_refused(keys: Path, value: str) -> None:
    assert run("log", "policy", "--vkey", keys / "data" / "log.vkey", "--witness", value) == 2


def test_a_quorum_of_more_than_there_are_is_refused(keys: Path) -> None:
    witness = f"first=http://127.0.0.1:1,{keys / 'w' / 'witness.vkey'}"
    words = ("log", "policy", "--vkey", keys / "data" / "log.vkey", "--witness", witness)
    assert run(*words, "--quorum", "2") == 1
    assert run(*words, "--witness", witness) == 2
