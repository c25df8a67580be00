# SPDX-License-Identifier: Apache-2.0
"""Tags as their publisher handles them: read the last statement, chain the next one to it, set or withdraw.

The last statement is believed only if the publisher's own identity signed it, or one that the trust file lists for the
namespace; it must not be older than the newest one this publisher has seen. Otherwise a registry could make the
publisher sign a sequence number twice, which every reader takes for equivocation, or jump ahead to where no further
statement is possible.

The registry refuses a sequence number that is used. Whoever is refused looks again: a statement of one's own that
already points to the same target is adopted (it is an earlier try whose answer was lost), and anything else is
somebody else's decision, which is reported and not overridden.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pq_registry.client.loganswers import Logged
from pq_registry.client.published import genuine_signers, require_signer
from pq_registry.client.readback import check_logged
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import SeenTag
from pq_registry.crypto.signing import Signer, sign_envelope
from pq_registry.errors import NotFound, SequenceUsed, StatementMismatch, TagEquivocation, TagRollback
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Reference, RepositoryName, Tag
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Who publishes, where, and what they know: everything push and tag have in common.

    ``trust`` is the publisher's trust file, if there is one; ``now`` is the time of the whole command.
    """

    client: RegistryClient
    signer: Signer
    state_dir: Path
    now: datetime
    trust: TrustFile | None = None

    def checked(self, answer: Logged, envelope: Envelope, kind: Kind, name: object) -> Logged:
        """What the registry answered to a statement of ours, after its receipt was checked.

        Raises:
            LogError: if this publisher's trust file demands receipts, and this one proves nothing.
        """
        return check_logged(
            answer, envelope, kind=kind, name=str(name), signer=self.signer.identity.id, trust=self.trust
        )

    @property
    def seen(self) -> SeenTags:
        """The memory of the newest tag statements."""
        return SeenTags(self.state_dir)


@dataclass(frozen=True, slots=True)
class TagState:
    """A tag's last statement and its payload digest."""

    statement: TagStatement
    payload: Digest


@dataclass(frozen=True, slots=True)
class TagChange:
    """What became of a tag: its last statement, the one before it, and whether this command made the last one.

    ``logged`` is where the log has that; None if this command did not make it.
    """

    statement: TagStatement
    before: TagStatement | None
    changed: bool
    logged: Logged | None = None


def read_tag(publisher: Publisher, repository: RepositoryName, tag: Tag) -> TagState | None:
    """The last statement of a tag; None if it never was set.

    Raises:
        TagRollback, TagEquivocation: if it contradicts what this publisher has seen.
        SignatureError, TrustMissing: if nobody known to sign for the namespace signed it.
        StatementMismatch: if it is of another tag.
        FormatError: if it is not a tag statement.
    """
    label = f"{repository}:{tag}"
    seen = publisher.seen.get(Reference(repository, tag))
    data = publisher.client.tag_envelope(repository, tag)
    if data is None:
        if seen is not None:
            raise _rolled_back(label, seen, "no statement")
        return None
    envelope = Envelope.parse(data)
    genuine = genuine_signers(envelope, repository.namespace, own=publisher.signer.identity, trust=publisher.trust)
    statement = TagStatement.parse(envelope.payload)
    require_signer(statement.signer, genuine, repository.namespace)
    if (statement.repository.key, statement.tag) != (repository.key, tag):
        raise StatementMismatch("the registry answered with the statement of another tag", expected=label,
                                found=f"{statement.repository}:{statement.tag}")  # fmt: skip
    state = TagState(statement, envelope.payload_digest)
    if seen is not None and statement.sequence < seen.sequence:
        raise _rolled_back(label, seen, f"sequence {statement.sequence}")
    if seen is not None and statement.sequence == seen.sequence and state.payload != seen.payload:
        raise TagEquivocation(
            f"two different statements of {label} carry sequence {seen.sequence}",
            expected=seen.payload,
            found=state.payload,
            hint="one of the publishers signed both, or their key is in other hands; find out before you go on",
        )
    return state


def move_tag(
    publisher: Publisher,
    repository: RepositoryName,
    tag: Tag,
    target: Digest | None,
    *,
    lifetime: timedelta,
    renew: bool = False,
) -> TagChange:
    """Point a tag at ``target``, or withdraw it (None).

    A tag that points there already, and has not expired, is left as it is unless ``renew`` says otherwise.

    Raises:
        NotFound: if a tag is to be withdrawn that never was set.
        SequenceUsed: if somebody else changed the tag at the same time.
        VerificationError, FormatError: what ``read_tag`` raises.
    """
    last = read_tag(publisher, repository, tag)
    if last is None and target is None:
        raise NotFound(f"there is no tag {repository}:{tag}", hint=f"list what is there: pqreg ls {repository}")
    own = publisher.signer.identity.id
    now = publisher.now
    before = None if last is None else last.statement
    if last is not None and last.statement.target == target and now < last.statement.expires and not renew:
        _remember(publisher, repository, tag, last)
        return TagChange(last.statement, before, changed=False)
    statement = TagStatement(
        repository=repository,
        tag=tag,
        signer=own,
        sequence=1 if last is None else last.statement.sequence + 1,
        previous=None if last is None else last.payload,
        target=target,
        issued=now,
        expires=now + lifetime,
    )
    envelope = sign_envelope(statement.encode(), publisher.signer)
    state = TagState(statement, envelope.payload_digest)
    logged: Logged | None = None
    try:
        answer = publisher.client.put_tag(repository, tag, envelope.encode())
        logged = publisher.checked(answer, envelope, Kind.TAG, repository)
    except SequenceUsed as refusal:
        state = _look_again(publisher, repository, tag, statement, refusal)
    _remember(publisher, repository, tag, state)
    return TagChange(state.statement, before, changed=True, logged=logged)


def _look_again(
    publisher: Publisher, repository: RepositoryName, tag: Tag, ours: TagStatement, refusal: SequenceUsed
) -> TagState:
    last = read_tag(publisher, repository, tag)
    if last is None:
        raise refusal
    if last.statement.signer == ours.signer and last.statement.target == ours.target:
        return last
    where = "was withdrawn" if last.statement.target is None else f"was pointed at {last.statement.target}"
    raise SequenceUsed(
        f"{repository}:{tag} {where} by {last.statement.signer} at the same moment",
        expected=f"sequence {ours.sequence} to be free",
        found=f"sequence {last.statement.sequence}",
        hint="if yours is still the one to stand, run the same command again; it comes after theirs",
    ) from None


def _remember(publisher: Publisher, repository: RepositoryName, tag: Tag, state: TagState) -> None:
    publisher.seen.advance(Reference(repository, tag), SeenTag(state.statement.sequence, state.payload))


def _rolled_back(label: str, seen: SeenTag, found: str) -> TagRollback:
    return TagRollback(
        f"the registry has an older statement of {label} than this publisher has seen",
        expected=f"sequence {seen.sequence} or higher",
        found=found,
        hint="the registry was restored from an old copy or serves stale data; ask its operator before you sign again",
    )
