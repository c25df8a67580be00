# SPDX-License-Identifier: Apache-2.0
"""What mirrors report: which release is on which Hub, or why it is not. For people to look at; nothing goes by it.

A row is a state of one tag on one target: a report that says what the newest row of that tag and target says already
only moves the time at which it was last seen. The newest ``limits.MIRROR_RUNS_KEPT`` rows of a repository are kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import FormatError, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.format.strict_json import encode_canonical
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.hub.model import Commit
from pq_registry.service.visible import find_visible
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import MirrorRunRow
from pq_registry.storage.catalogue.tables import ReleaseRow

_TARGET = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}(:[0-9]{1,5})?(/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){2,6}", re.ASCII)


@unique
class RunState(StrEnum):
    """What became of a release."""

    MIRRORED = "mirrored"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorRun:
    """One report. ``target`` is ``host[:port]/namespace/name``: a name to read, and no URL to follow."""

    target: str
    release: Digest
    tag: Tag | None
    state: RunState
    commit: Commit | None
    reason: str | None
    seconds: int

    def __post_init__(self) -> None:
        """Raise FormatError unless the target is one, and the reason fits."""
        if len(self.target) > limits.MIRROR_TARGET_CHARS or not _TARGET.fullmatch(self.target):
            raise FormatError(
                "not a repository on a Hub", expected="host[:port]/namespace/name", found=self.target[:80]
            )
        if self.reason is not None and len(self.reason) > limits.MIRROR_REASON_CHARS:
            raise FormatError("the reason is too long", expected=f"at most {limits.MIRROR_REASON_CHARS} characters")
        if not 0 <= self.seconds <= limits.MIRROR_RUN_DAYS * 86400:
            raise FormatError("impossible time", expected=f"at most {limits.MIRROR_RUN_DAYS} days", found=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorItem:
    """A state of one tag on one target: when it came to be, and when it was last seen."""

    id: int
    target: str
    release: Digest
    tag: str | None
    state: RunState
    commit: str | None
    reason: str | None
    started: datetime
    seen: datetime


class Mirrors:
    """Keeps the reports of mirrors."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def report(self, caller: Caller, name: RepositoryName, run: MirrorRun) -> bool:
        """Keep a report; whether it is news.

        Raises:
            NotFound: if the repository has no such release.
        """
        now = self._clock()
        detail = encode_canonical({"reason": None if run.reason is None else _plain(run.reason)}).decode()
        with self._catalogue.writing() as session:
            repository = find_visible(session, name)
            where = (ReleaseRow.repository_id == repository.id, ReleaseRow.digest == run.release.hex)
            if session.scalars(select(ReleaseRow.id).where(*where)).first() is None:
                raise NotFound(f"{name} has no release {run.release}")
            latest = self._latest(session, repository.id, run)
            if latest is not None and _says(latest) == (run.release.hex, run.state.value, _text(run.commit), detail):
                latest.finished = now
                return False
            row = MirrorRunRow(
                repository_id=repository.id,
                target=run.target,
                release_digest=run.release.hex,
                tag=_text(run.tag),
                state=run.state.value,
                commit=_text(run.commit),
                detail=detail,
                token_id=caller.token_id,
                started=now - timedelta(seconds=run.seconds),
                finished=now,
            )
            session.add(row)
            session.flush()
            self._prune(session, repository.id)
            audit.record(
                session, caller, now, audit.Action.MIRROR_REPORTED, name, target=run.target, tag=_text(run.tag),
                release=run.release.hex, state=run.state.value,
            )  # fmt: skip
        return True

    def list(
        self, name: RepositoryName, *, after: int | None = None, limit: int
    ) -> tuple[list[MirrorItem], int | None]:
        """One page of what was reported, newest first, and the ``after`` of the next page.

        Raises:
            NotFound: if there is no such repository.
        """
        with self._catalogue.reading() as session:
            query = select(MirrorRunRow).where(MirrorRunRow.repository_id == find_visible(session, name).id)
            if after is not None:
                query = query.where(MirrorRunRow.id < after)
            rows = session.scalars(query.order_by(MirrorRunRow.id.desc()).limit(limit + 1)).all()
            items = [_item(row) for row in rows[:limit]]
        return items, items[-1].id if len(rows) > limit else None

    @staticmethod
    def _latest(session: Session, repository_id: int, run: MirrorRun) -> MirrorRunRow | None:
        query = select(MirrorRunRow).where(
            MirrorRunRow.repository_id == repository_id,
            MirrorRunRow.target == run.target,
            MirrorRunRow.tag.is_(None) if run.tag is None else MirrorRunRow.tag == str(run.tag),
        )
        return session.scalars(query.order_by(MirrorRunRow.id.desc()).limit(1)).one_or_none()

    @staticmethod
    def _prune(session: Session, repository_id: int) -> None:
        kept = select(MirrorRunRow.id).where(MirrorRunRow.repository_id == repository_id)
        last = session.scalars(kept.order_by(MirrorRunRow.id.desc()).offset(limits.MIRROR_RUNS_KEPT).limit(1)).first()
        if last is not None:
            session.execute(
                delete(MirrorRunRow).where(MirrorRunRow.repository_id == repository_id, MirrorRunRow.id <= last)
            )


def _says(row: MirrorRunRow) -> tuple[str, str, str | None, str]:
    return row.release_digest, row.state, row.commit, row.detail


def _item(row: MirrorRunRow) -> MirrorItem:
    return MirrorItem(
        id=row.id,
        target=row.target,
        release=Digest(row.release_digest),
        tag=row.tag,
        state=RunState(row.state),
        commit=row.commit,
        reason=json.loads(row.detail)["reason"],
        started=row.started,
        seen=row.finished or row.started,
    )


def _text(value: Tag | Commit | None) -> str | None:
    return None if value is None else str(value)


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
