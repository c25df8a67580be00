# SPDX-License-Identifier: Apache-2.0
"""A registry whose log asks a real witness: receipts with an attested time, through kills, absence and return."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pq_registry.errors import QuorumNotMet
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.leaf import Kind
from pq_registry.format.note import VerifierKey
from pq_registry.format.tlogpolicy import LogPolicy, Policy
from pq_registry.log.receipt import Receipt, verify_receipt
from pq_registry.service.witnessing import WitnessPool
from tests.samples import publisher, release
from tests.server_harness import RunningRegistry, log_setup, running
from tests.witnessing import WitnessProcess, environment

NAME = "witness.example/kritis-1"


class Site:
    """The registry, its witness and the policy that demands it."""

    def __init__(self, registry: RunningRegistry, witness: WitnessProcess, policy: Policy) -> None:
        self.registry, self.witness, self.policy = registry, witness, policy
        assert registry.register(publisher()).status == 201

    def push(self, text: str) -> tuple[Any, bytes]:
        """One release; what the service answered, and the envelope."""
        files = {"config.json": text.encode()}
        envelope, manifest = release(files, signer=publisher())
        for content in (*files.values(), manifest):
            self.registry.upload(content)
        answer = self.registry.post_release(envelope)
        assert answer.status in (200, 201), answer
        return answer.json, envelope.encode()

    def verified(self, answer: Any, envelope: bytes) -> Receipt:
        """The receipt, as a node judges it offline."""
        return verify_receipt(
            base64.b64decode(answer["receipt"]),
            envelope=Envelope.parse(envelope),
            kind=Kind.RELEASE,
            name="acme/minilm",
            identity=publisher().identity.id,
            policies=[LogPolicy(self.policy)],
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    setup = log_setup()
    (tmp_path / "log.vkey").write_text(setup.signers.vkeys)
    words = ("witness", "keygen", "--state", str(tmp_path / "state"), "--name", NAME, "--json")
    made = subprocess.run(
        [sys.executable, "-m", "pqreg_cli", *words], capture_output=True, text=True, check=True, env=environment(),
        timeout=120,
    )  # fmt: skip
    keys = [VerifierKey.parse(text) for text in json.loads(made.stdout)["vkeys"]]
    witness = WitnessProcess(tmp_path / "state", "--log", str(tmp_path / "log.vkey")).start()
    with ExitStack() as stack:
        stack.callback(witness.stop, signal.SIGKILL)
        policy = Policy.compose(setup.signers.ed25519.key, setup.signers.mldsa.key, [("kritis", keys, witness.url)], 1)
        pool = WitnessPool(policy, utc_now, wait_seconds=5)
        registry = stack.enter_context(running(tmp_path / "data", log=replace(setup, policy=policy, witnesses=pool)))
        yield Site(registry, witness, policy)


def test_receipts_are_attested_through_kills_absence_and_return(site: Site) -> None:
    first = site.push("one")
    assert first[0]["quorum"] is True
    receipt = site.verified(*first)
    assert receipt.cosigners == {NAME}
    assert receipt.attested is not None

    site.witness.stop(signal.SIGKILL)
    away = site.push("two")
    assert away[0]["quorum"] is False
    with pytest.raises(QuorumNotMet):
        site.verified(*away)

    site.witness.start()
    back = site.push("three")
    assert back[0]["quorum"] is True
    assert site.verified(*back).attested is not None
    # Within the hour the receipt of what was pushed meanwhile is good, too: it is covered by the same checkpoint.
    again = site.registry.post_release(away[1])
    assert again.json["quorum"] is True
    assert site.verified(again.json, away[1]).index == away[0]["log_index"]
