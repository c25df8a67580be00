# SPDX-License-Identifier: Apache-2.0
"""E1 of the log: the n-th system call of start and append fails with EIO or is the last one; and kill -9 under load.

For each kind of call n counts up until there is no n-th call any more (strace counts per thread); of opens and writes,
most of them SQLite's, every Fibonacci number is taken. Then the log is started again: every acknowledged leaf is where
it was said to be, once, the tree is whole, fsck finds nothing, and the log goes on.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.depth import numbers, points
from tests.faults.tracing import MODES, injecting, needs_strace, was_hit
from tests.local_log import judge, seeded

ROOT = Path(__file__).resolve().parents[2]
BOUND = 400
"""More calls of one kind than one thread makes."""
LEAVES = 254
"""So that the leaves below fill a tile and begin the next."""
CALLS = {
    "fsync": "fsync,fdatasync",
    "rename": "?rename,renameat,renameat2",
    "mkdir": "?mkdir,mkdirat",
    "unlink": "?unlink,unlinkat",
    "openat": "openat",
    "write": "write,pwrite64",
}
KILLS = points(thorough=12, sample=4)
"""Points of time at which a loaded log is killed."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded(tmp_path_factory.mktemp("e1") / "log", statements=9000, leaves=LEAVES)


def worker(root: Path, appends: int, threads: int) -> list[str]:
    return [
        sys.executable, "-m", "tests.faults.log_worker", str(root), str(LEAVES + 50), str(appends), str(threads)
    ]  # fmt: skip


def acknowledged(output: str) -> list[tuple[int, int]]:
    # The last line may have been cut off by the kill.
    lines = [line.split() for line in output.splitlines(keepends=True) if line.startswith("ack ") and line[-1] == "\n"]
    return [(int(number), int(index)) for _, number, index in lines]


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CALLS)
def test_a_call_fails_or_is_the_last_one(whole: Path, tmp_path: Path, kind: str, mode: str) -> None:
    hits = 0
    for number in numbers(every=kind not in {"write", "openat"}):
        assert number < BOUND
        root = shutil.copytree(whole, tmp_path / str(number))
        places = [path for path in (root, root / "log", *(root / "log").rglob("*")) if path.is_dir()]
        database = [root / f"catalogue.sqlite3{suffix}" for suffix in ("", "-wal", "-shm")]
        watched = [*places, *database] if kind in {"openat", "write"} else []
        trace = tmp_path / f"trace{number}"
        ended = subprocess.run(
            [*injecting(trace, CALLS[kind], mode, number, watched), *worker(root, 4, 1)],
            check=False, capture_output=True, text=True, timeout=300, cwd=ROOT,
        )  # fmt: skip
        assert "Traceback" not in ended.stderr, ended.stderr
        judge(root, acknowledged(ended.stdout))
        shutil.rmtree(root)
        if not was_hit(trace):
            assert ended.returncode == 0, ended
            assert len(acknowledged(ended.stdout)) == 4
            break
        hits += 1
        assert ended.returncode in (0, 3, -signal.SIGKILL, 128 + signal.SIGKILL), ended
    assert hits >= {"mkdir": 1, "unlink": 0}.get(kind, 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", range(KILLS))
def test_killed_under_load(whole: Path, tmp_path: Path, point: int) -> None:
    """After a number of acknowledgements that differs each time; 32 threads append."""
    root = shutil.copytree(whole, tmp_path / "log")
    chance = random.Random(point)
    for _ in range(2):
        size = judge(root, [])
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.log_worker", str(root), str(size + 50), "4000", "32"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert process.stdout is not None
        lines = []
        for _ in range(chance.randrange(1, 1200)):
            lines.append(process.stdout.readline())
        process.kill()
        rest, errors = process.communicate(timeout=300)
        assert errors == ""
        assert judge(root, acknowledged("".join(lines) + rest)) > size
