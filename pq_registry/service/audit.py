# SPDX-License-Identifier: Apache-2.0
"""The audit trail: every change of rights, or of what readers can see, writes one event in its own transaction.

The parts of an upload are not events of their own: opening, completing and aborting it are. An event never holds a
secret: tokens appear by their ids.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum, unique

from sqlalchemy.orm import Session

from pq_registry.format.strict_json import encode_canonical
from pq_registry.service.access import Caller
from pq_registry.storage.catalogue.tables import AuditEventRow


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
    RELEASE_COMMITTED = "release-committed"
    TAG_SET = "tag-set"
    TAG_WITHDRAWN = "tag-withdrawn"
    GRANT_SET = "grant-set"
    GRANT_WITHDRAWN = "grant-withdrawn"
    KEY_CERTIFIED = "key-certified"
    STATUS_ISSUED = "status-issued"


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
    session.add(
        AuditEventRow(
            at=now,
            request_id=caller.request_id,
            token_id=caller.token_id,
            action=action.value,
            subject=str(subject),
            detail=encode_canonical(detail).decode(),
        )
    )
