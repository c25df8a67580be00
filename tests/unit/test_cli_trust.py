# SPDX-License-Identifier: Apache-2.0
"""``pqreg trust``: what it writes is what a client believes, and nothing is weakened or overwritten by accident."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pq_registry.client import trustedit
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.suites import profile_of
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace
from pq_registry.format.trustfile import TrustFile
from pqreg_cli.main import run
from pqreg_keys import custody

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PIN = "sha256:" + "ab" * 32


@functools.cache
def identity(name: str) -> PublicIdentity:
    return custody.generate(profile_of(3 if name == "old" else 5)).identity


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob", "old"):
        Path(f"{name}.pqpub").write_bytes(identity(name).to_pem())
    return tmp_path


def trust() -> TrustFile:
    return TrustFile.parse(Path("trust.json").read_bytes())


def test_init_then_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub", "--expires-days", "90"]) == 0
    printed = capsys.readouterr()
    assert identity("alice").id in printed.out
    assert "revocation is not checked" in printed.err
    written = trust()
    assert written.version == 1
    assert written.expires - written.created == timedelta(days=90)
    assert written.namespaces["acme"].publishers == (identity("alice").id,)
    assert written.namespaces["acme"].min_profile == 5
    assert run(["trust", "check", "trust.json"]) == 0
    assert "usable until" in capsys.readouterr().out


def test_several_publishers_and_roles(folder: Path) -> None:
    words = ["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub", "--publisher", "lab=bob.pqpub"]
    assert run([*words, "--revoker", "acme=bob.pqpub", "--enrolment", "acme=alice.pqpub"]) == 0
    acme = trust().namespaces["acme"]
    assert acme.publishers == (identity("alice").id,)
    assert acme.revokers == (identity("bob").id,)
    assert acme.enrolment == (identity("alice").id,)
    assert trust().namespaces["lab"].publishers == (identity("bob").id,)


def test_init_never_overwrites(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("trust.json").write_text("mine")
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub"]) == 1
    assert Path("trust.json").read_text() == "mine"
    assert "trust.json exists" in capsys.readouterr().err


def test_add_counts_the_version_up_and_keeps_what_is_there(folder: Path) -> None:
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub"]) == 0
    before = trust()
    assert run(["trust", "add", "trust.json", "--publisher", "acme=bob.pqpub", "--not-before", "2027-01-31"]) == 0
    assert run(["trust", "add", "trust.json", "--pin", f"ACME={PIN}", "--revoker", "acme=bob.pqpub"]) == 0
    after = trust()
    assert after.version == 3
    assert after.expires == before.expires
    acme = after.namespaces["acme"]
    assert set(acme.publishers) == {identity("alice").id, identity("bob").id}
    assert acme.pinned == {Digest.parse(PIN)}
    assert {known.id: known.not_before for known in acme.identities} == {
        identity("alice").id: None, identity("bob").id: datetime(2027, 1, 31, tzinfo=UTC)}  # fmt: skip


def test_add_changes_the_window_of_a_publisher(folder: Path) -> None:
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub"]) == 0
    assert run(["trust", "add", "trust.json", "--publisher", "acme=alice.pqpub", "--not-after",
                "2027-01-31T12:00:00Z"]) == 0  # fmt: skip
    (entry,) = trust().namespaces["acme"].identities
    assert entry.not_after == datetime(2027, 1, 31, 12, tzinfo=UTC)


def test_add_keeps_the_window_that_is_not_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["trust", "add", "trust.json", "--publisher", "acme=alice.pqpub"]
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub"]) == 0
    assert run([*again, "--not-before", "2027-01-01", "--not-after", "2027-01-31"]) == 0
    assert "was" not in capsys.readouterr().err
    start, end = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 31, tzinfo=UTC)

    def window() -> tuple[datetime | None, datetime | None]:
        (entry,) = trust().namespaces["acme"].identities
        return entry.not_before, entry.not_after

    assert run(again) == 2  # nothing would change; in particular no bound is dropped
    assert run([*again, "--min-profile", "3"]) == 0
    assert "acme: the lowest accepted profile is now 3; it was 5" in capsys.readouterr().err
    assert window() == (start, end)
    assert run([*again, "--not-after", "2027-01-30"]) == 0
    assert "the validity window" not in capsys.readouterr().err
    assert run([*again, "--not-after", "2027-02-28"]) == 0
    assert "it was 2027-01-01T00:00:00Z to 2027-01-30T00:00:00Z" in capsys.readouterr().err
    assert run([*again, "--not-after", "none"]) == 0
    assert window() == (start, None)
    assert "is now 2027-01-01T00:00:00Z to any time" in capsys.readouterr().err
    assert run([*again, "--not-before", "none"]) == 0
    assert window() == (None, None)


def test_add_with_expiry_renews(folder: Path) -> None:
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub", "--expires-days", "1"]) == 0
    assert run(["trust", "add", "trust.json", "--expires-days", "30"]) == 0
    assert trust().expires - trust().created == timedelta(days=30)


@pytest.mark.parametrize(
    "words",
    [
        ["add", "trust.json"],
        ["add", "trust.json", "--not-after", "2027-01-31"],
        ["add", "trust.json", "--publisher", "acme=alice.pqpub"],
        ["add", "trust.json", "--publisher", "acme=alice.pqpub", "--not-after", "31.1.2027"],
        ["add", "trust.json", "--publisher", "acme=old.pqpub"],
        ["add", "trust.json", "--publisher", "acme"],
        ["add", "trust.json", "--publisher", "a..b=bob.pqpub"],
        ["add", "trust.json", "--publisher", "acme=missing.pqpub"],
        ["add", "trust.json", "--publisher", "acme=trust.json"],
        ["add", "trust.json", "--pin", "lab=" + PIN],
        ["add", "trust.json", "--pin", "acme=sha256:00"],
        ["add", "trust.json", "--revoker", "lab=bob.pqpub"],
        ["add", "trust.json", "--expires-days", "0"],
        ["add", "trust.json", "--expires-days", "99999999999"],
        ["init", "new.json", "--publisher", "acme=alice.pqpub", "--min-profile", "4"],
        ["init", "new.json", "--publisher", "acme=old.pqpub"],
        ["init", "missing/new.json", "--publisher", "acme=alice.pqpub"],
        ["init", "new.json"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_usage_errors_and_change_nothing(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub"]) == 0
    before = Path("trust.json").read_bytes()
    capsys.readouterr()
    assert run(["trust", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert Path("trust.json").read_bytes() == before
    assert not Path("new.json").exists()


def test_level_3_is_accepted_when_it_is_asked_for(folder: Path) -> None:
    assert run(["trust", "init", "trust.json", "--publisher", "acme=old.pqpub", "--min-profile", "3"]) == 0
    assert trust().namespaces["acme"].min_profile == 3


def test_json_is_the_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(Path("trust.json").read_bytes())
    assert run(["trust", "show", "trust.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert run(["trust", "check", "trust.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] is True


def test_check_refuses_an_expired_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expired = trustedit.add_publisher(
        trustedit.new_trust(now=NOW - timedelta(days=400), lifetime=timedelta(days=1)), Namespace("acme"),
        identity("alice"),
    )  # fmt: skip
    Path("trust.json").write_bytes(expired.encode())
    assert run(["trust", "check", "trust.json", "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["type"] == "/problems/trust-expired"
    assert run(["trust", "add", "trust.json", "--publisher", "lab=bob.pqpub"]) == 2
    assert "--expires-days" in capsys.readouterr().err


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff", b"[" * 9999, b'{"a":1,"a":2}', b"null", b"\x00" * 100])
@pytest.mark.parametrize("command", ["show", "check"])
def test_f8_junk_is_refused_without_a_traceback(
    folder: Path, junk: bytes, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("junk.json").write_bytes(junk)
    assert run(["trust", command, "junk.json"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: junk.json: ")
    assert "this should not have happened" not in text


def test_check_finds_a_key_whose_id_is_another(folder: Path) -> None:
    assert run(["trust", "init", "trust.json", "--publisher", "acme=alice.pqpub"]) == 0
    text = Path("trust.json").read_text().replace(identity("alice").id, "0" * 64)
    Path("trust.json").write_text(text)
    assert run(["trust", "check", "trust.json"]) == 1


def test_remarks_are_about_what_matters() -> None:
    made = trustedit.new_trust(now=NOW, lifetime=timedelta(days=10))
    assert "trusts nobody" in trustedit.check(made, now=NOW)
    made = trustedit.add_publisher(made, Namespace("acme"), identity("alice"), not_after=NOW)
    remarks = " ".join(trustedit.check(made, now=NOW))
    assert "expires in 10 days" in remarks
    assert f"identity {identity('alice').id} lapsed" in remarks
