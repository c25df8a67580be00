# SPDX-License-Identifier: Apache-2.0
"""A real registry with its log: receipts are demanded, keys are revoked, a log that contradicts itself is caught."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pq_registry.format.digest import Digest
from tests.e2e.shell import Shell
from tests.publishing import make_model

KEYS = ("alice", "revoker", "enrol")


class Site:
    """One registry, a publisher and revoker on one desk, and a node that believes them and the log."""

    def __init__(self, root: Path, url: str, token: str) -> None:
        self.root, self.url = root, url
        self.desk = Shell(root, "desk", PQREG_REGISTRY=url, PQREG_TOKEN=token)
        self.node = Shell(root, "node", PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_TRUST="trust.json")

    def keys(self) -> None:
        for name in KEYS:
            self.desk.run("key", "generate", name, "--no-passphrase")
        self.desk.run(
            "trust", "init", "trust.json", "--publisher", "acme=alice.pqpub", "--revoker", "acme=revoker.pqpub",
            "--enrolment", "acme=enrol.pqpub",
        )  # fmt: skip

    def push(self, name: str, seed: int, *words: str) -> Any:
        make_model(self.root / name, seed)
        return self.desk.run("push", name, f"acme/{name}:v1", "--key", "alice.pqkey", "--json", *words).json


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("logged")
    with Shell(root, "operator").serving("data") as (url, _log):
        found = Site(root, url, (root / "data" / "admin.token").read_text().strip())
        found.keys()
        yield found


def test_the_story(site: Site) -> None:
    desk, node = site.desk, site.node
    pushed = site.push("plain", 1)
    assert pushed["log_index"] == 0
    # Exempt is announced; a revoker in the trust file demands a status online.
    refused = node.run("pull", "acme/plain:v1", "out", expect=1).err
    assert "pqreg status issue acme" in refused
    issued = desk.run("status", "issue", "acme", "--key", "revoker.pqkey", "--json").json
    assert (issued["sequence"], issued["revoked"]) == (1, [])
    assert "log: exempt" in node.run("pull", "acme/plain:v1", "out").err
    assert "log: exempt" in node.run("status", "show", "acme").err
    assert not (site.root / "out/model.tlog-proof").exists()

    # The log is added by its fingerprint, and by no other.
    vkey = desk.run("log", "vkey").out
    fingerprint = hashlib.sha256(vkey.encode()).hexdigest()
    wrong = desk.run("trust", "log", "add", "trust.json", "--from", site.url, "--fingerprint", "00" * 32, expect=1)
    assert fingerprint in wrong.err
    desk.run("trust", "log", "add", "trust.json", "--from", site.url, "--fingerprint", fingerprint)
    assert desk.run("trust", "log", "list", "trust.json", "--json").json["logs"][0]["number"] == 1
    pulled = node.run("pull", "acme/plain:v1", "out", "--json").json
    assert any(note.startswith("transparency log: leaf 0 of ") for note in pulled["notes"])
    assert any(note.startswith("revocation: checked against status 1") for note in pulled["notes"])
    assert (pulled["log"]["index"], pulled["log"]["attested"], pulled["status"]) == (0, None, 1)
    assert any(note.startswith("log freshness: the newest checkpoint") for note in pulled["notes"])
    for name in ("model.tlog-proof", ".pqreg/status.json", ".pqreg/status.tlog-proof"):
        assert (site.root / "out" / name).is_file()
    offline = Shell(site.root, "offline", PQREG_TRUST="trust.json")
    verified = offline.run("verify", "out", "--expect", "acme/plain", "--json").json
    assert any("that takes a registry" in note for note in verified["notes"])
    node.run("pull", "acme/plain:v1", "--hf-cache", "hub")
    (snapshot,) = (site.root / "hub").glob("models--acme--plain/snapshots/*")
    offline.run("verify", snapshot, "--expect", "acme/plain")

    # What a publisher with this trust file publishes comes back with a receipt that it checks.
    desk.export(PQREG_TRUST="trust.json")
    again = site.push("second", 2)
    assert again["log_index"] > 0

    # A sealed release: its grant needs a receipt too, and a revoked recipient gets nothing any more.
    desk.run("key", "generate", "node1", "--recipient", "--no-passphrase")
    site.push("secret", 3, "--seal", "--to", "node1.pqpub")
    node.run("pull", "acme/secret:v1", "clear", "--recipient-key", "node1.pqkey")
    offline.run("verify", "clear", "--expect", "acme/secret")
    assert (site.root / "clear/.pqreg/model.tlog-proof").is_file()
    node.run("pull", "acme/secret:v1", "mirror", "--sealed")
    assert list((site.root / "mirror/.pqreg/grants").glob("*.tlog-proof"))
    offline.run("verify", "mirror", "--unseal", "--recipient-key", "node1.pqkey")
    desk.run("key", "revoke", "node1.pqpub", "--namespace", "acme", "--key", "revoker.pqkey")
    assert "revoked" in node.run("pull", "acme/secret:v1", "clear2", "--recipient-key", "node1.pqkey", expect=1).err
    fingerprint = desk.run("key", "show", "node1.pqpub", "--json").json["id"]
    words = ("--to", "node1.pqpub", "--fingerprint", fingerprint, "--key", "alice.pqkey", "--json")
    assert desk.run("grant", "add", "acme/secret:v1", *words, expect=1).problem["type"] == "/problems/revoked"

    # A release is revoked: refused online, and by the node that has seen it also offline.
    digest = pulled["digest"]
    revoked = desk.run("status", "revoke", "acme", "--release", digest, "--key", "revoker.pqkey", "--json").json
    assert len(revoked["revoked"]) == 2
    assert node.run("pull", "acme/plain:v1", "out3", "--json", expect=1).problem["type"] == "/problems/revoked"
    node.run("verify", "out", "--expect", "acme/plain", expect=1)
    shown = node.run("status", "show", "acme", "--json").json
    assert [next(iter(entry)) for entry in shown["revoked"]] in (["recipient", "release"], ["from", "from"])
    node.run("pull", "acme/second:v1", "out4")

    # Alice's key is revoked from now on. Nobody independent dates what she signed, so all of it is refused.
    desk.run("key", "revoke", "alice.pqpub", "--namespace", "acme", "--key", "revoker.pqkey")
    assert node.run("pull", "acme/second:v1", "out5", "--json", expect=1).problem["step"] == 5
    same = desk.run("key", "revoke", "alice.pqpub", "--namespace", "acme", "--key", "revoker.pqkey", "--json").json
    assert same["changed"] is False


@pytest.mark.directory_only("the directory is set back")
def test_a_log_that_contradicts_itself_ends_with_status_4(tmp_path: Path) -> None:
    """The registry is restored from an old copy of its data, and goes on as if nothing had happened."""
    operator = Shell(tmp_path, "operator")
    with operator.serving("data") as (url, _log):
        token = (tmp_path / "data" / "admin.token").read_text().strip()
        site = Site(tmp_path, url, token)
        for name in KEYS:
            site.desk.run("key", "generate", name, "--no-passphrase")
        site.desk.run("trust", "init", "trust.json", "--publisher", "acme=alice.pqpub")
        site.desk.run("trust", "log", "add", "trust.json", "--tofu")
        site.push("first", 1)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    with operator.serving("data") as (url, _log):
        site.desk.export(PQREG_REGISTRY=url)
        site.node.export(PQREG_REGISTRY=url)
        site.push("second", 2)
        site.node.run("pull", "acme/first:v1", "out")
    with operator.serving("copy") as (url, _log):
        site.desk.export(PQREG_REGISTRY=url)
        site.node.export(PQREG_REGISTRY=url)
        problem = site.node.run("pull", "acme/first:v1", "out", "--json", expect=4).problem
        assert problem["type"] == "/problems/log-rollback"
        site.push("other", 3)
        site.push("another", 4)
        problem = site.node.run("pull", "acme/other:v1", "out2", "--json", expect=4).problem
        assert problem["type"] == "/problems/log-equivocation"
    evidence = sorted((tmp_path / "home/node/.local/state/pqreg/evidence").iterdir())
    assert len(evidence) == 3
    for path in evidence:
        assert path.name == f"{Digest.of(path.read_bytes()).hex}.note"
    assert problem["hint"].count(".note") == 2
