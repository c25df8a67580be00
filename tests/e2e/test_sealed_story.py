# SPDX-License-Identifier: Apache-2.0
"""The scripted command lines of sealed releases, by the real ``pqreg``: seal, pull, mirror, grant, withdraw, reseal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.shell import Shell
from tests.sealing_site import contents_of, model_files, write_files

REFERENCE = "acme/secret:v1"
OTHER = "acme/other:v1"  # granted, withdrawn and sealed anew, without others noticing


@dataclass
class Told:
    """What the first command lines left."""

    root: Path
    alice: Shell
    operator: Shell
    url: str
    token: str

    def person(self, name: str, **settings: str) -> Shell:
        """Somebody with the registry, a token and the trust file."""
        base = {"PQREG_REGISTRY": self.url, "PQREG_TOKEN": self.token, "PQREG_TRUST": str(self.root / "trust.json")}
        return Shell(self.root, name, **{**base, **settings})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    root = tmp_path_factory.mktemp("sealed")
    write_files(root / "model", model_files())
    shell = Shell(root, "setup")
    for name in ("alice", "enrol"):
        shell.run("key", "generate", name, "--dir", "keys", "--no-passphrase")
    for name in ("node1", "node2", "node3"):
        shell.run("key", "generate", name, "--recipient", "--dir", "keys", "--no-passphrase")
    trust = ("--publisher", "acme=keys/alice.pqpub", "--enrolment", "acme=keys/enrol.pqpub")
    shell.run("trust", "init", "trust.json", *trust)
    with shell.serving("data") as (url, _log):
        token = (root / "data" / "admin.token").read_text().strip()
        told = Told(root, shell, shell, url, token)
        told.alice = told.person("alice")
        words = (
            "push",
            "model",
            REFERENCE,
            "--key",
            "keys/alice.pqkey",
            "--seal",
            "--to",
            "keys/node1.pqpub",
            "--json",
        )
        pushed = told.alice.run(*words).json
        assert pushed["sealed"]
        assert len(pushed["grants"]) == 2
        yield told


def test_the_granted_node_pulls_and_everybody_verifies(told: Told) -> None:
    node = told.person("node1")
    done = node.run("pull", REFERENCE, "out", "--recipient-key", "keys/node1.pqkey", "--json").json
    assert done["unsealed"]
    assert contents_of(told.root / "out") == model_files()
    node.export(PQREG_RECIPIENT_KEY="keys/node1.pqkey")
    node.run("pull", REFERENCE, "out-by-setting")
    offline = told.person("offline")
    offline.export(PQREG_REGISTRY=None, PQREG_TOKEN=None)
    assert offline.run("verify", "out", "--expect", "acme/secret", "--full", "--json").json["unsealed"]
    auditor = told.person("auditor")
    assert auditor.run("verify", REFERENCE, "--json").json["sealed"]
    assert node.run("verify", REFERENCE, "--unseal", "--json").json["content_verified"]


def test_a_mirror_needs_no_key_and_opens_where_one_is(told: Told) -> None:
    mirror = told.person("mirror")
    refused = mirror.run("pull", REFERENCE, "no-key", expect=1)
    assert "--recipient-key" in refused.err
    assert "  step: " in refused.err
    assert not (told.root / "no-key").exists()
    mirror.run("pull", REFERENCE, "mirror", "--sealed")
    offline = told.person("elsewhere")
    offline.export(PQREG_REGISTRY=None, PQREG_TOKEN=None)
    assert offline.run("verify", "mirror", "--full", "--json").json["sealed"]
    opened = offline.run("verify", "mirror", "--unseal", "--recipient-key", "keys/node1.pqkey", "--json").json
    assert opened["files"] == len(model_files())
    ungranted = offline.run("verify", "mirror", "--unseal", "--recipient-key", "keys/node3.pqkey", "--json", expect=1)
    assert ungranted.problem["type"] == "/problems/grant-missing"


def test_grants_are_given_listed_and_withdrawn(told: Told) -> None:
    alice = told.person("alice", PQREG_KEY="keys/alice.pqkey")
    alice.run("push", "model", OTHER, "--seal", "--to", "keys/node1.pqpub")
    refused = alice.run("grant", "add", OTHER, "--to", "keys/node2.pqpub", "--json", expect=1)
    assert refused.problem["type"] == "/problems/recipient-uncertified"
    wrong = alice.run("grant", "add", OTHER, "--to", "keys/node2.pqpub", "--fingerprint", "0" * 64, expect=2)
    assert "fingerprint" in wrong.err
    own = json.loads(alice.run("key", "show", "keys/node2.pqpub", "--json").out)["id"]
    alice.run("grant", "add", OTHER, "--to", "keys/node2.pqpub", "--fingerprint", own, "--expires-days", "30")
    node2 = told.person("node2", PQREG_RECIPIENT_KEY="keys/node2.pqkey")
    node2.run("pull", OTHER, "out2")
    certify = ("key", "certify", "keys/node3.pqpub", "--namespace", "acme", "--node", "edge-3", "--days", "9")
    told.person("enrol").run(*certify, "--key", "keys/enrol.pqkey")
    alice.run("grant", "add", OTHER, "--to", "edge-3")
    listed = {item["recipient"]: item for item in alice.run("grant", "list", OTHER, "--json").json["grants"]}
    assert len(listed) == 4
    assert listed[own]["expires"]
    assert "edge-3" in [item["node"] for item in listed.values()]
    ended = alice.run("grant", "withdraw", OTHER, "--to", "keys/node2.pqpub")
    assert "cannot be taken back" in " ".join((ended.out + ended.err).split())
    gone = node2.run("pull", OTHER, "out2-again", "--json", expect=1)
    assert gone.problem["type"] == "/problems/grant-withdrawn"
    assert not (told.root / "out2-again").exists()
    before = alice.run("show", OTHER, "--json").json["digest"]
    again = alice.run("reseal", OTHER, "--json")
    assert again.json["before"] == before
    assert again.json["digest"] != before
    node1 = json.loads(alice.run("key", "show", "keys/node1.pqpub", "--json").out)["id"]
    assert again.json["left_out"] == [node1]  # nobody certified it, and it was not named
    node3 = told.person("node3", PQREG_RECIPIENT_KEY="keys/node3.pqkey")
    node3.run("pull", OTHER, "out3")
    assert contents_of(told.root / "out3") == model_files()
    assert node2.run("pull", OTHER, "out4", "--json", expect=1).problem["type"] == "/problems/grant-missing"
    # What withdrawal cannot do: the old release is open to who has had it.
    assert contents_of(told.root / "out2") == model_files()


def test_to_without_seal_is_a_mistake(told: Told) -> None:
    words = ("push", "model", "acme/plain:v1", "--key", "keys/alice.pqkey", "--to", "keys/node1.pqpub")
    assert "--seal" in told.alice.run(*words, expect=2).err
