# SPDX-License-Identifier: Apache-2.0
"""``pqreg witness`` as people use it: keys made, a process that cosigns, is killed, restarted, and refuses a fork."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.note import Note, NoteKeyType, VerifierKey
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.judge import judge
from pq_registry.service.witnessing import WitnessPool
from pqreg_cli.main import run
from tests.logsamples import MemoryLog, log_signers
from tests.witnessing import WitnessProcess, environment, exchange, grow, grown, post, request_of

ORIGIN = "log.example/pqreg"
NAME = "witness.example/kritis-1"


def pqreg(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pqreg_cli", *map(str, words)], capture_output=True, text=True, timeout=120,
        env=environment(),
    )  # fmt: skip


@pytest.fixture
def vkeys(tmp_path: Path) -> Path:
    """The log's verifier keys in a file."""
    path = tmp_path / "acme.vkey"
    path.write_text("".join(f"{signer.key}\n" for signer in log_signers()))
    return path


@pytest.fixture
def keys(tmp_path: Path) -> list[VerifierKey]:
    """Those of a witness, made by the command."""
    done = pqreg("witness", "keygen", "--state", tmp_path / "state", "--name", NAME, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (tmp_path / "state" / "witness.vkey").read_text().splitlines() == answer["vkeys"]
    assert (tmp_path / "state" / "witness.key").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in done.stdout + done.stderr
    return [VerifierKey.parse(text) for text in answer["vkeys"]]


@pytest.fixture
def witness(tmp_path: Path, keys: list[VerifierKey], vkeys: Path) -> Iterator[WitnessProcess]:
    process = WitnessProcess(tmp_path / "state", "--log", str(vkeys)).start()
    yield process
    process.stop(signal.SIGKILL)


def ready_log(count: int) -> MemoryLog:
    """A log that signs with the real clock, as the witness does."""
    return grown(count, time=int(utc_now().timestamp()))


def test_a_log_is_cosigned_through_kills_and_restarts(witness: WitnessProcess, keys: list[VerifierKey]) -> None:
    log = ready_log(5)
    ed25519, mldsa = (signer.key for signer in log_signers())
    policy = Policy.compose(ed25519, mldsa, [("kritis", keys, witness.url)], 1)
    assert [key.type for key in keys] == [NoteKeyType.ED25519_COSIGNATURE, NoteKeyType.MLDSA44_COSIGNATURE]
    with closing(WitnessPool(policy, utc_now, wait_seconds=60)) as pool:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            note = grow(log, 3).publish(cosigned=False)
            checkpoint, parsed = parse_checkpoint_note(note)
            lines = pool.cosign(note, checkpoint, log.tree(note).consistency_proof)
            judged = judge(Note(parsed.text, (*parsed.signatures, *lines)).encode(), policy)
            assert judged.cosigners == {NAME}
            assert judged.attested is not None
            path = f"/{Digest.of(ORIGIN.encode()).hex}/checkpoint"
            assert judge(exchange(witness.url, "GET", path)[2], policy).checkpoint == checkpoint
            assert witness.stop(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
            witness.start()
            assert post(witness.url, request_of(log, 0).encode())[::2] == (409, b"%d\n" % log.size)
        assert pool.failures == {NAME: 0}
    fork = log.fork(4)
    fork.append_raw(*(bytes([number]) for number in range(log.size - 4)))
    assert post(witness.url, request_of(fork, log.size).encode())[0] == 422
    assert len(list(witness.state.rglob("equivocation/*.note"))) == 2


def test_two_witnesses_do_not_share_a_state(witness: WitnessProcess, vkeys: Path) -> None:
    done = pqreg("witness", "serve", "--state", witness.state, "--listen", "127.0.0.1:0", "--log", vkeys)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_what_cannot_be_started_says_why(
    tmp_path: Path, keys: list[VerifierKey], vkeys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    serve = ("witness", "serve", "--listen", "127.0.0.1:0", "--state")
    wrong = tmp_path / "wrong.vkey"
    wrong.write_text("hello\n")
    (tmp_path / "empty").mkdir()
    for words, status in (
        ((*serve, state), 2),
        ((*serve, state, "--log", tmp_path / "none.vkey"), 2),
        ((*serve, state, "--log", wrong), 2),
        ((*serve, state, "--log", tmp_path / "empty"), 2),
        ((*serve, state, "--log", tmp_path), 2),
        ((*serve, tmp_path / "other", "--log", vkeys), 2),
        ((*serve, state, "--log", vkeys, "--hosts", "a b"), 2),
        ((*serve, state, "--log", vkeys, "--listen", "nowhere"), 2),
        (("witness", "keygen", "--state", state, "--name", NAME), 1),
        (("witness", "keygen", "--state", tmp_path / "other", "--name", "two words"), 2),
    ):
        assert run([*map(str, words)]) == status, (words, capsys.readouterr().err)
        assert len(capsys.readouterr().err) > 20
    (state / "witness.key").chmod(0o644)
    assert run([*map(str, (*serve, state, "--log", vkeys))]) == 1
    assert "chmod 600" in capsys.readouterr().err


def test_a_log_named_twice_is_refused(tmp_path: Path, keys: list[VerifierKey], vkeys: Path) -> None:
    done = pqreg(
        "witness", "serve", "--state", tmp_path / "state", "--listen", "127.0.0.1:0", "--log", vkeys, "--log", vkeys
    )
    assert done.returncode == 2
    assert "named twice" in done.stderr
