# SPDX-License-Identifier: Apache-2.0
"""What of the machine this process may use, where a control group (a container's, a service's) gives it less.

Groups are looked up in ``/proc/self/cgroup`` and below ``/sys/fs/cgroup``, version 2 and version 1, from the process's
own to the outermost that is visible: each of them binds. Whatever cannot be read binds nothing, so these are hints for
how many threads are worth having and whether the page cache has room; nothing is refused because of them.
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
                # What the group uses is in part page cache, which can be given up: so this is on the low side.
                found.append(int(_words(group / limit)[0]) - int(_words(group / used)[0]))
    return max(0, min(found)) if found else None


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
