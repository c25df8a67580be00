# SPDX-License-Identifier: Apache-2.0
"""From recorded statements to leaves with receipts: the service's side of its log (DESIGN §6).

Every statement the service accepts is first recorded, in the transaction that gives it its effect, and then logged:

1. It is looked up. Statements are identified by the digests of their payloads, in full, so the same statement signed
   again is the one that is there: it gets the receipt of the envelope that was recorded first.
2. If it is in the log and its receipt meets the service's policy, or still may (its hour is not over), that is it.
3. Otherwise the leaf of the recorded envelope goes to the sequencer, once, however many ask at the same time.
4. The answer waits until a published checkpoint covers the leaf, so that it holds a receipt.

Of several instances one writes the log (``service.leadership``). The others ask it for the leaf in step 3 and find the
leaf and its receipt in the database in step 4; who of them leads may change meanwhile without anybody noticing.

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
from pq_registry.errors import FormatError, LogSuperseded, LogUnavailable, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import from_unix
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.pending import PendingLeaf
from pq_registry.log.recovery import require_same
from pq_registry.log.sequencer import LogHealth, Sequencer
from pq_registry.log.signers import LogSigners
from pq_registry.log.stores import LogLock, TileStore, WitnessPool
from pq_registry.service.clock import Clock
from pq_registry.service.instances import Elsewhere, News, Wanted
from pq_registry.service.leadership import WANTED_CHANNEL, Elected, Leadership, Sole
from pq_registry.service.leaves import Leaves, Place, Recorded
from pq_registry.service.receipts import Receipts
from pq_registry.service.terms import TermLock, TermTiles
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.leases import Notice
from pq_registry.storage.loglock import PUBLISHED_CHANNEL, CatalogueLock

if TYPE_CHECKING:  # a service without witnesses loads no HTTP client
    from pq_registry.service.witnessing import WitnessView

_BREATH_SECONDS = 0.05
"""A pause before it is looked again who writes the log, when that changes."""


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
    """Logs statements, and answers where the log has them. Opening it starts the sequencer, unless another leads.

    Args:
        catalogue: what is recorded; one that several instances can use also says which of them writes the log.
        tiles: the log's files.
        clock: the real time.
        setup: keys, policy and witnesses.
        alone: whether no other instance can use these tiles, so that this one must lead.

    Raises:
        LogHalted: if catalogue, tiles, keys and clock do not agree.
        SettingError: if the keys are not those the log was begun with.
        StorageError: if they cannot be read or written, or another service uses what must be this one's alone.
    """

    def __init__(
        self, catalogue: Catalogue, tiles: TileStore, clock: Clock, setup: LogSetup, *, alone: bool = True
    ) -> None:
        lock = CatalogueLock(catalogue)
        self.tiles = tiles
        self.policy = setup.policy
        self.witnesses = setup.witnesses
        self._setup = setup
        self._clock = clock
        self._catalogue = catalogue
        self._leaves = Leaves(catalogue)
        self._receipts = Receipts(lock, tiles, setup.policy)
        self._turn = threading.Lock()
        self._pending: dict[Digest, PendingLeaf] = {}
        self._examined = 0
        self._complete: datetime | None = None
        self._news = News()
        self._elsewhere = Elsewhere(lock, setup.signers, setup.policy)
        self._wanted: Wanted | None = None
        self._leadership: Leadership = self._campaign(lock, alone=alone)

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._setup.signers.origin

    @property
    def leading(self) -> bool:
        """Whether this instance writes the log, and does all else that one instance is enough for."""
        return self._leadership.sequencer is not None

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
        while True:
            sequencer = self._leadership.sequencer
            try:
                found = (
                    self._found_elsewhere(recorded, deadline)
                    if sequencer is None
                    else self._log_here(recorded, sequencer, deadline)
                )
            except LogUnavailable as error:
                # It was written by this instance when it began to wait; somebody else may write it now.
                if not isinstance(error, LogSuperseded) and self._leadership.sequencer is sequencer:
                    raise
                if time.monotonic() >= deadline:
                    raise
                self._news.wait(self._news.count, _BREATH_SECONDS)
                continue
            if found is not None:
                return found

    def receipt(self, statement: Digest) -> bytes | None:
        """The receipt of a statement, if there is one yet; the best one if it is in the log several times.

        Raises:
            NotFound: if no such statement is recorded.
            StorageError: if the catalogue or the tile store fail.
        """
        found = self.found(statement)
        return None if found is None else found.receipt

    def found(self, statement: Digest) -> LoggedStatement | None:
        """As ``receipt``, with what it is: one that meets the policy stays the same, any other may be bettered.

        Raises:
            NotFound, StorageError: as ``receipt``.
        """
        return self._best(self._leaves.find(statement))

    def catch_up(self) -> int:
        """Log what is recorded and not in the log, and again what was attested too late; answers how many.

        An instance that does not lead leaves that to the one that does.

        Raises:
            LogUnavailable, LogHalted: if the log cannot take them.
            StorageError: if the catalogue or the tile store fail.
        """
        count = 0
        if not self.leading:
            return count
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
        sequencer = self._leadership.sequencer
        return self._elsewhere.health(self._leadership.problem) if sequencer is None else sequencer.health()

    def check(self) -> None:
        """Make sure that the log takes statements.

        Raises:
            StorageError: if it does not.
        """
        sequencer = self._leadership.sequencer
        problem = self._leadership.problem
        if sequencer is not None:
            sequencer.check()
        elif problem is not None:
            raise type(problem)(problem.message, expected=problem.expected, found=problem.found, hint=problem.hint)

    def close(self) -> None:
        """Log what waits, and end."""
        self._leadership.close()
        if self._wanted is not None:
            self._wanted.close()
        if self.witnesses is not None:
            self.witnesses.close()

    def _campaign(self, lock: LogLock, *, alone: bool) -> Leadership:
        url = self._catalogue.url
        if url is None:
            return Sole(self._sequence(lock, self.tiles))
        self._wanted = Wanted(self._log_all, self.catch_up)
        elected = Elected(
            url, lock, begin=lambda term: self._sequence(TermLock(lock, term), TermTiles(self.tiles, term)),
            led=self._led, heard=self._heard,
        )  # fmt: skip
        self._leadership = elected  # its thread, which begins now, calls what looks at this
        try:
            elected.await_start(alone=alone, is_begun=lambda: require_same(lock, self.tiles, self._setup.signers))
        except BaseException:
            elected.close()
            self._wanted.close()
            raise
        return elected

    def _sequence(self, lock: LogLock, tiles: TileStore) -> Sequencer:
        setup = self._setup
        return Sequencer(
            lock, tiles, setup.signers, self._clock, setup.witnesses, setup.policy,
            linger=0.0 if setup.witnesses is None else limits.LOG_LINGER_SECONDS,
        )  # fmt: skip

    def _led(self) -> None:
        # What others recorded meanwhile is not known here.
        self._complete, self._examined = None, 0
        assert self._wanted is not None
        self._wanted.led()

    def _heard(self, notice: Notice) -> None:
        if notice.channel == PUBLISHED_CHANNEL:
            self._news.tell()
        elif notice.channel == WANTED_CHANNEL and self.leading:
            assert self._wanted is not None
            self._wanted.ask(notice.payload)

    def _log_here(self, recorded: Recorded, sequencer: Sequencer, deadline: float) -> LoggedStatement:
        begun = self._begin(recorded, sequencer)
        place = begun if isinstance(begun, Place) else self._settled(recorded.digest, begun)
        if place.index >= sequencer.health().size:
            # Another instance has written it since this one began to lead; the sequencer will notice when it writes.
            sequencer.renew()
        sequencer.wait_published(place.index, max(0.0, deadline - time.monotonic()))
        found = self._proved(recorded, place)
        if found is None:
            raise LogUnavailable("the log has no receipt yet", hint="send the same statement again; it is not lost")
        return found

    def _found_elsewhere(self, recorded: Recorded, deadline: float) -> LoggedStatement | None:
        """What another instance makes of a statement; None once this one writes the log."""
        asked = float("-inf")
        while not self.leading:
            seen, now = self._news.count, time.monotonic()
            place = self._leaves.newest_place(recorded.digest)
            if place is not None and self._can_be_attested(place):
                found = self._proved(recorded, place)
                if found is not None:
                    return found
            elif now - asked >= limits.RECEIPT_ASK_SECONDS:
                asked = now
                self._catalogue.notify(WANTED_CHANNEL, recorded.digest.hex)
            if now >= deadline:
                raise LogUnavailable(
                    "the instance that writes the log has not taken the statement yet",
                    hint="try again: it is recorded and will not be lost",
                )
            self._news.wait(seen, min(deadline - now, limits.RECEIPT_ASK_SECONDS))
        return None

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

    def _begin(self, recorded: Recorded, sequencer: Sequencer) -> Place | PendingLeaf:
        """The leaf to wait for: one in the log whose hour is not over, or one on its way."""
        with self._turn:
            pending = self._pending.get(recorded.digest)
            if pending is not None and not pending.settled:
                return pending
            # Looked up once more: whoever logged it a moment ago has gone by now, and nobody else can begin.
            place = self._leaves.newest_place(recorded.digest)
            if place is not None and self._can_be_attested(place):
                return place
            leaf = recorded.leaf

            def make(at: int) -> bytes:
                return replace(leaf, time=at).encode()

            pending = self._pending[recorded.digest] = sequencer.append(make, statement=recorded.digest)
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
        sequencer = self._leadership.sequencer
        if sequencer is None:
            return 0
        for statement in statements:
            try:
                recorded = self._leaves.find(statement)
                found = self._best(recorded) if again else None
                if found is None or not found.quorum:
                    begun.append((statement, self._begin(recorded, sequencer)))
            except FormatError:
                damaged += 1
            except NotFound:  # asked for by somebody who is not one of us
                continue
        for statement, pending in begun:
            if isinstance(pending, PendingLeaf):
                self._settled(statement, pending)
        if damaged:
            raise StorageError(f"{damaged} recorded statements are damaged and cannot be logged", hint="run pqreg fsck")
        return len(begun)
