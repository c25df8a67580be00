# SPDX-License-Identifier: Apache-2.0
"""Reading shared among processes: each reads and verifies its share of a window, then all get the whole window.

A window is a run of neighbouring shards, as many for each process, the last of a file fewer. A process reads its shards
into memory of its own, where they are checked (and decrypted) as always; only what passed is exchanged. Shards are
never divided, so every byte of the model is read and hashed by one process. Of a window the bytes stand in file order:
shares follow one another by rank.

Every process holds one window (``window_shards``) and, for each worker, one share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.loader.dtypes import Raw
from pq_registry.loader.fill import Filler
from pq_registry.loader.memory import anonymous, as_array
from pq_registry.loader.parallel.exchange import Exchange
from pq_registry.loader.parallel.place import Place
from pq_registry.loader.parallel.turns import Turns
from pq_registry.loader.placement import Landing, TensorMemory, WholeFiles
from pq_registry.loader.selection import Run


def window_shards(size: int) -> int:
    """Shards of a window for ``size`` processes: the same everywhere, for it depends on nothing else."""
    share = limits.LOADER_WINDOW_BYTES // (size * limits.SHARD_BYTES)
    return size * max(1, min(share, limits.LOADER_SHARE_SHARDS))


def share_of(run: Run, place: Place) -> Run | None:
    """The shards of the window ``run`` that the process at ``place`` reads; None if there are none for it."""
    each = share_shards(run, place)
    first = place.rank * each
    count = min(each, run.count - first)
    return Run(run.file, run.first + first, count, run.units, None) if count > 0 else None


def share_shards(run: Run, place: Place) -> int:
    """Shards in a share of the window ``run``; the last shares of a window at the end of a file hold fewer."""
    return -(-run.count // place.size)


class ShareFiller:
    """Brings of each window the share of this process."""

    def __init__(self, filler: Filler, place: Place, turns: Turns) -> None:
        """Use ``filler``; ``turns`` is told what goes wrong."""
        self._filler = filler
        self._place = place
        self._turns = turns

    def fill(self, run: Run, view: memoryview, stopped: Callable[[], bool]) -> None:
        """Fill ``view`` with the share of ``run``. Raises what the filler does."""
        share = share_of(run, self._place)
        if share is None:
            return
        try:
            self._filler.fill(share, view, stopped)
        except BaseException as error:
            self._turns.blame(error)
            raise

    def abort(self) -> None:
        """End every read under way."""
        self._filler.abort()

    def close(self) -> None:
        """Close the filler."""
        self._filler.close()


class Share:
    """The share of a window, in memory of this process. ``deliver`` exchanges it and takes the window apart."""

    def __init__(self, turns: Turns, number: int, view: memoryview, deliver: Callable[[], None]) -> None:
        self._turns = turns
        self._number = number
        self._deliver = deliver
        self.view = view

    def commit(self) -> None:
        """Exchange the window. Raises PqregError: what this process or another failed with."""
        self._turns.take(self._number, self._deliver)

    def drop(self) -> None:
        """Tell the others that there will be no window."""
        self._turns.give_up(self._number)


class SharedWindows:
    """Windows in the memory of the CPU, on their way to ``placement``, whose tensors have all their bytes then."""

    def __init__(self, placement: WholeFiles | TensorMemory, exchange: Exchange, turns: Turns, *, meter: Meter) -> None:
        self._placement: Any = placement
        self._exchange = exchange
        self._turns = turns
        self._meter = meter
        self._numbers: dict[tuple[str, int], int] = {}
        self._window: Raw = np.empty(0, np.uint8)
        self._mine = threading.local()

    def reserve(self, run: Run) -> None:
        """Take memory for the run's tensors, and the number of its turn. Raises StorageError."""
        self._placement.reserve(run)
        self._numbers[run.file.path.text, run.first] = self._turns.draw()

    def land(self, run: Run) -> Landing:
        """Memory of this thread for the share of this process."""
        number = self._numbers.pop((run.file.path.text, run.first))
        place = self._exchange.place
        room = share_shards(run, place) * limits.SHARD_BYTES
        mine: Raw = getattr(self._mine, "memory", np.empty(0, np.uint8))
        if len(mine) < room:
            self._mine.memory = mine = as_array(anonymous(room))
        share = share_of(run, place)
        view = mine[: share.size if share else 0].data
        return Share(self._turns, number, view, lambda: self._deliver(run, mine[:room]))

    def release(self, position: int) -> Any:
        """The tensor's bytes."""
        return self._placement.release(position)

    def clear(self) -> None:
        """End the load here, and drop what was not released."""
        self._turns.close()
        self._placement.clear()

    def _deliver(self, run: Run, mine: Raw) -> None:
        """Exchange ``run``. Only the thread whose turn it is gets here."""
        room = len(mine) * self._exchange.place.size
        in_place = isinstance(self._placement, WholeFiles)
        target = np.frombuffer(self._placement.land(run).view, np.uint8) if in_place else None
        if target is not None and len(target) == room:
            self._gather(run, mine, target)
            return
        if len(self._window) < room:
            self._window = as_array(anonymous(room))
        self._gather(run, mine, self._window[:room])
        if target is None:
            self._placement.copy_out(run, self._window[: run.size].data)
            return
        with self._meter.timed("copy", run.size):
            target[:] = self._window[: run.size]

    def _gather(self, run: Run, mine: Raw, window: Raw) -> None:
        share = share_of(run, self._exchange.place)
        with self._meter.timed("gather", run.size - (share.size if share else 0)):
            self._exchange.gather(mine, window)
