# SPDX-License-Identifier: Apache-2.0
"""E1, E2 for an audit: stopped at any transaction or killed at any write, the next run ends as if nothing had happened.

A transaction that fails is tried in both ways: nothing of it was written, and all of it was written but the program
never heard. What is compared is every table, so nothing is counted twice and nothing is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.client.audit.index import AuditIndex
from pq_registry.format.instant import utc_now
from pq_registry.format.status import Revocation, RevocationKind
from tests import samples
from tests.auditing import ALICE, MALLORY, AuditSite, recipient, roles
from tests.fake_registry import FakeRegistry, serving
from tests.faults.tracing import injecting, needs_strace, was_hit

ROOT = Path(__file__).resolve().parents[2]


def eventful() -> AuditSite:
    """A site where every part of an audit has something to do."""
    site = roles()
    site.log.append_raw(b"not a leaf")
    old, new = site.release(), site.release()
    site.tag(new)
    site.tag(old)
    site.release(signer=MALLORY)
    site.grant(new, recipient("nobody"))
    site.status(Revocation(RevocationKind.IDENTITY, ALICE.identity.id, samples.NOW))
    return site


def tables(directory: Path) -> dict[str, list[Any]]:
    """Everything in a state, without what depends on the order of insertion."""
    with contextlib.closing(sqlite3.connect(directory / "audit.sqlite")) as database:
        found = {
            name: database.execute(f"SELECT * FROM {name}").fetchall() for name in ("leaves", "facts", "revocations")
        }
        found["findings"] = database.execute("SELECT key, code, idx FROM findings").fetchall()
        found["meta"] = database.execute("SELECT key, value FROM meta").fetchall()
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


class Stopped(Exception):
    """The fault."""


@pytest.mark.parametrize("persisted", [False, True])
def test_stopped_at_any_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, persisted: bool) -> None:
    monkeypatch.setattr(limits, "AUDIT_CHECK_STATEMENTS", 3)
    site = eventful()
    codes = site.codes(tmp_path / "whole")
    assert len(set(codes)) >= 5
    whole = tables(tmp_path / "whole")
    transaction = AuditIndex.transaction
    for number in range(100):
        count = 0

        @contextlib.contextmanager
        def failing(index: AuditIndex, number: int = number) -> Iterator[None]:
            nonlocal count
            count += 1
            with transaction(index):
                yield
                if count == number + 1 and not persisted:
                    raise Stopped
            if count == number + 1:
                raise Stopped

        state = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(AuditIndex, "transaction", failing)
            try:
                site.codes(state)
            except Stopped:
                pass
            else:
                break
        assert site.codes(state) == codes
        assert tables(state) == whole
    assert number >= 5


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize("calls", ["fdatasync", "pwrite64"])
def test_killed_at_writes_of_the_state(tmp_path: Path, calls: str) -> None:
    site = eventful()
    site.log.time = int(utc_now().timestamp())
    site.log.publish()
    with serving() as registry:
        site.serve_at(registry)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        whole = _audit(tmp_path, registry, tmp_path / "whole")
        assert whole["open_findings"] >= 5
        expected = tables(tmp_path / "whole")
        for number in (1, 3, 8):
            state, trace = tmp_path / f"state-{number}", tmp_path / f"trace-{number}"
            command = [*injecting(trace, calls, "SIGKILL", number), *_command(state)]
            done = subprocess.run(command, cwd=tmp_path, env=_environment(registry), capture_output=True, timeout=120)
            if not was_hit(trace):
                assert done.returncode == 1
                break
            assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done
            after = _audit(tmp_path, registry, state)
            assert after["findings"] and len(after["findings"]) == len(whole["findings"])
            assert tables(state) == expected
        assert number > 1


def _command(state: Path) -> list[str]:
    return [sys.executable, "-m", "pqreg_cli", "audit", "--state", str(state), "--json"]


def _environment(registry: FakeRegistry) -> dict[str, str]:
    path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    return {**os.environ, "PYTHONPATH": path, "PQREG_REGISTRY": registry.url, "PQREG_TRUST": "trust.json"}


def _audit(place: Path, registry: FakeRegistry, state: Path) -> Any:
    done = subprocess.run(_command(state), cwd=place, env=_environment(registry), capture_output=True, timeout=120)
    assert done.returncode == 1, done
    return json.loads(done.stdout)
