# SPDX-License-Identifier: Apache-2.0
"""What a control group leaves of the machine, in both versions, and that nothing readable means no limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pq_registry.client import crew, machine

GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


TWO = "0::/pods/one\n"
ONE = "4:memory:/pods/one\n3:cpu,cpuacct:/pods/one\n0::/\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/self/cgroup": TWO}, None),
        ({"proc/self/cgroup": TWO, "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": TWO, "sys/fs/cgroup/pods/one/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": TWO, "sys/fs/cgroup/pods/one/cpu.max": "10000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": TWO,
                "sys/fs/cgroup/pods/one/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/pods/cpu.max": "400000 100000\n",
            },
            4,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": ONE.replace("cpu,cpuacct", "cpu"),
                "sys/fs/cgroup/cpu/pods/one/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu/pods/one/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": ONE,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "nonsense 0\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1 0\n"}, None),
    ],
)
def test_processors(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert machine.processors(tree(tmp_path, files)) == expected


def test_a_quota_is_less_than_the_processors_it_may_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "processors", lambda: 1)
    assert crew.cores() == 1
    monkeypatch.setattr(machine, "processors", lambda: 10_000)
    assert 1 <= crew.cores() < 10_000


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    2097152 kB\n"}, 2 * GIB),
        (
            {
                "proc/meminfo": "MemAvailable: 2097152 kB\n",
                "proc/self/cgroup": TWO,
                "sys/fs/cgroup/pods/one/memory.max": "max\n",
                "sys/fs/cgroup/pods/one/memory.current": "5\n",
                "sys/fs/cgroup/pods/memory.max": f"{GIB}\n",
                "sys/fs/cgroup/pods/memory.current": f"{GIB // 4}\n",
            },
            GIB - GIB // 4,
        ),
        (  # files in the page cache are charged to whoever read them, and make room for whoever needs it
            {
                "proc/meminfo": "MemAvailable: 2097152 kB\n",
                "proc/self/cgroup": TWO,
                "sys/fs/cgroup/pods/memory.max": f"{GIB}\n",
                "sys/fs/cgroup/pods/memory.current": f"{GIB}\n",
                "sys/fs/cgroup/pods/memory.stat": "anon 1\nfile 999\ninactive_file 4096\nactive_file 8192\nshmem 5\n",
            },
            12288,
        ),
        (
            {
                "proc/self/cgroup": ONE,
                "sys/fs/cgroup/memory/pods/one/memory.limit_in_bytes": "100\n",
                "sys/fs/cgroup/memory/pods/one/memory.usage_in_bytes": "170\n",
            },
            0,
        ),
        (
            {
                "proc/self/cgroup": ONE,
                "sys/fs/cgroup/memory/pods/one/memory.limit_in_bytes": "100\n",
                "sys/fs/cgroup/memory/pods/one/memory.usage_in_bytes": "90\n",
                "sys/fs/cgroup/memory/pods/one/memory.stat": "active_file 1\ntotal_active_file 40\n\nnonsense\n",
            },
            50,
        ),
    ],
)
def test_free_memory(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert machine.free_memory(tree(tmp_path, files)) == expected


def test_this_machine_has_some() -> None:
    assert (machine.free_memory() or 0) > 1 << 20
