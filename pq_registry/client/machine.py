# SPDX-License-Identifier: Apache-2.0
"""What of the machine this process may use, where a control group (a container's, a service's) gives it less.

Groups are looked up in ``/proc/self/cgroup`` and below ``/sys/fs/cgroup``, version 2 and version 1, from the process's
own to the outermost that is visible: each of them binds. Whatever cannot be read binds nothing. These are estimates: of
how many threads are worth having, and of what fits into memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def processors(root: Path = Path("/")) -> int | None:
    """How many processors' time the group may use, rounded up; None if it is not limited."""
    found: list[float] = []
    for group in _groups(root, "cpu"):
        words = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        with suppress(ValueError, ZeroDivisionError):  # also "max", and too few words
            quota, period = words
            found.append(int(quota) / int(period))
    positive = [share for share in found if share > 0]  # version 1 says -1 for no limit
    return math.ceil(min(positive)) if positive else None


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be had without swapping, page cache that can be given up among them; None if nobody says."""
    told = (line.split() for line in _lines(root / "proc/meminfo"))
    found = [int(words[1]) << 10 for words in told if words[0] == "MemAvailable:"]
    for group in _groups(root, "memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(ValueError, IndexError):
                free = int(_words(group / limit)[0]) - int(_words(group / used)[0])
                found.append(free + _page_cache(group / "memory.stat"))
    return max(0, min(found)) if found else None


def _page_cache(stat: Path) -> int:
    """Bytes of files that a group is charged for and the kernel can take back; not shared memory, which it cannot."""
    told = dict(line.split()[:2] for line in _lines(stat) if " " in line)
    kept = ("inactive_file", "active_file")
    # Version 1 has totals that include the groups below, as what is used does; in version 2 the plain ones do.
    return sum(int(told.get(f"total_{name}", told.get(name, "0"))) for name in kept)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of the groups this process is in, the innermost first; not all of them need exist."""
    base = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        top = base / controller if controllers else base
        parts = [part for part in path.split("/") if part not in {"", "..", "."}]
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth])


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
