# SPDX-License-Identifier: Apache-2.0
"""The status of a namespace as its revokers handle it: read the last statement, chain the next one to it.

The list is complete and only grows. Whoever signs the next statement repeats every entry of the last one, which is
therefore believed only if a revoker of the trust file signed it, or this very identity; it must not be older than the
newest one this revoker has seen, or a registry could make two statements of one sequence out of it, or lose an entry.

Issuing without a new entry renews: the same list with a later expiry. A revoker does that on a timer, because readers
who ask a registry refuse a namespace whose status has expired.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from pq_registry import limits
from pq_registry.client.loganswers import Logged
from pq_registry.client.push import register
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.status import SeenStatus, check_succession
from pq_registry.client.tagging import Publisher
from pq_registry.crypto.signing import failed_halves, sign_envelope
from pq_registry.crypto.trustkeys import TrustStore
from pq_registry.errors import FormatError, SequenceUsed, StatementMismatch, TrustMissing, UntrustedSigner
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace
from pq_registry.format.status import Revocation, StatusStatement


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What became of a status: its last statement, what this command added to the list, and where the log has it."""

    statement: StatusStatement
    added: tuple[Revocation, ...]
    changed: bool
    logged: Logged | None = None


def read_status(publisher: Publisher, namespace: Namespace) -> SeenStatus | None:
    """The last status statement of a namespace; None if nobody ever issued one.

    Raises:
        StatusRollback, StatusEquivocation: if it contradicts what this revoker has seen.
        SignatureError, TrustMissing: if nobody known to revoke for the namespace signed it.
        StatementMismatch: if it is of another namespace.
        FormatError: if it is not a status statement.
    """
    seen = SeenStatuses(publisher.state_dir).get(namespace)
    data = publisher.client.status_envelope(namespace)
    if data is None:
        if seen is not None:
            raise seen.withheld("no status statement")
        return None
    if len(data) > limits.STATUS_ENVELOPE_BYTES:
        raise FormatError("the envelope is too large", expected=f"at most {limits.STATUS_ENVELOPE_BYTES} bytes")
    envelope = Envelope.parse(data)
    revokers = _genuine_revokers(publisher, namespace, envelope)
    statement = StatusStatement.parse(envelope.payload)
    if statement.signer not in revokers:
        raise UntrustedSigner(
            f"the signature is genuine, but its signer may not revoke for {namespace}",
            expected=f"a revoker of {namespace} in the trust file, as named in the statement",
            found=f"signer {statement.signer}",
        )
    if statement.namespace.key != namespace.key:
        raise StatementMismatch(
            "the registry answered with the status of another namespace", expected=namespace, found=statement.namespace
        )
    found = SeenStatus(data, None, statement, envelope.payload_digest)
    check_succession(found, seen, signed_at=None, now=publisher.now)
    return found


def issue(
    publisher: Publisher, namespace: Namespace, revoked: Iterable[Revocation] = (), *, lifetime: timedelta
) -> StatusChange:
    """Sign and publish the next status statement: the last one's entries and those of ``revoked``.

    An entry that is there already keeps the earlier of the two times. Where every one of ``revoked`` is there already,
    nothing is signed; without any, the statement is renewed.

    Raises:
        SequenceUsed: if somebody else issued one at the same time.
        FormatError: if the list is too long.
        PqregError: what ``read_status`` and the registry raise.
    """
    wanted = tuple(revoked)
    last = read_status(publisher, namespace)
    present = {} if last is None else {entry.key: entry for entry in last.statement.revoked}
    added = tuple(entry for entry in wanted if entry.key not in present or entry.since < present[entry.key].since)
    if last is not None and wanted and not added:
        return StatusChange(last.statement, (), changed=False)
    present |= {entry.key: entry for entry in added}
    statement = StatusStatement(
        namespace=namespace if last is None else last.statement.namespace,
        signer=publisher.signer.identity.id,
        sequence=1 if last is None else last.statement.sequence + 1,
        previous=None if last is None else last.payload,
        revoked=tuple(entry for _, entry in sorted(present.items())),
        issued=publisher.now,
        expires=publisher.now + lifetime,
    )
    envelope = sign_envelope(statement.encode(), publisher.signer)
    register(publisher, namespace)
    logged = None
    found = SeenStatus(envelope.encode(), None, statement, envelope.payload_digest)
    try:
        answer = publisher.client.put_status(namespace, found.envelope)
        logged = publisher.checked(answer, envelope, Kind.STATUS, statement.namespace)
    except SequenceUsed:
        # An earlier try of ours whose answer was lost, or another revoker's statement, which is not overridden.
        again = read_status(publisher, namespace)
        if again is None or again.statement.signer != statement.signer or again.statement.revoked != statement.revoked:
            raise
        found = again
    SeenStatuses(publisher.state_dir).advance(namespace, found)
    return StatusChange(found.statement, added, changed=True, logged=logged)


def _genuine_revokers(publisher: Publisher, namespace: Namespace, envelope: Envelope) -> frozenset[str]:
    """Ids of those who signed ``envelope`` and may revoke for ``namespace``; nothing of the payload is parsed."""
    own = publisher.signer.identity
    failures = failed_halves(envelope, own)
    if not failures:
        return frozenset({own.id})
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if publisher.trust is None:
        raise TrustMissing(
            "the last status was signed by another identity than yours, and no trust file says whether to believe it",
            hint=f"give a trust file that lists the revokers of {namespace}: --trust FILE, or set PQREG_TRUST",
        )
    listed = publisher.trust.namespaces.get(namespace.key)
    revokers = () if listed is None else listed.revokers
    return frozenset(
        pair.identity.id
        for pair in TrustStore.from_trust_file(publisher.trust).matching(envelope)
        if pair.namespace.key == namespace.key and pair.identity.id in revokers
    )
