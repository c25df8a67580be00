# SPDX-License-Identifier: Apache-2.0
"""From recorded statements to leaves with receipts: the service's side of its log (DESIGN §6).

Every statement the service accepts is first recorded, in the transaction that gives it its effect, and then logged:

1. It is looked up. Statements are identified by the digests of their payloads, in full, so the same statement signed
   again is the one that is there: it gets the receipt of the envelope that was recorded first.
2. If it is in the log and its receipt meets the service's policy, or still may (its hour is not over), that is it.
3. Otherwise the leaf of the recorded envelope goes to the sequencer, once, however many ask at the same time.
4. The answer waits until a published checkpoint covers the leaf, so that it holds a receipt.

A crash or a failure between recording and logging loses nothing: ``catch_up``, at each start and every minute, logs
what is recorded and nowhere in the log, and logs again what witnesses attested too late because they were away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from pq_registry import limits
from pq_registry.errors import FormatError, LogUnavailable, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import from_unix
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.pending import PendingLeaf
from pq_registry.log.sequencer import LogHealth, Sequencer
from pq_registry.log.signers import LogSigners
from pq_registry.log.stores import TileStore, WitnessPool
from pq_registry.service.clock import Clock
from pq_registry.service.leaves import Leaves, Place, Recorded
from pq_registry.service.receipts import Receipts
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.loglock import CatalogueLock

if TYPE_CHECKING:  # a service without witnesses loads no HTTP client
    from pq_registry.service.witnessing import WitnessView


class Witnesses(WitnessPool, Protocol):
    """Who is asked to cosign (``service.witnessing``)."""

    def view(self) -> Sequence[WitnessView]:
        """What is known of each witness."""
        ...

    def close(self) -> None:
        """Ask nobody any more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSetup:
    """What a service needs to run its log: its keys, the policy it wants met, and who is asked to cosign.

    ``witnesses`` are closed with the log.
    """

    signers: LogSigners
    policy: Policy
    witnesses: Witnesses | None = None


@dataclass(frozen=True, slots=True)
class LoggedStatement:
    """A statement in the log; ``quorum`` is whether its receipt meets the service's own policy."""

    index: int
    receipt: bytes
    quorum: bool


class Ledger:
    """Logs statements, and answers where the log has them. Opening it starts the sequencer.

    Raises:
        LogHalted: if catalogue, tiles, keys and clock do not agree.
        StorageError: if they cannot be read or written.
    """

    def __init__(self, catalogue: Catalogue, tiles: TileStore, clock: Clock, setup: LogSetup) -> None:
        lock = CatalogueLock(catalogue)
        self.tiles = tiles
        self.policy = setup.policy
        self.witnesses = setup.witnesses
        self._clock = clock
        self._leaves = Leaves(catalogue)
        self._receipts = Receipts(lock, tiles, setup.policy)
        self._sequencer = Sequencer(
            lock, tiles, setup.signers, clock, setup.witnesses, setup.policy,
            linger=0.0 if setup.witnesses is None else limits.LOG_LINGER_SECONDS,
        )  # fmt: skip
        self._turn = threading.Lock()
        self._pending: dict[Digest, PendingLeaf] = {}
        self._examined = 0
        self._complete: datetime | None = None

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._sequencer.origin

    def log(self, statement: Digest) -> LoggedStatement:
        """Make sure that a recorded statement is in the log; answers its leaf and receipt.

        Raises:
            NotFound: if no such statement is recorded.
            LogUnavailable: if the log cannot take it now, or has no receipt yet; the same call later goes on.
            LogHalted: if the log does not go on before somebody has looked at it.
            StorageError: if the catalogue or the tile store fail.
        """
        recorded = self._leaves.find(statement)
        found = self._best(recorded)
        if found is not None and (found.quorum or self._is_best_for_now(found, recorded)):
            return found
        deadline = time.monotonic() + limits.RECEIPT_WAIT_SECONDS
        begun = self._begin(recorded)
        place = begun if isinstance(begun, Place) else self._settled(statement, begun)
        self._sequencer.wait_published(place.index, max(0.0, deadline - time.monotonic()))
        found = self._proved(recorded, place)
        if found is None:
            raise LogUnavailable("the log has no receipt yet", hint="send the same statement again; it is not lost")
        return found

    def receipt(self, statement: Digest) -> bytes | None:
        """The receipt of a statement, if there is one yet; the best one if it is in the log several times.

        Raises:
            NotFound: if no such statement is recorded.
            StorageError: if the catalogue or the tile store fail.
        """
        found = self._best(self._leaves.find(statement))
        return None if found is None else found.receipt

    def catch_up(self) -> int:
        """Log what is recorded and not in the log, and again what was attested too late; answers how many.

        Raises:
            LogUnavailable, LogHalted: if the log cannot take them.
            StorageError: if the catalogue or the tile store fail.
        """
        count = 0
        begun = self._clock()
        for statements in self._leaves.unlogged(self._complete):
            count += self._log_all(statements)
        # All that was recorded by then is logged. An hour is left for clocks, and for what was being recorded.
        self._complete = begun - timedelta(seconds=limits.ATTESTATION_SECONDS)
        late, examined = self._leaves.late(self._examined)
        count += self._log_all(late, again=True)
        self._examined = examined
        return count

    def health(self) -> LogHealth:
        """How the log is now."""
        return self._sequencer.health()

    def check(self) -> None:
        """Make sure that the log takes statements.

        Raises:
            StorageError: if it does not.
        """
        self._sequencer.check()

    def close(self) -> None:
        """Log what waits, and end."""
        self._sequencer.close()
        if self.witnesses is not None:
            self.witnesses.close()

    def _best(self, recorded: Recorded) -> LoggedStatement | None:
        """The newest leaf with a receipt that meets the policy, else the newest with any."""
        proved = [found for place in recorded.places if (found := self._proved(recorded, place)) is not None]
        return next((found for found in proved if found.quorum), proved[0] if proved else None)

    def _proved(self, recorded: Recorded, place: Place) -> LoggedStatement | None:
        proof = self._receipts.of(recorded.leaf_at(place), place.index)
        return None if proof is None else LoggedStatement(place.index, proof.receipt, quorum=proof.quorum)

    def _is_best_for_now(self, found: LoggedStatement, recorded: Recorded) -> bool:
        """Whether nothing better can be had now: witnesses may yet attest this leaf, and there is none after it."""
        newest = recorded.places[0]
        return found.index == newest.index and self._can_be_attested(newest)

    def _can_be_attested(self, place: Place) -> bool:
        """Whether a leaf's hour is not over."""
        return (self._clock() - place.time).total_seconds() <= limits.ATTESTATION_SECONDS

    def _begin(self, recorded: Recorded) -> Place | PendingLeaf:
        """The leaf to wait for: one in the log whose hour is not over, or one on its way."""
        with self._turn:
            pending = self._pending.get(recorded.digest)
            if pending is not None:
                return pending
            # Looked up once more: whoever logged it a moment ago has gone by now, and nobody else can begin.
            place = self._leaves.newest_place(recorded.digest)
            if place is not None and self._can_be_attested(place):
                return place
            leaf = recorded.leaf

            def make(at: int) -> bytes:
                return replace(leaf, time=at).encode()

            pending = self._pending[recorded.digest] = self._sequencer.append(make, statement=recorded.digest)
            return pending

    def _settled(self, statement: Digest, pending: PendingLeaf) -> Place:
        try:
            sequenced = pending.result(limits.RECEIPT_WAIT_SECONDS)
            return Place(sequenced.index, from_unix(sequenced.time))
        finally:
            if pending.settled:  # one that is not is still on its way, and must not be sent there twice
                with self._turn:
                    self._pending.pop(statement, None)

    def _log_all(self, statements: Iterable[Digest], *, again: bool = False) -> int:
        """Log them; those that are in the log already only if no leaf of theirs has a receipt that meets the policy."""
        begun = []
        damaged = 0
        for statement in statements:
            try:
                recorded = self._leaves.find(statement)
                found = self._best(recorded) if again else None
                if found is None or not found.quorum:
                    begun.append((statement, self._begin(recorded)))
            except FormatError:
                damaged += 1
        for statement, pending in begun:
            if isinstance(pending, PendingLeaf):
                self._settled(statement, pending)
        if damaged:
            raise StorageError(f"{damaged} recorded statements are damaged and cannot be logged", hint="run pqreg fsck")
        return len(begun)
