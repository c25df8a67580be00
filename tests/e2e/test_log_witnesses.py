# SPDX-License-Identifier: Apache-2.0
"""What a push sees of witnesses that answer, lie, lag, restart or are not there (docs/operations/log.md)."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.format.addcheckpoint import AddCheckpoint
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.leaf import Kind
from pq_registry.format.tlogpolicy import LogPolicy, Policy
from pq_registry.log.receipt import Receipt, verify_receipt
from pq_registry.log.witness import Witness
from pq_registry.service.witnessing import WitnessPool
from pq_registry.storage.witnessstate import WitnessState
from pqreg_cli.main import run
from tests.logsamples import MemoryLog, log_signers, witness_signers
from tests.logsetup import log_setup
from tests.publishing import make_model
from tests.samples import REPOSITORY, publisher
from tests.server_harness import Api, RegistryProcess, RunningRegistry, running
from tests.witnessing import WitnessProcess, replying, serving, watched

SHORT = 0.5
"""Patience of the log in tests whose witness does not answer, in seconds."""


def policy_of(url: str) -> Policy:
    """The service's policy: witness 1 must cosign, and is asked there."""
    ed25519, mldsa = (signer.key for signer in log_signers())
    return Policy.compose(ed25519, mldsa, [("w1", [signer.key for signer in witness_signers(1)], url)], 1)


@contextmanager
def witnessed(data: Path, url: str, *, patience: float = 20.0) -> Iterator[RunningRegistry]:
    policy = policy_of(url)
    pool = WitnessPool(policy, utc_now, wait_seconds=patience)
    with running(data, log=log_setup(policy=policy, witnesses=pool)) as registry:
        yield registry


def honest(state: WitnessState) -> Witness:
    """Witness 1 of the log of these tests, with the real clock."""
    return Witness(witness_signers(1), [watched(MemoryLog())], state, clock=utc_now, monotonic=time.monotonic)


def receipt_of(api: Api, digest: Digest, policy: Policy) -> Receipt:
    """The receipt the registry has now, verified as a client with this policy does."""
    answer = api.get(f"/v1/statements/{digest.hex}").json
    return verify_receipt(
        base64.b64decode(answer["tlog_proof"]),
        envelope=Envelope.parse(base64.b64decode(answer["envelope"])), kind=Kind.RELEASE, name=str(REPOSITORY),
        identity=publisher().identity.id, policies=[LogPolicy(policy)],
    )  # fmt: skip


def outcomes(registry: RunningRegistry) -> set[str]:
    """What witnesses did so far, by the metrics."""
    lines = registry.get("/metrics").body.decode().splitlines()
    counts = [line for line in lines if line.startswith("pqreg_witness_requests_total{") and not line.endswith(" 0.0")]
    return {line.split('outcome="')[1].split('"')[0] for line in counts}


def test_a_witness_that_answers_attests_the_time(tmp_path: Path) -> None:
    with (
        WitnessState(tmp_path / "w1") as state,
        serving(honest(state), state) as url,
        witnessed(tmp_path / "registry", url) as registry,
    ):
        digest = registry.publish()
        answer = registry.put_tag(digest).json
        assert answer["quorum"] is True
        receipt = receipt_of(registry, digest, policy_of(url))
        assert receipt.attested is not None
        assert 0 <= receipt.attested.timestamp() - receipt.leaf.time <= limits.ATTESTATION_SECONDS
        assert outcomes(registry) == {"cosigned"}


def test_without_its_witness_a_push_is_answered_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # a port nobody listens on while it is ours
        with witnessed(tmp_path / "registry", f"http://127.0.0.1:{taken.getsockname()[1]}") as registry:
            digest = registry.publish()
            assert registry.put_tag(digest).json["quorum"] is False
            assert outcomes(registry) == {"unreachable"}
            monkeypatch.setenv("PQREG_REGISTRY", registry.url)
            monkeypatch.setenv("PQREG_TOKEN", registry.admin_token)
            monkeypatch.chdir(tmp_path)
            assert run(["key", "generate", "bob", "--no-passphrase"]) == 0
            key = ["--key", "bob.pqkey"]
            capsys.readouterr()
            assert run(["push", str(make_model(tmp_path / "model", "x")), "acme/new", *key]) == 0
            shown = capsys.readouterr()
            assert "leaf 2 (release), leaf 3 (tag)" in shown.out
            assert "too few witnesses have cosigned" in shown.err
            assert (
                run(["tag", "acme/new:other", digest_in(shown.out), "--key", str(tmp_path / "bob.pqkey"), "--json"])
                == 0
            )
            assert json.loads(capsys.readouterr().out)["log_index"] == 4


def digest_in(text: str) -> str:
    """The release a push printed."""
    return next(word.partition("@")[2] for word in text.split() if "@sha256:" in word)


def test_a_witness_that_lies_is_as_good_as_none(tmp_path: Path) -> None:
    def other_tree(request: AddCheckpoint) -> tuple[int, str, bytes]:
        seen, _ = parse_checkpoint_note(request.note)
        tree = Checkpoint(seen.origin, seen.size, bytes(32))
        lines = [signer.sign(tree, int(utc_now().timestamp())).encode() for signer in witness_signers(1)]
        return 200, "text/plain", b"".join(lines)

    with replying(other_tree) as url, witnessed(tmp_path / "registry", url) as registry:
        assert registry.put_tag(registry.publish()).json["quorum"] is False
        assert outcomes(registry) == {"lying"}
        note = registry.get("/log/checkpoint").body
        assert witness_signers(1)[0].key.name.encode() not in note  # nothing of the lie is shown to readers


def test_a_witness_that_lags_keeps_a_push_waiting_no_longer_than_agreed(tmp_path: Path) -> None:
    released = threading.Event()

    def late(_request: AddCheckpoint) -> None:
        released.wait(30)

    with replying(late) as url:
        try:
            with witnessed(tmp_path / "registry", url, patience=SHORT) as registry:
                digest = registry.publish()
                assert registry.put_tag(digest).json["quorum"] is False
                assert registry.get(f"/v1/statements/{digest.hex}").json["tlog_proof"] is not None
                released.set()
        finally:
            released.set()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[WitnessProcess]:
    """A witness in a process of its own, with keys of its own; started by the test."""
    assert run(["witness", "keygen", "--state", str(tmp_path / "witness"), "--name", "witness.example/one"]) == 0
    process = WitnessProcess(tmp_path / "witness", "--log", str(tmp_path / "log.vkey"))
    yield process
    if process.url:
        process.stop()


def test_a_service_is_told_of_a_witness_that_restarts_and_one_restored_from_a_backup(
    tmp_path: Path, witness: WitnessProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = RegistryProcess(tmp_path / "registry")
    try:
        vkeys = service.start().api.get("/log/vkey").body.decode()
        service.stop()
        (tmp_path / "log.vkey").write_text(vkeys)
        witness.start()
        ed25519, mldsa = (tmp_path / "witness" / "witness.vkey").read_text().splitlines()
        lines = (
            f"witness w1-ed25519 {ed25519} {witness.url}", f"witness w1-pq {mldsa} {witness.url}",
            "group w1 all w1-ed25519 w1-pq", "group everyone all log-pq w1", "quorum everyone",
        )  # fmt: skip
        (tmp_path / "policy").write_text("".join(f"{line}\n" for line in lines))
        monkeypatch.setenv("PQREG_LOG_WITNESSES", str(tmp_path / "policy"))
        api = service.start().api
        own = [f"log {vkeys.splitlines()[0]}", f"witness log-pq {vkeys.splitlines()[1]}"]
        policy = Policy.parse("".join(f"{line}\n" for line in (*own, *lines)))

        first = api.publish()
        assert receipt_of(api, first, policy).attested is not None

        witness.stop()
        backup = tmp_path / "backup"
        shutil.copytree(tmp_path / "witness", backup)
        away = api.put_tag(first)
        assert away.json["quorum"] is False
        witness.start()
        second = api.publish({"a.txt": b"while it is back"})
        assert receipt_of(api, second, policy).attested is not None
        tag = api.get(f"/v1/statements/{away.json['digest'].removeprefix('sha256:')}").json
        assert b"witness.example/one" in base64.b64decode(tag["tlog_proof"])  # good by itself, within the hour

        witness.stop()
        shutil.rmtree(tmp_path / "witness")
        shutil.copytree(backup, tmp_path / "witness")
        witness.start()
        third = api.publish({"a.txt": b"after the witness forgot"})
        assert receipt_of(api, third, policy).attested is not None
    finally:
        service.close()
