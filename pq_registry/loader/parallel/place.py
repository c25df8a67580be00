# SPDX-License-Identifier: Apache-2.0
"""Which of several processes this one is.

A place is given by ``rank`` and ``world_size``, or is that of this process in ``group``, or in torch.distributed's
default group where that is initialised. Asking torch.distributed costs nothing and waits for nobody. Reading is shared
only where ``group`` is given: that is a collective operation, and one that nobody asked for would wait for ever
where only one process loads.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from pq_registry import limits
from pq_registry.errors import UsageError


@dataclass(frozen=True, slots=True)
class Place:
    """Process ``rank`` of ``size``."""

    rank: int
    size: int

    def __post_init__(self) -> None:
        """Refuse a place that cannot exist.

        Raises:
            UsageError: if ``rank`` is not one of 0 to ``size`` - 1.
        """
        for name, value, least, most in (
            ("world_size", self.size, 1, limits.LOADER_WORLD),
            ("rank", self.rank, 0, self.size - 1 if type(self.size) is int else 0),
        ):
            if type(value) is not int or not least <= value <= most:
                raise UsageError(
                    f"{name} is wrong", expected=f"an integer of {least} to {most}", found=repr(value)[:40]
                )

    def span(self, count: int) -> tuple[int, int]:
        """This place's of ``count`` things, in order: shares differ by one at most, the first are the larger."""
        each, more = divmod(count, self.size)
        begin = self.rank * each + min(self.rank, more)
        return begin, begin + each + (self.rank < more)

    def chunk(self, count: int) -> tuple[int, int]:
        """This place's of ``count`` things if all get as many as the first; the last then get fewer, or nothing."""
        each = -(-count // self.size)
        return min(self.rank * each, count), min((self.rank + 1) * each, count)


def place_of(rank: int | None, world_size: int | None, group: Any) -> Place | None:
    """The place that these options name; None if they name none and torch.distributed is not initialised.

    Args:
        rank: of this process; together with ``world_size`` or not at all.
        world_size: how many processes there are.
        group: a process group of torch.distributed, or ``"world"`` for its default one; then the other two are its.

    Raises:
        UsageError: for values that cannot be meant.
    """
    if group is not None:
        if rank is not None or world_size is not None:
            raise UsageError("the group says who is which rank", expected="group=, or rank= and world_size=")
        return _place_in(group)
    if rank is None and world_size is None:
        return _place_in("world") if _distributed() is not None else None
    if rank is None or world_size is None:
        raise UsageError("rank= and world_size= belong together", expected="both", found="one of them")
    return Place(rank, world_size)


def members(group: Any) -> list[int]:
    """The ranks of ``group`` in the default group, in the order of their ranks in ``group``.

    Raises:
        UsageError: if torch.distributed is not initialised, ``group`` is none of its groups, or this process is not
            in it.
    """
    distributed = _distributed()
    if distributed is None:
        raise UsageError(
            "group= needs torch.distributed",
            expected="an initialised one",
            hint="call torch.distributed.init_process_group first, e.g. under torchrun, or leave out group=",
        )
    if isinstance(group, str) and group != "world":
        raise UsageError("no such group", expected='a process group, or "world"', found=repr(group)[:40])
    try:
        found = [int(rank) for rank in distributed.get_process_group_ranks(None if group == "world" else group)]
        here = int(distributed.get_rank())
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        # torch says it in any of these ways, depending on what it was given.
        raise UsageError(
            "this is no process group", expected="one of torch.distributed's", found=repr(type(group).__name__)
        ) from None
    if here not in found:
        raise UsageError("this process is not in the group", expected=f"one of ranks {found}", found=f"rank {here}")
    return found


def _place_in(group: Any) -> Place:
    ranks = members(group)
    distributed = _distributed()
    assert distributed is not None
    return Place(ranks.index(int(distributed.get_rank())), len(ranks))


def _distributed() -> Any:
    """torch.distributed if it is initialised; torch is not imported for that: whoever initialised it did."""
    if "torch" not in sys.modules:
        return None
    from torch import distributed

    return distributed if distributed.is_available() and distributed.is_initialized() else None
