# SPDX-License-Identifier: Apache-2.0
"""``pqreg trust log``: a log is believed by its fingerprint, or unseen if that is said; loosening is said, too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.trustfile import TrustFile
from pqreg_cli.main import run
from tests.fake_registry import FakeRegistry, serving
from tests.logsamples import ORIGIN, compose_policy, log_signers, witness_signers
from tests.samples import publisher

VKEYS = "".join(f"{signer.key}\n" for signer in log_signers()).encode()
FINGERPRINT = hashlib.sha256(VKEYS).hexdigest()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("alice.pqpub").write_bytes(publisher().identity.to_pem())
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub"]) == 0
    for number in (1, 2):
        keys = [str(signer.key) for signer in witness_signers(number)]
        Path(f"w{number}.vkey").write_text("\n".join(keys) + "\n")
        for part, key in zip(("classical", "pq"), keys, strict=True):
            Path(f"w{number}-{part}.vkey").write_text(key + "\n")
    with serving() as found:
        found.log_files["vkey"] = VKEYS
        monkeypatch.setenv("PQREG_REGISTRY", found.url)
        yield found


def trust() -> TrustFile:
    return TrustFile.parse(Path("trust.json").read_bytes())


def add(*words: str) -> int:
    return run(["trust", "log", "add", "trust.json", *words])


def texts() -> list[str]:
    log = trust().log
    assert isinstance(log, tuple)
    return [entry.policy.text for entry in log]


def only() -> LogPolicy:
    log = trust().log
    assert isinstance(log, tuple)
    (entry,) = log
    return entry


def test_by_the_fingerprint(registry: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("--from", registry.url, "--fingerprint", FINGERPRINT.upper()) == 0
    printed = capsys.readouterr()
    assert "receipts demanded, 1 log" in printed.out
    assert ORIGIN in printed.out
    assert "no independent witness" in printed.err
    assert "compare this fingerprint" not in printed.err
    assert trust().version == 2
    assert only().policy.origin == ORIGIN
    assert only().policy.log_url == f"{registry.url}/log"
    assert only().policy.attesting == frozenset()


def test_unseen_is_said(registry: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("--tofu") == 0
    assert FINGERPRINT in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], 2),
        (["--tofu", "--fingerprint", FINGERPRINT], 2),
        (["--fingerprint", "00" * 32], 1),
        (["--fingerprint", FINGERPRINT[:40]], 2),
        (["--tofu", "--witness", "w1"], 2),
        (["--tofu", "--witness", "w1=w1.vkey", "--witness", "w1=w2.vkey"], 2),
        (["--tofu", "--witness", "w1=trust.json"], 2),
        (["--tofu", "--witness", "log-pq=w1.vkey"], 1),
        (["--tofu", "--witness", "w1=w1.vkey", "--witness", "w2=w1.vkey"], 1),
        (["--tofu", "--witness", "w1=w1-classical.vkey"], 1),
        (["--tofu", "--witness", "w1=w1.vkey", "--quorum", "0"], 1),
        (["--tofu", "--witness", "w1=w1.vkey", "--quorum", "2"], 1),
        (["--tofu", "--quorum", "1"], 1),
        (["--tofu", "--not-after", "soon"], 2),
    ],
)
def test_refusals_leave_the_file_as_it_is(
    registry: FakeRegistry, capsys: pytest.CaptureFixture[str], words: list[str], status: int
) -> None:
    before = Path("trust.json").read_bytes()
    assert add(*words) == status
    assert Path("trust.json").read_bytes() == before
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "witnesses", "quorum"),
    [
        (["--witness", "w1=w1.vkey"], 1, 1),
        (["--witness", "w1=w1.vkey", "--witness", "w2=w2.vkey"], 2, 2),
        (["--witness", "w1=w1.vkey", "--witness", "w2=w2.vkey", "--quorum", "1"], 2, 1),
        (["--witness", "w1=w1-classical.vkey,w1-pq.vkey"], 1, 1),
    ],
)
def test_witnesses_and_quorum(registry: FakeRegistry, words: list[str], witnesses: int, quorum: int) -> None:
    assert add("--tofu", *words) == 0
    found, expected = only().policy, compose_policy(witnesses=witnesses, quorum=quorum)
    assert found.groups == expected.groups
    assert {name: item.key for name, item in found.witnesses.items()} == {
        name: item.key for name, item in expected.witnesses.items()
    }


@pytest.mark.parametrize(
    "text",
    [
        b"",
        VKEYS.splitlines()[0] + b"\n",
        VKEYS + VKEYS.splitlines()[0] + b"\n",
        VKEYS.replace(b"pqreg", b"other", 1),
        "".join(f"{signer.key}\n" for signer in witness_signers(1)).encode(),
        b"\xff\n",
    ],
    ids=["empty", "one", "three", "renamed", "a witness", "junk"],
)
def test_what_is_no_logs_keys(registry: FakeRegistry, text: bytes) -> None:
    registry.log_files["vkey"] = text
    assert add("--tofu") == 1
    assert trust().log == "exempt"


def test_a_rotation(registry: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("--tofu") == 0
    second = log_signers("second.example/log")
    registry.log_files["vkey"] = "".join(f"{signer.key}\n" for signer in second).encode()
    assert add("--tofu", "--not-before", "2027-03-31") == 0
    assert "under a policy or in a window that is new" in capsys.readouterr().err
    assert run(["trust", "log", "window", "trust.json", "1", "--not-after", "2027-03-31"]) == 0
    capsys.readouterr()
    assert run(["trust", "log", "list", "trust.json", "--json"]) == 0
    listed: Any = json.loads(capsys.readouterr().out)
    assert [(item["number"], item["origin"], item["not_before"], item["not_after"]) for item in listed["logs"]] == [
        (1, ORIGIN, None, "2027-03-31T00:00:00Z"),
        (2, "second.example/log", "2027-03-31T00:00:00Z", None),
    ]
    assert trust().version == 4
    assert run(["trust", "log", "window", "trust.json", "1", "--not-after", "none"]) == 0
    assert run(["trust", "log", "window", "trust.json", "1", "--not-after", "none"]) == 2
    assert run(["trust", "log", "window", "trust.json", "3", "--not-after", "none"]) == 2
    assert run(["trust", "log", "window", "trust.json", "1"]) == 2
    assert run(["trust", "log", "remove", "trust.json", "1"]) == 0
    assert [text.splitlines()[0].split("+")[0] for text in texts()] == ["log second.example/log"]


def test_witnesses_count_only_once_the_policy_without_them_ends(
    registry: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add("--tofu") == 0
    assert "still holds" not in capsys.readouterr().err
    assert add("--tofu", "--witness", "w1=w1.vkey") == 0
    assert "policy 1 still holds and asks for no witness" in capsys.readouterr().err
    assert run(["trust", "log", "window", "trust.json", "1", "--not-after", "2026-01-31"]) == 0
    assert "still holds" not in capsys.readouterr().err
    del registry


def test_the_last_one_goes_only_if_that_is_meant(registry: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("--tofu") == 0
    assert run(["trust", "log", "remove", "trust.json", "1"]) == 2
    capsys.readouterr()
    assert run(["trust", "log", "remove", "trust.json", "1", "--exempt"]) == 0
    assert "no receipt of a log is asked for any more" in capsys.readouterr().err
    assert trust().log == "exempt"
    assert run(["trust", "log", "list", "trust.json"]) == 0
    assert "exempt" in capsys.readouterr().out


def test_the_same_one_twice(registry: FakeRegistry) -> None:
    assert add("--tofu") == 0
    assert add("--tofu") == 2
    assert add("--tofu", "--not-after", "2030-01-01") == 0


def test_other_changes_of_a_trust_file_leave_its_logs(registry: FakeRegistry) -> None:
    assert add("--tofu", "--witness", "w1=w1.vkey") == 0
    before = trust().log
    Path("bob.pqpub").write_bytes(publisher("bob").identity.to_pem())
    assert run(["trust", "add", "trust.json", "--publisher", "acme=bob.pqpub"]) == 0
    assert trust().log == before
    assert run(["trust", "show", "trust.json"]) == 0
    assert run(["trust", "check", "trust.json"]) == 0
