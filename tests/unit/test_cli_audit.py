# SPDX-License-Identifier: Apache-2.0
"""``pqreg audit`` as it is typed: exit status, output for people and programs, evidence, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pqreg_cli.main import run
from tests import samples
from tests.auditing import MALLORY, AuditSite, roles
from tests.fake_registry import FakeRegistry, serving

Pqreg = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site() -> AuditSite:
    site = roles()
    site.log.time = int(utc_now().timestamp())
    site.tag(site.release({"config.json": b"{}", "model.bin.txt": b"weights" * 1000}))
    return site


@pytest.fixture
def registry(site: AuditSite) -> Iterator[FakeRegistry]:
    with serving() as registry:
        site.serve_at(registry)
        yield registry


@pytest.fixture
def pqreg(
    registry: FakeRegistry, site: AuditSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Pqreg:  # fmt: skip
    """Runs a command as an auditor; answers status, output and errors."""
    (tmp_path / "trust.json").write_bytes(site.trust.encode())
    monkeypatch.setenv("PQREG_REGISTRY", registry.url)
    monkeypatch.setenv("PQREG_TRUST", str(tmp_path / "trust.json"))
    monkeypatch.chdir(tmp_path)

    def call(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = run([str(word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return call


def test_all_is_well_for_people_and_programs(pqreg: Pqreg, site: AuditSite) -> None:
    status, out, err = pqreg("audit", "--state", "audit")
    assert status == 0, err
    assert out.startswith("all is well\n")
    assert "1 release, 1 tag" in out and samples.publisher().identity.id in out
    status, out, _ = pqreg("audit", "--state", "audit", "--json")
    assert status == 0
    report = json.loads(out)
    assert report["well"] is True and report["findings"] == [] and report["new"] == {"leaves": 0, "statements": 0}
    assert report["log"]["origin"] == site.log.origin and report["log"]["size"] == 2
    assert report["namespaces"][0]["signers"][0]["statements"] == {"release": 1, "tag": 1}


def test_findings_come_first_and_end_with_1(pqreg: Pqreg, site: AuditSite, registry: FakeRegistry) -> None:
    site.release(signer=MALLORY)
    site.serve_at(registry)
    status, out, _ = pqreg("audit", "--state", "audit")
    assert status == 1
    assert out.startswith("1  unknown-key  acme/minilm (leaf 2)")
    assert MALLORY.identity.id in out
    status, out, _ = pqreg("audit", "--state", "audit", "--json", "--csv", "leaves.csv")
    assert status == 1
    [finding] = json.loads(out)["findings"]
    assert (finding["code"], finding["number"], finding["index"]) == ("unknown-key", 1, 2)
    rows = list(csv.DictReader(Path("leaves.csv").read_text().splitlines()))
    assert [(row["kind"], row["state"], row["findings"]) for row in rows] == [
        ("release", "good", ""), ("tag", "good", ""), ("release", "finding", "unknown-key")
    ]  # fmt: skip
    assert pqreg("audit", "--state", "audit", "--namespace", "other")[0] == 0
    assert pqreg("audit", "--state", "audit", "--namespace", "ACME")[0] == 1
    status, out, _ = pqreg("audit", "ack", "1", "--state", "audit", "--note", "looked into", "--json")
    assert status == 0 and json.loads(out) == {"closed": [1], "open_findings": 0}
    assert pqreg("audit", "--state", "audit")[0] == 0
    assert pqreg("audit", "ack", "1", "--state", "audit", "--note", "again")[0] == 2


@pytest.mark.parametrize("what", ["rollback", "equivocation"])
def test_b4_a_log_that_contradicts_itself_ends_with_4(
    pqreg: Pqreg, site: AuditSite, registry: FakeRegistry, what: str
) -> None:
    assert pqreg("audit", "--state", "audit")[0] == 0
    honest = site.log
    fork = honest.fork(at=1)
    if what == "equivocation":
        fork.append_raw(honest.entries[0], honest.entries[0])
    fork.publish()
    registry.log_files = dict(fork.files)
    for _ in range(2):
        status, out, err = pqreg("audit", "--state", "audit", "--json")
        assert status == 4 and out == ""
        problem = json.loads(err)
        assert problem["type"] == f"/problems/log-{what}" and problem["exit"] == 4
        kept = {path.read_bytes() for path in Path("audit/evidence").glob("*.note")}
        assert kept == {honest.files["checkpoint"], fork.files["checkpoint"]}
    site.serve_at(registry)
    # Two histories stay proved; a smaller tree may have come from a stale copy.
    assert pqreg("audit", "--state", "audit")[0] == (what == "equivocation")


@pytest.fixture
def auditor(pqreg: Pqreg) -> None:
    """The auditor's keys, auditor.pqkey and auditor.pqpub."""
    assert pqreg("key", "generate", "auditor", "--no-passphrase")[0] == 0


def test_evidence_is_exported_and_checked_offline(
    pqreg: Pqreg, site: AuditSite, registry: FakeRegistry, auditor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pqreg("audit", "--state", "audit", "--keep")[0] == 0
    registry.statements.clear()  # withheld from now on; what was kept is used
    status, out, err = pqreg("audit", "export", "acme/minilm:v1", "--state", "audit", "--out", "evidence", "--key",
                             "auditor.pqkey", "--json")  # fmt: skip
    assert status == 0, err
    made = json.loads(out)
    assert made["statements"] == 2
    monkeypatch.delenv("PQREG_REGISTRY")
    monkeypatch.delenv("PQREG_TRUST")
    assert pqreg("audit", "check", "evidence")[0] == 2
    status, out, err = pqreg("audit", "check", "evidence", "--trust", "trust.json", "--auditor", "auditor.pqpub")
    assert status == 0, err
    assert out.startswith("verified: evidence, 2 statements\n") and "the attested times" in out
    status, out, _ = pqreg("audit", "check", "evidence", "--trust-sha256", made["trust_sha256"], "--json")
    assert status == 0
    checked = json.loads(out)
    assert checked["verified"] and all(one["attested"] for one in checked["statements"])
    assert pqreg("audit", "check", "evidence", "--trust-sha256", "0" * 64)[0] == 1
    assert pqreg("audit", "check", "evidence", "--trust", "trust.json", "--trust-sha256", "0" * 64)[0] == 2
    target = next(Path("evidence/statements").iterdir())
    target.write_bytes(target.read_bytes().replace(b"A", b"B", 1))
    assert pqreg("audit", "check", "evidence", "--trust", "trust.json")[0] == 1


@pytest.mark.parametrize("words", [(), ("--json",)], ids=str)
def test_a_round_that_failed_is_told_also_to_programs(
    pqreg: Pqreg, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    one_round = SimpleNamespace(set=lambda: None, wait=lambda _seconds: True)
    monkeypatch.setattr("pqreg_cli.audit.threading", SimpleNamespace(Event=lambda: one_round))
    registry.log_files["checkpoint"] = b"junk"
    status, out, err = pqreg("audit", "--state", "audit", "--follow", *words)
    assert status == 1 and out == ""
    if words:
        problem = json.loads(err)
        assert problem["type"] == "/problems/format-error" and problem["time"]
    else:
        assert err.startswith("warning: 20") and "not a note" in err


@pytest.mark.parametrize("leaves", [2, 5])
def test_a_bundle_with_the_proof_of_misbehaviour_ends_with_4(
    pqreg: Pqreg, site: AuditSite, registry: FakeRegistry, auditor: None, leaves: int
) -> None:
    assert pqreg("audit", "--state", "audit", "--keep")[0] == 0
    fork = site.log.fork(at=0)
    fork.append_raw(*(b"another history",) * leaves)
    fork.publish(cosigned=leaves == 2)  # no witness that saw the first would cosign the second
    registry.log_files = dict(fork.files)
    assert pqreg("audit", "--state", "audit")[0] == 4
    assert pqreg("audit", "export", "--state", "audit", "--out", "evidence", "--key", "auditor.pqkey")[0] == 0
    status, out, _ = pqreg("audit", "check", "evidence", "--trust", "trust.json", "--json")
    assert status == 4
    [pair] = json.loads(out)["misbehaviour"]
    assert [one["size"] for one in pair] == [2, leaves]
    assert "contradicted itself" in pqreg("audit", "check", "evidence", "--trust", "trust.json")[1]


@pytest.mark.parametrize("blobs", [True, False])
def test_content_that_is_missing_or_altered(pqreg: Pqreg, site: AuditSite, registry: FakeRegistry, blobs: bool) -> None:
    words = ("audit", "--state", "audit", "--json", *(["--blobs"] if blobs else []))
    digest = Digest.of(b"weights" * 1000)
    registry.blobs[digest.hex] = b"Weights" + b"weights" * 999
    status, out, _ = pqreg(*words)
    assert (status, [one["code"] for one in json.loads(out)["findings"]]) == (
        (1, ["blob-altered"]) if blobs else (0, [])
    )  # fmt: skip
    registry.blobs[digest.hex] += b"!"
    status, out, _ = pqreg(*words, "--again")
    assert status == 1 and json.loads(out)["findings"][0]["code"] == "blob-altered"
    del registry.blobs[digest.hex]
    status, out, _ = pqreg(*words, "--again")
    assert status == 1 and json.loads(out)["findings"][0]["code"] == "blob-missing"


def test_the_log_alone_first_and_the_statements_later(pqreg: Pqreg, registry: FakeRegistry) -> None:
    status, out, _ = pqreg("audit", "--state", "audit", "--log-only", "--json")
    report = json.loads(out)
    assert status == 0 and report["not_judged"] == 2 and report["new"] == {"leaves": 2, "statements": 0}
    assert not any("/v1/statements" in seen.line for seen in registry.seen)
    status, out, _ = pqreg("audit", "--state", "audit", "--json")
    report = json.loads(out)
    assert status == 0 and report["not_judged"] == 0 and report["new"] == {"leaves": 0, "statements": 2}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--state", "audit", "--webhook", "https://chat.example/x"),
        ("--state", "audit", "--metrics", "127.0.0.1:0"),
        ("--state", "audit", "--follow", "--metrics", "0.0.0.0:9471"),
        ("--state", "audit", "--follow", "--webhook", "https://user:secret@chat.example/x"),
        ("--state", "audit", "--follow", "--interval", "0"),
        ("--state", "audit", "--namespace", "a/b"),
        ("--state", "audit", "--known-recipient", "nobody"),
        ("--state", "audit", "export", "--state", "audit", "--out", "x"),
        ("export", "--state", "audit", "--out", "x", "--key", "none.pqkey"),
        ("export", "--state", "audit", "--out", "x", "--since", "yesterday"),
        ("export", "acme/minilm", "--namespace", "acme", "--state", "audit", "--out", "x"),
        ("check", "nowhere", "--trust", "trust.json"),
        ("ack", "1", "--state", "nowhere", "--note", "x"),
    ],
    ids=str,
)
def test_usage(pqreg: Pqreg, words: tuple[str, ...]) -> None:
    status, _, err = pqreg("audit", *words)
    assert status == 2, err
    assert "secret" not in err


def test_an_audit_needs_a_log_in_the_trust_file(pqreg: Pqreg, tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_bytes(samples.trust_file().encode())
    status, _, err = pqreg("audit", "--state", "audit")
    assert status == 1 and "pqreg trust log add" in err


def test_one_audit_at_a_time(pqreg: Pqreg) -> None:
    from pq_registry.client.audit.index import AuditIndex

    with AuditIndex(Path("audit")):
        status, _, err = pqreg("audit", "--state", "audit")
    assert status == 3 and "an audit is running" in err


def test_a_registry_that_cannot_be_asked_is_no_finding(pqreg: Pqreg, registry: FakeRegistry) -> None:
    registry.rules["/v1/statements"] = lambda handler: handler.problem(403, "access-denied")
    assert pqreg("audit", "--state", "audit")[0] == 3
    registry.rules.clear()
    assert pqreg("audit", "--state", "audit")[0] == 0
