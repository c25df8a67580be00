# SPDX-License-Identifier: Apache-2.0
"""Reading, exporting, comparing and pruning the audit events (``service.audit`` writes them).

The chain (``format.eventline``) is computed from the rows whenever it is needed and stored nowhere in the database:
whoever could change a row there could change a stored hash with it. What makes it worth something is a copy of its end
kept elsewhere. So an export is continued only if the database still leads to the export's last hash, and events are
removed only once an export holds them.

Removing them is itself an event, ``events-pruned``, whose detail ``through`` and ``hash`` say where the chain of what
is left begins. What fsck knows lost leaves of the log by, ``log-moved``, is recorded again as it was. The database
numbers events in the order of their transactions, since there is one writer at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import EventsInvalid, StorageError
from pq_registry.format.eventline import START, Event, Link
from pq_registry.format.instant import format_instant
from pq_registry.format.strict_json import parse_strict
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import AuditEventRow

_BATCH = 1000
_HINT = "keep both, and find out who could write to the registry's database"


@dataclass(frozen=True, slots=True)
class End:
    """Where a chain ends: the number of its last event, 0 for none, and its hash."""

    id: int
    hash: str


class Events:
    """The audit events of a registry."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def chain(self) -> Iterator[Link]:
        """Every event that is there, oldest first, bound to those before.

        Raises:
            EventsInvalid: if events are left that were pruned, so that the chain has no beginning.
            StorageError: if the catalogue fails, or a row of it is damaged.
        """
        start = self.start()
        previous = start.hash
        for event in self._rows():
            if event.id <= start.id:
                raise EventsInvalid(
                    f"event {event.id} is there, which was removed", expected=f"events after {start.id}", hint=_HINT
                )
            link = Link.after(previous, event)
            yield link
            previous = link.hash

    def after(self, end: End) -> Iterator[Link]:
        """The events after ``end``, once those up to it were seen to lead there.

        Raises:
            EventsInvalid: if they do not.
            StorageError: if the catalogue fails.
        """
        start = self.start()
        met = end in (start, End(0, START)) and start.id <= end.id
        for link in self.chain():
            if link.event.id > end.id:
                if not met:
                    break
                yield link
            elif link.event.id == end.id:
                if link.hash != end.hash:
                    break
                met = True
        if not met:
            raise EventsInvalid(
                f"the registry's events do not lead to event {end.id} as it was exported", expected=end.hash, hint=_HINT
            )

    def compare(self, exported: Iterable[Link]) -> int:
        """Hold an export against what is there; answers how many of its events are still there, unchanged.

        Raises:
            EventsInvalid: if an exported event is there in another form, or gone without having been pruned.
            StorageError: if the catalogue fails.
        """
        start = self.start()
        chain = self.chain()
        here: End | None = start
        same = 0
        for link in exported:
            if link.event.id < start.id:
                continue  # pruned since
            while here is not None and here.id < link.event.id and (not same or here.id == start.id):
                here = _end(next(chain, None))
            if here != End(link.event.id, link.hash):
                raise EventsInvalid(
                    f"event {link.event.id} is not as it was exported", expected=link.hash,
                    found="no event" if here is None else f"event {here.id} with hash {here.hash}", hint=_HINT,
                )  # fmt: skip
            if link.event.id > start.id:
                same += 1
                here = _end(next(chain, None))
        return same

    def prune(self, caller: Caller, exported: End, before: datetime) -> int:
        """Remove events of before ``before`` that are in the export which ends at ``exported``; answers how many.

        Raises:
            EventsInvalid: if what is there does not lead to the end of the export.
            StorageError: if the catalogue fails.
        """
        last: Link | None = None
        old, met, count = True, False, 0
        for link in self.chain():
            if link.event.id > exported.id:
                break
            met = End(link.event.id, link.hash) == exported
            old = old and link.event.at < before  # a prefix, also if the clock once went back
            if old:
                last, count = link, count + 1
        if not met:
            raise EventsInvalid(
                f"the registry's events do not lead to event {exported.id} as it was exported", expected=exported.hash,
                hint=_HINT,
            )  # fmt: skip
        if last is None:
            return 0
        with self._catalogue.writing() as session:
            # First, so that these get numbers above theirs: SQLite gives the numbers of removed rows again.
            _keep_moves(session, last.event.id)
            audit.record(
                session, caller, self._clock(), audit.Action.EVENTS_PRUNED, "audit events",
                through=last.event.id, hash=last.hash, events=count, until=format_instant(last.event.at),
            )  # fmt: skip
            session.flush()
            session.execute(delete(AuditEventRow).where(AuditEventRow.id <= last.event.id))
        return count

    def start(self) -> End:
        """Where the chain of what is there begins.

        Raises:
            StorageError: if the catalogue fails, or says it in no way we do.
        """
        query = (
            select(AuditEventRow)
            .where(AuditEventRow.action == audit.Action.EVENTS_PRUNED.value)
            .order_by(AuditEventRow.id.desc())
        )
        with self._catalogue.reading() as session:
            row = session.scalars(query.limit(1)).first()
        if row is None:
            return End(0, START)
        detail = _event(row).detail
        through, found = detail.get("through"), detail.get("hash")
        if type(through) is not int or not isinstance(found, str):
            raise StorageError(f"event {row.id} is damaged", expected="through and hash", hint="restore a backup")
        return End(through, found)

    def _rows(self) -> Iterator[Event]:
        last = 0
        while True:
            query = select(AuditEventRow).where(AuditEventRow.id > last).order_by(AuditEventRow.id).limit(_BATCH)
            with self._catalogue.reading() as session:
                events = [_event(row) for row in session.scalars(query)]
            yield from events
            if len(events) < _BATCH:
                return
            last = events[-1].id


def _keep_moves(session: Session, through: int) -> None:
    query = select(AuditEventRow).where(
        AuditEventRow.id <= through, AuditEventRow.action == audit.Action.LOG_MOVED.value
    )
    for row in session.scalars(query.order_by(AuditEventRow.id)).all():
        session.add(
            AuditEventRow(
                at=row.at, request_id=row.request_id, token_id=row.token_id, action=row.action, subject=row.subject,
                detail=row.detail,
            )
        )  # fmt: skip
        session.flush()


def _end(link: Link | None) -> End | None:
    return None if link is None else End(link.event.id, link.hash)


def _event(row: AuditEventRow) -> Event:
    detail = parse_strict(row.detail.encode(), what=f"event {row.id}", limit=limits.EVENT_BYTES)
    return Event(
        id=row.id, at=row.at, request=row.request_id, token=row.token_id, action=row.action, subject=row.subject,
        detail=detail if isinstance(detail, dict) else {"": detail},
    )  # fmt: skip
