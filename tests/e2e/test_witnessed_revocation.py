# SPDX-License-Identifier: Apache-2.0
"""A stolen key, with an independent witness: what it signed before stays good, what it signs later does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pq_registry.format.instant import format_instant, parse_instant, utc_now
from tests.e2e.shell import Shell
from tests.publishing import make_model
from tests.witnessing import WitnessProcess


@dataclass(frozen=True)
class Place:
    """One desk with a publisher's and a revoker's key, whose trust file names log, witness and revoker."""

    root: Path
    desk: Shell
    witness: WitnessProcess


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    operator = Shell(tmp_path, "operator")
    operator.run("log", "keygen", "--data", "data", "--origin", "models.example/log")
    operator.run("witness", "keygen", "--state", "witness", "--name", "bsi.example")
    witness = WitnessProcess(tmp_path / "witness", "--log", str(tmp_path / "data/log.vkey")).start()
    try:
        policy = operator.run(
            "log", "policy", "--vkey", "data/log.vkey", "--witness", f"bsi={witness.url},witness/witness.vkey"
        )
        (tmp_path / "log.policy").write_text(policy.out)
        operator.export(PQREG_LOG_WITNESSES="log.policy")
        with operator.serving("data") as (url, _log):
            token = (tmp_path / "data/admin.token").read_text().strip()
            desk = Shell(tmp_path, "desk", PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_TRUST="trust.json")
            for name in ("alice", "revoker"):
                desk.run("key", "generate", name, "--no-passphrase")
            people = ("--publisher", "acme=alice.pqpub", "--revoker", "acme=revoker.pqpub")
            desk.run("trust", "init", "trust.json", *people)
            desk.run("trust", "log", "add", "trust.json", "--tofu", "--witness", "bsi=witness/witness.vkey")
            desk.run("status", "issue", "acme", "--key", "revoker.pqkey")
            yield Place(tmp_path, desk, witness)
    finally:
        witness.stop()


def push(place: Place, tag: str) -> None:
    make_model(place.root / tag, tag)
    place.desk.run("push", tag, f"acme/model:{tag}", "--key", "alice.pqkey")


def test_the_attested_time_tells_them_apart(place: Place) -> None:
    push(place, "before")
    pulled = place.desk.run("pull", "acme/model:before", "out", "--json").json
    assert pulled["log"]["witnesses"] == ["bsi.example"]
    assert parse_instant(pulled["log"]["attested"]) <= utc_now()
    attested = utc_now()  # the tag is a leaf of its own, attested after the release and before this
    deadline = time.monotonic() + 30
    while utc_now() <= attested:  # the next second, so that "from" lies after what was attested
        assert time.monotonic() < deadline
        time.sleep(0.05)
    since = format_instant(utc_now())
    place.desk.run("key", "revoke", "alice.pqpub", "--namespace", "acme", "--from", since, "--key", "revoker.pqkey")
    place.desk.run("pull", "acme/model:before", "again")
    place.desk.run("verify", "out", "--expect", "acme/model")
    push(place, "after")  # the registry does not judge; readers do
    problem = place.desk.run("pull", "acme/model:after", "late", "--json", expect=1).problem
    assert (problem["type"], problem["step"]) == ("/problems/revoked", 5)
    assert "as its log attests" in problem["found"]


def test_a_push_without_its_witness_says_so_and_readers_wait_for_it(place: Place) -> None:
    push(place, "before")
    place.desk.run("pull", "acme/model:before", "out")
    place.witness.stop()
    make_model(place.root / "alone", "alone")
    pushed = place.desk.run("push", "alone", "acme/model:alone", "--key", "alice.pqkey")
    assert "too few witnesses" in pushed.err
    refused = place.desk.run("pull", "acme/model:alone", "alone-out", "--json", expect=1).problem
    assert refused["type"] == "/problems/quorum-not-met"
    found = place.desk.run("pull", "acme/model:before", "again", "--json").json
    assert "lacks the cosignatures" in found["notes"][-1]
