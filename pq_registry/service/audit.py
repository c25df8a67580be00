# SPDX-License-Identifier: Apache-2.0
"""The audit trail: every change of rights, or of what readers can see, writes one event in its own transaction.

The parts of an upload are not events of their own: opening, completing and aborting it are. An event never holds a
secret: tokens appear by their ids. Once its transaction is committed, an event is also a line of the service's log
(``pq_registry.events``), so that whoever collects logs has it out of reach of whoever can write to the database.
"""

from __future__ import annotations

import logging
from datetime import datetime
from enum import Enum, unique

from sqlalchemy import event
from sqlalchemy.orm import Session

from pq_registry.format.strict_json import encode_canonical
from pq_registry.service.access import Caller
from pq_registry.storage.catalogue.tables import AuditEventRow

_LOGGER = logging.getLogger("pq_registry.events")


@unique
class Action(Enum):
    """What can happen."""

    TOKEN_CREATED = "token-created"  # noqa: S105 - an event's name
    TOKEN_REVOKED = "token-revoked"  # noqa: S105 - an event's name
    IDENTITY_REGISTERED = "identity-registered"
    UPLOAD_OPENED = "upload-opened"
    UPLOAD_ABORTED = "upload-aborted"
    UPLOAD_REFUSED = "upload-refused"
    UPLOAD_EXPIRED = "upload-expired"
    BLOB_STORED = "blob-stored"
    BLOB_COLLECTED = "blob-collected"
    REFERENCE_COLLECTED = "reference-collected"
    BLOB_DAMAGED = "blob-damaged"
    BLOB_REPAIRED = "blob-repaired"
    LOG_MOVED = "log-moved"
    LOG_REPAIRED = "log-repaired"
    REPOSITORY_CREATED = "repository-created"
    REPOSITORY_REMOVED = "repository-removed"
    DRAFT_COMMITTED = "draft-committed"
    DRAFT_SET = "draft-set"
    DRAFT_SQUASHED = "draft-squashed"
    DRAFT_DROPPED = "draft-dropped"
    RELEASE_COMMITTED = "release-committed"
    TAG_SET = "tag-set"
    TAG_WITHDRAWN = "tag-withdrawn"
    GRANT_SET = "grant-set"
    GRANT_WITHDRAWN = "grant-withdrawn"
    KEY_CERTIFIED = "key-certified"
    STATUS_ISSUED = "status-issued"
    MIRROR_REPORTED = "mirror-reported"
    EVENTS_PRUNED = "events-pruned"


def record(
    session: Session, caller: Caller, now: datetime, action: Action, subject: object, **detail: str | int | None
) -> None:
    """Add an event to the transaction that makes the change.

    Args:
        session: of the change.
        caller: who made it.
        now: when.
        action: what was done.
        subject: to what: a repository, namespace or token id.
        detail: further facts, without secrets.
    """
    row = AuditEventRow(
        at=now,
        request_id=caller.request_id,
        token_id=caller.token_id,
        action=action.value,
        subject=str(subject),
        detail=encode_canonical(detail).decode(),
    )
    session.add(row)
    if _LOGGER.isEnabledFor(logging.INFO):
        fields = {
            "action": row.action, "subject": row.subject, "request_id": row.request_id, "token_id": row.token_id,
            "detail": detail,
        }  # fmt: skip
        # An event of SQLAlchemy's, not of ours: what is rolled back has not happened and is told to nobody.
        event.listen(
            session, "after_commit", lambda _session: _LOGGER.info("change", extra={"pqreg": fields}), once=True
        )
