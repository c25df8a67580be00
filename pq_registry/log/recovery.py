# SPDX-License-Identifier: Apache-2.0
"""How a log starts: what lock and tile store hold must agree before anything is signed (cases B4, B8).

1. The lock's note is of this log's keys and not from the future. An empty lock beside tiles is a lost catalogue.
2. What readers saw last was signed by this log and is no larger than the lock's tree: a store ahead of the lock means
   that the catalogue is from an old backup, and going on would sign a second history. It is no smaller than what was
   published: then the store is from an old backup.
3. The newest batch is staged: its leaves are added to the tree before it, whose right edge is read and recomputed; that
   must give the lock's root. Its tiles are written again, whether or not they are there. Nothing staged: the right
   edge at the lock's size is read and recomputed.
4. What readers saw last is the start of that tree; at equal size, the same tree.

So a batch that was interrupted anywhere is completed by every start, and a start after a clean end does the same work.
"""

from __future__ import annotations

from dataclasses import dataclass

from pq_registry.errors import FormatError, LogError, LogHalted, NotFound, PqregError, SettingError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.log.clockwatch import ClockWatch
from pq_registry.log.merkle import EMPTY_ROOT
from pq_registry.log.signers import LogSigners
from pq_registry.log.stores import CHECKPOINT_PATH, Batch, Locked, LogLock, TileStore
from pq_registry.log.tree import Edge, Tree

_RESTORE = "see docs/operations/log.md; do not remove anything, and run pqreg fsck"


@dataclass(frozen=True, slots=True)
class Opened:
    """The state a sequencer goes on from: the lock's newest checkpoint and the right edge of its tree."""

    note: bytes
    checkpoint: Checkpoint
    time: int
    edge: Edge
    published: bytes | None


def recover(lock: LogLock, tiles: TileStore, signers: LogSigners, watch: ClockWatch) -> Opened:
    """Check everything above, complete an interrupted batch, and begin a new log where there is none.

    Raises:
        LogHalted: if lock, tile store, keys and clock do not agree.
        StorageError: if lock or tile store fail.
    """
    before, shown = lock.load(), _read_shown(tiles)
    # Looked at again: another instance may still have been at work, and what it published between the two is in order.
    locked = lock.load()
    if locked is None:
        if shown is not None or tiles.has_tiles():
            raise LogHalted(
                "the tile store holds a log and the catalogue knows of none",
                expected="the catalogue that belongs to it",
                hint=f"restore the catalogue: {_RESTORE}",
            )
        return _begin(lock, signers, watch)
    checkpoint, time = _own(signers, locked.note, "the checkpoint in the catalogue")
    watch.now(time)
    for note, what in ((shown, "the checkpoint in the tile store"), (locked.published, "the published checkpoint")):
        if note is not None:
            _own(signers, note, what)
    _require_between(shown, checkpoint, None if before is None else before.published)
    edge = _edge(lock, tiles, signers, checkpoint, locked)
    if shown is not None:
        _require_start(tiles, parse_checkpoint_note(shown)[0], checkpoint)
    return Opened(locked.note, checkpoint, time, edge, locked.published)


def _begin(lock: LogLock, signers: LogSigners, watch: ClockWatch) -> Opened:
    now = watch.now(0)
    checkpoint = Checkpoint(signers.origin, 0, EMPTY_ROOT)
    note = signers.sign(checkpoint, now)
    lock.commit(None, note, Batch(0, now))
    return Opened(note, checkpoint, now, Edge(), None)


def _own(signers: LogSigners, note: bytes, what: str) -> tuple[Checkpoint, int]:
    try:
        return signers.opened(note)
    except (FormatError, LogError) as error:
        raise LogHalted(
            f"{what} was not signed by this log's keys: {error.message}",
            expected=error.expected or signers.origin,
            found=error.found,
            hint=f"use the log key that belongs to this data, and undamaged data: {_RESTORE}",
        ) from error


def _read_shown(tiles: TileStore) -> bytes | None:
    try:
        return tiles.read(CHECKPOINT_PATH)
    except NotFound:
        return None


def require_same(lock: LogLock, tiles: TileStore, signers: LogSigners) -> bool:
    """Whether there is a log yet, which then must be that of these keys and tiles; for one who does not write it.

    Weights are beside the tiles: an instance with another tile store would put them where the others do not look.

    Raises:
        SettingError: if it is the log of other keys.
        LogHalted: if these are not its tiles.
        StorageError: if lock or tile store cannot be read.
    """
    before, shown = lock.load(), _read_shown(tiles)
    locked = lock.load()
    if before is None or locked is None:
        return False
    try:
        signers.opened(locked.note)
    except (FormatError, LogError) as error:
        raise SettingError(
            "this instance has other log keys than the log was begun with",
            expected=f"the keys that the other instances of this registry use, of {_origin(locked.note)}",
            found=signers.origin,
            hint="copy their log key file, or name it with PQREG_LOG_KEY; only the first instance ever makes one",
        ) from error
    if shown is not None:
        _own(signers, shown, "the checkpoint in the tile store")
    _require_between(shown, parse_checkpoint_note(locked.note)[0], before.published)
    return True


def _origin(note: bytes) -> str:
    try:
        return parse_checkpoint_note(note)[0].origin
    except FormatError:
        return "a checkpoint that cannot be read"


def _require_between(shown: bytes | None, newest: Checkpoint, published: bytes | None) -> None:
    size = None if shown is None else parse_checkpoint_note(shown)[0].size
    if size is not None and size > newest.size:
        raise LogHalted(
            "the tile store is ahead of the catalogue: the catalogue is from an older backup",
            expected=f"at most {newest.size} leaves",
            found=size,
            hint=f"restore the newest catalogue: {_RESTORE}",
        )
    least = None if published is None else parse_checkpoint_note(published)[0].size
    if least is not None and (size is None or size < least):
        raise LogHalted(
            "the tile store shows less than was published: it is from an older backup, or another one",
            expected=f"a checkpoint of at least {least} leaves",
            found="none" if size is None else size,
            hint=f"give the --storage of this registry, or restore the newest tile store: {_RESTORE}",
        )


def _edge(lock: LogLock, tiles: TileStore, signers: LogSigners, newest: Checkpoint, locked: Locked) -> Edge:
    staged = lock.staged()
    if not staged:
        return _read_edge(tiles, newest)
    start, entries = staged[0][0], [entry for _, entry in staged]
    before = Edge() if start == 0 else _read_edge(tiles, _before(signers, locked, start))
    growth = before.grow(entries)
    if (growth.edge.size, growth.edge.root) != (newest.size, newest.root):
        raise LogHalted(
            "the staged leaves do not lead to the checkpoint in the catalogue",
            expected=f"{newest.size} leaves, root {newest.root.hex()}",
            found=f"{growth.edge.size} leaves, root {growth.edge.root.hex()}",
            hint=_RESTORE,
        )
    tiles.write(growth.tiles)
    return growth.edge


def _before(signers: LogSigners, locked: Locked, start: int) -> Checkpoint:
    if locked.previous is not None:
        previous, _ = _own(signers, locked.previous, "the previous checkpoint in the catalogue")
        if previous.size == start:
            return previous
    raise LogHalted(
        "the staged leaves do not follow the checkpoint before them", expected=f"a tree of {start}", hint=_RESTORE
    )


def _read_edge(tiles: TileStore, checkpoint: Checkpoint) -> Edge:
    try:
        return Tree(tiles, checkpoint.size, checkpoint.root).edge()
    except (LogError, NotFound) as error:
        raise LogHalted(
            f"the right edge of the tree is damaged: {error.message}",
            expected=error.expected,
            found=error.found,
            hint=_RESTORE,
        ) from error


def _require_start(tiles: TileStore, shown: Checkpoint, newest: Checkpoint) -> None:
    try:
        root = Tree(tiles, newest.size, newest.root).root_at(shown.size)
    except PqregError as error:
        raise LogHalted(f"the tiles are damaged: {error.message}", found=error.found, hint=_RESTORE) from error
    if root != shown.root:
        raise LogHalted(
            "the tile store shows another tree than the catalogue: a fork",
            expected=f"{shown.size} leaves, root {root.hex()}",
            found=shown.root.hex(),
            hint=_RESTORE,
        )
