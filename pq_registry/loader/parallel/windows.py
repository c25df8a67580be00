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
from pq_registry.loader.placement import Landing, OwnMemory, WholeFiles
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


def share_size(run: Run, place: Place) -> int:
    """Bytes of the share of the process at ``place``."""
    share = share_of(run, place)
    return 0 if share is None else share.size


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
        with self._turns.blamed():
            self._filler.fill(share, view, stopped)

    def abort(self) -> None:
        """End every read under way."""
        self._filler.abort()

    def close(self) -> None:
        """Close the filler."""
        self._filler.close()


class Share:
    """The share of the window ``run``, in memory of this process, until all have exchanged it."""

    def __init__(self, run: Run, view: memoryview, *, commit: Callable[[], None], drop: Callable[[], None]) -> None:
        """``commit`` and ``drop`` are what the placement does with it."""
        self.run = run
        self.view = view
        self.commit = commit
        self.drop = drop


class SharedWindows:
    """Windows in the memory of the CPU, on their way to ``placement``, whose tensors have all their bytes then."""

    def __init__(self, placement: WholeFiles | OwnMemory, exchange: Exchange, turns: Turns, *, meter: Meter) -> None:
        """Exchange windows over ``exchange``, in ``turns``.

        Raises:
            StorageError: if there is no memory for a window.
        """
        self._placement = placement
        self._exchange = exchange
        self._turns = turns
        self._meter = meter
        # Not touched where windows are exchanged in place, and so costs nothing there.
        self._window = as_array(anonymous(window_shards(exchange.place.size) * limits.SHARD_BYTES))
        self._mine = threading.local()

    def reserve(self, run: Run) -> None:
        """Take memory for the run's tensors, and the number of its turn. Raises StorageError."""
        with self._turns.blamed():
            self._placement.reserve(run)
        self._turns.draw(run)

    def land(self, run: Run) -> Landing:
        """Memory of this thread for the share of this process. Raises StorageError."""
        place = self._exchange.place
        room = share_shards(run, place) * limits.SHARD_BYTES
        mine: Raw = getattr(self._mine, "memory", np.empty(0, np.uint8))
        if len(mine) < room:
            with self._turns.blamed():
                self._mine.memory = mine = as_array(anonymous(room))
        mine = mine[:room]
        return Share(
            run,
            mine[: share_size(run, place)].data,
            commit=lambda: self._exchange_it(run, mine),
            drop=lambda: self._turns.give_up(run),
        )

    def release(self, position: int) -> Any:
        """The tensor's bytes."""
        return self._placement.release(position)

    def clear(self) -> None:
        """End the load here, and drop what was not released."""
        self._turns.close()
        self._placement.clear()

    def _exchange_it(self, run: Run, mine: Raw) -> None:
        """Exchange ``run``, where possible in the memory it belongs in, else in that of every window."""
        place = self._exchange.place
        window = self._window[: len(mine) * place.size]
        target: Raw | None = None
        if isinstance(self._placement, WholeFiles):
            target = np.frombuffer(self._placement.land(run).view, np.uint8)
            if len(target) == len(window):
                window = target

        def exchange() -> None:
            with self._meter.timed("gather", run.size - share_size(run, place)):
                self._exchange.gather(mine, window)

        def settle() -> None:
            if isinstance(self._placement, OwnMemory):
                self._placement.copy_out(run, window[: run.size].data)
            elif target is not None and window is not target:
                with self._meter.timed("copy", run.size):
                    target[:] = window[: run.size]

        self._turns.take(run, exchange, settle)
