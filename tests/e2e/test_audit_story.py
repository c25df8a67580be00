# SPDX-License-Identifier: Apache-2.0
"""An auditor beside a real registry: all well, a stranger's signature, evidence, a witness's time, a forked log."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pq_registry.format.instant import utc_now
from tests.e2e.shell import Shell
from tests.logsamples import MemoryLog
from tests.stored import log_files, replace_log_file


@dataclass
class Site:
    """A publisher and an auditor at one registry."""

    root: Path
    url: str
    alice: Shell
    auditor: Shell

    def push(self, content: str, name: str = "acme/minilm:v1", key: str = "alice.pqkey") -> None:
        model = self.root / "model"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text(content)
        self.alice.run("push", "model", name, "--key", key)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    operator = Shell(tmp_path, "operator")
    with operator.serving("data") as (url, _):
        token = (tmp_path / "data" / "admin.token").read_text().strip()
        alice = Shell(tmp_path, "alice", PQREG_REGISTRY=url, PQREG_TOKEN=token)
        for name in ("alice", "mallory", "auditor"):
            alice.run("key", "generate", name, "--no-passphrase")
        alice.run("trust", "init", "trust.json", "--publisher", "acme=alice.pqpub")
        alice.run("trust", "log", "add", "trust.json", "--from", url, "--tofu")
        auditor = Shell(tmp_path, "auditor", PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_TRUST="trust.json")
        yield Site(tmp_path, url, alice, auditor)


def test_an_audit_of_a_served_log(site: Site, tmp_path: Path) -> None:
    site.push("{}")
    site.push('{"v": 2}')
    auditor = site.auditor
    report = auditor.run("audit", "--state", "audit", "--json", "--blobs", "--keep").json
    assert report["well"] and report["new"] == {"leaves": 4, "statements": 4}
    [namespace] = report["namespaces"]
    assert namespace["signers"][0]["statements"] == {"release": 2, "tag": 2}

    # Evidence, verified with nothing but the bundle and the digest of its trust file.
    made = auditor.run("audit", "export", "acme/minilm:v1", "--state", "audit", "--out", "evidence", "--key",
                       "auditor.pqkey", "--json").json  # fmt: skip
    elsewhere = Shell(tmp_path, "elsewhere")
    checked = elsewhere.run("audit", "check", "evidence", "--trust-sha256", made["trust_sha256"], "--auditor",
                            "auditor.pqpub", "--json").json  # fmt: skip
    assert checked["verified"] and len(checked["statements"]) == 4

    # Whoever has a token of the registry may log; the trust file says whether that was expected.
    site.push('{"v": 3}', name="acme/other:v1", key="mallory.pqkey")
    ended = auditor.run("audit", "--state", "audit", "--json", expect=1)
    assert {finding["code"] for finding in ended.json["findings"]} == {"unknown-key"}

    # The registry loses a file.
    report = auditor.run("audit", "--state", "fresh", expect=1)
    assert report.out.count("unknown-key") == 2

    # Another history, under keys that are not the log's, is no proof against it; and is not believed either.
    data = tmp_path / "data"
    genuine = log_files(data)["checkpoint"]
    other = MemoryLog(genuine.decode().partition("\n")[0])
    other.append_raw(b"x")
    replace_log_file(data, "checkpoint", other.publish(utc_now()))
    problem = auditor.run("audit", "--state", "audit", "--json", expect=1).problem
    assert problem["type"] == "/problems/checkpoint-invalid"
    replace_log_file(data, "checkpoint", genuine)


@pytest.mark.directory_only("the directory is set back")
def test_b4_a_registry_that_lost_its_newest_leaves_is_caught(tmp_path: Path) -> None:
    operator = Shell(tmp_path, "operator")
    with operator.serving("data") as (url, _):
        token = (tmp_path / "data" / "admin.token").read_text().strip()
        alice = Shell(tmp_path, "alice", PQREG_REGISTRY=url, PQREG_TOKEN=token)
        alice.run("key", "generate", "alice", "--no-passphrase")
        alice.run("trust", "init", "trust.json", "--publisher", "acme=alice.pqpub")
        alice.run("trust", "log", "add", "trust.json", "--from", url, "--tofu")
        auditor = Shell(tmp_path, "auditor", PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_TRUST="trust.json")
        site = Site(tmp_path, url, alice, auditor)
        site.push("{}")
    # A backup, and what came after it.
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    with operator.serving("data") as (url, _):
        for shell in (site.alice, site.auditor):
            shell.export(PQREG_REGISTRY=url)
        site.push('{"v": 2}')
        assert site.auditor.run("audit", "--state", "audit", "--json").json["log"]["size"] == 4
    # The backup is put back: a rollback, and with the next push another history under the same keys.
    with operator.serving("backup") as (url, _):
        for shell in (site.alice, site.auditor):
            shell.export(PQREG_REGISTRY=url)
        assert (
            site.auditor.run("audit", "--state", "audit", "--json", expect=4).problem["type"].endswith("log-rollback")
        )
        for version in (3, 4):  # four leaves again, but others; then more
            site.push(json.dumps({"v": version}), name=f"acme/other:v{version}")  # alice's own memory guards minilm
            ended = site.auditor.run("audit", "--state", "audit", "--json", expect=4)
            assert ended.problem["type"].endswith("log-equivocation")
        assert len(list((tmp_path / "audit" / "evidence").glob("*.note"))) == 4
        site.auditor.run("audit", "export", "--state", "audit", "--out", "evidence", "--key", "alice.pqkey")
        checked = site.auditor.run("audit", "check", "evidence", "--trust", "trust.json", "--json", expect=4).json
        assert [[one["size"] for one in pair] for pair in checked["misbehaviour"]] == [[4, 4], [4, 6]]


def test_a_following_audit_goes_on_while_others_publish_and_ends_when_told(site: Site, tmp_path: Path) -> None:
    with (tmp_path / "follow.out").open("w") as out:
        process = site.auditor.start("audit", "--state", "audit", "--follow", "--interval", "1", "--json", "--metrics",
                                     "127.0.0.1:0", stdout=out, stderr=out)  # fmt: skip
        try:
            _until(process, lambda: '"size": 0' in (tmp_path / "follow.out").read_text())
            site.push("{}")
            _until(process, lambda: '"size": 2' in (tmp_path / "follow.out").read_text())
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait(60)
    rounds = [json.loads(line) for line in (tmp_path / "follow.out").read_text().splitlines() if line.startswith("{")]
    assert all(one["well"] for one in rounds)
    assert sum(one["new"]["leaves"] for one in rounds) == 2


def _until(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)  # between two looks; the deadline above decides
