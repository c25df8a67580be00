# SPDX-License-Identifier: Apache-2.0
"""E1, E2 at the witness: whatever fails or dies on the way, no second history is cosigned and nothing is forgotten."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pq_registry.errors import StorageError
from pq_registry.storage.witnessstate import WitnessState
from tests.faults.injection import ERRNOS, Fault, failing_system_call, os_error
from tests.witnessing import ROOT, environment, grow, grown, make_witness, request_of

ORIGIN = "log.example/pqreg"


@pytest.mark.slow
def test_e1_a_witness_killed_at_any_call_comes_back_with_one_history(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("witness_killed.py")), str(tmp_path)],
        capture_output=True, text=True, timeout=240, cwd=ROOT, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    points = re.search(r"^points (\d+)$", done.stdout, re.MULTILINE)
    assert points is not None
    assert int(points[1]) >= 8, done.stdout
    # Between the point where the new state is durable and the answer, a process dies with the new state on disk.
    assert "killed, 8 leaves" in done.stdout
    assert "killed, 5 leaves" in done.stdout


@pytest.mark.parametrize("persisted", [False, True])
def test_e2_a_failing_call_is_no_cosignature(tmp_path: Path, persisted: bool) -> None:
    for number in range(1, 100):
        log = grown(5)
        root = tmp_path / f"{number}"
        with WitnessState(root) as state:
            witness = make_witness(log, store=state)
            witness.add_checkpoint(request_of(log, 0).encode())
            fork = log.fork(3)
            fork.append_raw(b"a", b"b", b"c", b"d", b"e")
            grow(log, 3)
            request = request_of(log, 5).encode()
            fault = Fault(number, persisted, os_error(number % len(ERRNOS)))
            with failing_system_call(fault):
                try:
                    answer = witness.add_checkpoint(request)
                    assert answer.status == 200
                except StorageError:
                    assert fault.hit is not None
                    assert witness.size(ORIGIN) == 5  # nothing is acted on that may not be durable
                    assert witness.add_checkpoint(request_of(fork, 8).encode()).status == 409
            assert witness.add_checkpoint(request_of(log, witness.size(ORIGIN)).encode()).status == 200
        with WitnessState(root) as state:
            again = make_witness(log, store=state)
            assert again.size(ORIGIN) == 8
            assert again.add_checkpoint(request_of(fork, 8).encode()).status == 422
        if fault.hit is None:
            break
    assert number > 4


def test_e2_evidence_that_cannot_be_kept_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = grown(8)
    with WitnessState(tmp_path) as state:
        witness = make_witness(log, store=state)
        witness.add_checkpoint(request_of(log, 0).encode())
        fork = log.fork(5)
        fork.append_raw(b"a", b"b", b"c")

        def fail(*_: object) -> None:
            raise StorageError("no space")

        monkeypatch.setattr(state, "keep_evidence", fail)
        with pytest.raises(StorageError):
            witness.add_checkpoint(request_of(fork, 8).encode())
