# SPDX-License-Identifier: Apache-2.0
"""Step 5 of DESIGN §5: what a namespace's status statement says is revoked, and how new it must be.

A status statement is complete: it lists everything revoked so far. What it must hold against the one seen before, how
current it must be, and what a revocation means for a statement, is decided here from values; ``client.trust`` verifies
the statement itself (steps 2 to 4).

* A revoked release, recipient or grant is refused, whenever the statement about it was signed.
* A revoked identity is refused for what was signed at ``from`` or later. Where the log attests no time T, nothing says
  that it was signed before, so it is refused as soon as ``from`` has come; a release pinned by its digest is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pq_registry.errors import Revoked, StatusEquivocation, StatusExpired, StatusRollback, StatusUnavailable
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.name import Namespace
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from pq_registry.format.trustfile import NamespaceTrust


@dataclass(frozen=True, slots=True)
class SeenStatus:
    """A status statement that was accepted: the exact envelope, its receipt if it has one, and what they hold."""

    envelope: bytes
    receipt: bytes | None
    statement: StatusStatement
    payload: Digest

    @classmethod
    def of(cls, envelope_bytes: bytes, receipt: bytes | None) -> SeenStatus:
        """From the bytes alone; for those that were verified before.

        Raises:
            FormatError: if they are malformed.
        """
        envelope = Envelope.parse(envelope_bytes)
        return cls(envelope_bytes, receipt, StatusStatement.parse(envelope.payload), envelope.payload_digest)

    def withheld(self, found: str) -> StatusRollback:
        """The error for a registry that has an older statement than this, or none."""
        return StatusRollback(
            f"the status of {self.statement.namespace} was moved back to an older statement",
            expected=f"sequence {self.statement.sequence} or higher",
            found=found,
            hint="the registry or a mirror serves stale data; try again later or ask its operator",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is about to be believed: who signed it, when (``time`` is T or None), and what it is about."""

    signer: str
    time: datetime | None
    pinned: bool = False
    release: Digest | None = None
    recipient: str | None = None
    grant: Digest | None = None


@dataclass(frozen=True, slots=True)
class News:
    """What step 5 found: a sentence for people, and whether revocations were checked against current news."""

    note: str
    current: bool


class StatusBook:
    """The status statements a verifier goes by, one per namespace."""

    def __init__(self, now: datetime, grace: timedelta, *, online: bool, required: bool) -> None:
        """Nothing is known yet.

        Args:
            now: the time at which everything is judged.
            grace: how long a status is good after it has expired.
            online: whether there must be a current one, because it can be had.
            required: whether there must be one even so.
        """
        self._now = now
        self._grace = grace
        self._online = online
        self._demanded = online or required
        self._adopted: dict[str, SeenStatus] = {}

    def adopt(self, found: SeenStatus, *, signed_at: datetime | None) -> None:
        """Go by a status statement that passed steps 2 to 4, unless there is a newer one already.

        Args:
            found: the statement.
            signed_at: its T, if it has one.

        Raises:
            StatusExpired: if it is the newest, has expired, and there must be a current one. It counts all the same.
            StatusEquivocation: if it is another one of the sequence that is here.
            StatusRollback: if it takes back a revocation of the one that is here.
            Revoked: if the one that is here revokes the identity that signed it.
        """
        known = self._adopted.get(found.statement.namespace.key)
        if known is not None and known.statement.sequence > found.statement.sequence:
            return
        check_succession(found, known, signed_at=signed_at, now=self._now)
        self._adopted[found.statement.namespace.key] = found
        self._require_current(found)

    def get(self, namespace: Namespace) -> SeenStatus | None:
        """What counts for ``namespace``."""
        return self._adopted.get(namespace.key)

    def check(self, trusted: NamespaceTrust, subject: Subject) -> News:
        """Step 5 for one statement.

        Raises:
            Revoked: naming what was revoked.
            StatusUnavailable: if there must be a status statement and there is none.
            StatusExpired: if there must be a current one, and the newest has expired.
        """
        namespace = trusted.namespace
        if not trusted.revokers:
            note = f"revocation: not checked, the trust file names no revoker for {namespace}"
            return News(note, current=False)
        known = self.get(namespace)
        if known is None:
            return self._without(namespace)
        check_not_revoked(known.statement, subject, self._now)
        self._require_current(known)
        label = f"status {known.statement.sequence} of {namespace}"
        until = format_instant(known.statement.expires)
        if self._expired(known):
            note = f"revocation: checked against {label}, which expired on {until}; later revocations are not known"
            return News(note, current=False)
        return News(f"revocation: checked against {label}, good until {until}", current=True)

    def _without(self, namespace: Namespace) -> News:
        if not self._demanded:
            note = f"revocation: not checked, there is no status statement for {namespace}"
            return News(note, current=False)
        why = "a registry is asked" if self._online else "the trust file says `offline_status: require`"
        hint = (
            f"a revoker of {namespace} must issue one, even if nothing is revoked: pqreg status issue {namespace}"
            if self._online
            else "pull again to get one (pqreg pull), or let the trust file say offline_status: warn if that will do"
        )
        raise StatusUnavailable(
            f"the revocation status of {namespace} is not known",
            expected=f"a status statement, since the trust file names revokers and {why}",
            found="none",
            hint=hint,
        )

    def _require_current(self, known: SeenStatus) -> None:
        if self._demanded and self._expired(known):
            raise StatusExpired(
                f"the status of {known.statement.namespace} has expired",
                expected=f"a date before {format_instant(known.statement.expires)}",
                found=format_instant(self._now),
                hint="a revoker must issue a new one (pqreg status issue); a directory gets it with pqreg pull",
            )

    def _expired(self, known: SeenStatus) -> bool:
        return is_expired(self._now, known.statement.expires, self._grace)


def check_succession(found: SeenStatus, seen: SeenStatus | None, *, signed_at: datetime | None, now: datetime) -> None:
    """A status statement follows the newest one seen, or is that one; ``signed_at`` is its T, if it has one.

    Raises:
        StatusRollback: if it is older, or takes a revocation back.
        StatusEquivocation: if it is another one of the same sequence.
        Revoked: if the one seen revokes the identity that signed it.
    """
    if seen is None or found.payload == seen.payload:
        return
    statement = found.statement
    label = f"the status of {statement.namespace}"
    if statement.sequence < seen.statement.sequence:
        raise seen.withheld(f"sequence {statement.sequence}")
    if statement.sequence == seen.statement.sequence:
        raise _equivocation(found, seen)
    if not statement.extends(seen.statement):
        raise StatusRollback(
            f"{label} takes back a revocation",
            expected="everything that was revoked before, and possibly more",
            found=f"sequence {statement.sequence} lacks an entry of sequence {seen.statement.sequence}",
            hint="revocations are final; ask the revokers who signed this, their key may be in other hands",
        )
    check_not_revoked(seen.statement, Subject(signer=statement.signer, time=signed_at), now)


def check_not_revoked(statement: StatusStatement, subject: Subject, now: datetime) -> None:
    """Nothing in the status stands against ``subject``.

    Raises:
        Revoked: naming what was revoked.
    """
    for entry in statement.revoked:
        if _meets(entry, subject, now):
            when = "" if subject.time is None else f"; signed at {format_instant(subject.time)}, as its log attests"
            raise Revoked(
                f"the {entry.kind.value} {entry.subject} is revoked",
                expected=f"nothing that status {statement.sequence} of {statement.namespace} revokes",
                found=f"revoked from {format_instant(entry.since)}{when}",
                hint=_HINTS[entry.kind],
            )


def _equivocation(found: SeenStatus, known: SeenStatus) -> StatusEquivocation:
    return StatusEquivocation(
        f"two different statements of the status of {found.statement.namespace} carry sequence "
        f"{found.statement.sequence}",
        expected=known.payload,
        found=found.payload,
        hint="a revoker's key signed both: ask the revokers, and keep both statements as evidence",
    )


def _meets(entry: Revocation, subject: Subject, now: datetime) -> bool:
    if entry.kind is RevocationKind.RELEASE:
        return subject.release is not None and entry.subject == str(subject.release)
    if entry.kind is RevocationKind.RECIPIENT:
        return entry.subject == subject.recipient
    if entry.kind is RevocationKind.GRANT:
        return subject.grant is not None and entry.subject == str(subject.grant)
    if entry.subject != subject.signer:
        return False
    if subject.time is not None:
        return subject.time >= entry.since
    return now >= entry.since and not subject.pinned


_HINTS = {
    RevocationKind.IDENTITY: "ask the publisher to sign again with another identity; a release you know to be genuine "
    "and that no witness dates can be pinned in the trust file",
    RevocationKind.RELEASE: "the publisher withdrew this release for good; use another one",
    RevocationKind.RECIPIENT: "nothing is to be granted to this key any more; make a new one and have it granted",
    RevocationKind.GRANT: "ask the publisher for another grant",
}
