# SPDX-License-Identifier: Apache-2.0
"""Grants as their publisher handles them: read the last statement, chain the next one to it, give or withdraw.

A publisher can grant what it can open itself: the content key comes out of the grant to its own recipient, and is
compared with the manifest's commitment before it is wrapped for anybody.

For whom is said in ``client.vouched``.

What withdrawing a grant does: the registry does not hand it out any more, and nobody who asks for it first then gets
the key. What it cannot do: whoever unwrapped the key once has it, for this release and for ever. ``reseal`` makes a
release under a key they do not have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pq_registry import limits
from pq_registry.client.loganswers import Logged
from pq_registry.client.published import genuine_signers, read_release, require_signer
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.status import Subject
from pq_registry.client.tagging import Publisher, read_tag
from pq_registry.client.trust import target_of
from pq_registry.client.unsealing import no_grant
from pq_registry.client.vouched import refuse_revoked, require_profile
from pq_registry.crypto.recipient import OwnsRecipient, PublicRecipient, RecipientKey
from pq_registry.crypto.sealing import open_grant
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    FormatError,
    NotFound,
    PolicyError,
    SequenceUsed,
    StatementMismatch,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import is_expired
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Reference
from pq_registry.format.release import Release


@dataclass(frozen=True, slots=True)
class GrantState:
    """The last statement about a recipient, and its payload digest."""

    statement: GrantStatement
    payload: Digest


@dataclass(frozen=True, slots=True)
class GrantChange:
    """What became of a grant: its last statement, whether this command made it, and where the log then has it."""

    statement: GrantStatement
    changed: bool
    logged: Logged | None = None


def named_release(publisher: Publisher, reference: Reference) -> Release:
    """The sealed release a reference means, read back and verified as a publisher does.

    Raises:
        NotFound: if there is no such tag or release.
        UsageError: if it is not sealed.
        VerificationError, FormatError: if it is not what it should be.
    """
    repository, digest = reference.repository, reference.digest
    if digest is None:
        assert reference.tag is not None
        state = read_tag(publisher, repository, reference.tag)
        if state is None:
            raise NotFound(f"there is no tag {reference}", hint=f"list what is there: pqreg ls {repository}")
        digest = target_of(state.statement)
    own = publisher.signer.identity
    release = read_release(publisher.client, repository, digest, own=own, trust=publisher.trust)
    if release.manifest.sealing is None:
        raise UsageError(
            f"{repository}@{digest} is not sealed, so everybody who can fetch it can read it",
            hint="pqreg push --seal makes a sealed release",
        )
    return release


def own_recipient(publisher: Publisher) -> RecipientKey:
    """The recipient key of the signing identity itself.

    Raises:
        PolicyError: if its key has none.
    """
    signer = publisher.signer
    if not isinstance(signer, OwnsRecipient):
        raise PolicyError(
            "this signing key is no recipient, so what it seals nobody could grant later",
            expected="an identity with a recipient key of its own",
            hint="sign with an identity made by pqreg key generate",
        )
    return signer.recipient


def in_force(statement: GrantStatement, now: datetime) -> bool:
    """Whether a statement still grants."""
    return not statement.withdrawn and (statement.expires is None or not is_expired(now, statement.expires))


def read_grant(publisher: Publisher, release: Release, recipient: str) -> GrantState | None:
    """The last statement about a recipient; None if there never was one.

    It may not be older than the newest one this publisher has seen: a statement that follows an old one would carry a
    sequence number twice, and a withdrawal would be forgotten.

    Raises:
        GrantRollback, GrantEquivocation: if it contradicts what this publisher has seen.
        SignatureError, TrustMissing: if nobody known to sign for the namespace signed it.
        StatementMismatch: if it is about another release or recipient.
        FormatError: if it is not a grant statement.
    """
    seen = SeenGrants(publisher.state_dir)
    data = publisher.client.grant_envelope(release.name, release.digest, recipient)
    if data is None:
        seen.require_none(release.name, release.digest, recipient)
        return None
    if len(data) > limits.GRANT_ENVELOPE_BYTES:
        raise FormatError("the grant's envelope is too large", expected=f"at most {limits.GRANT_ENVELOPE_BYTES} bytes")
    envelope = Envelope.parse(data)
    namespace = release.name.namespace
    genuine = genuine_signers(envelope, namespace, own=publisher.signer.identity, trust=publisher.trust)
    statement = GrantStatement.parse(envelope.payload)
    require_signer(statement.signer, genuine, namespace)
    expected = (release.name.key, release.digest, recipient)
    if (statement.repository.key, statement.release, statement.recipient) != expected:
        raise StatementMismatch(
            "the registry answered with another grant",
            expected=f"{release.name}@{release.digest} for {recipient}",
            found=f"{statement.repository}@{statement.release} for {statement.recipient}",
        )
    seen.accept(statement)
    return GrantState(statement, envelope.payload_digest)


def content_key(publisher: Publisher, release: Release) -> SecretBytes:
    """The content key of a release, out of the publisher's own grant; the caller wipes it.

    Raises:
        GrantMissing: if there is none.
        VerificationError: if it does not open, or not the release.
        FormatError: if the release is not sealed.
    """
    own = own_recipient(publisher)
    state = read_grant(publisher, release, own.public.id)
    if state is None:
        raise no_grant(release, own.public.id, "none for your own identity; only who can read a release can grant it")
    statement = state.statement
    opened = open_grant(statement, key=own, manifest=release.manifest, release=release.digest, now=publisher.now)
    opened.wipe()  # it has shown that the key is right; what is wrapped again is the key itself
    assert statement.wrapped is not None
    return own.unwrap(statement.wrapped, release.digest)


def give(
    publisher: Publisher,
    release: Release,
    recipient: PublicRecipient,
    key: SecretBytes,
    *,
    expires: datetime | None = None,
    renew: bool = False,
) -> GrantChange:
    """Grant a release to a recipient, unless exactly that is in force; with ``renew``, also then.

    Nodes judge a grant by its signer, too: after a rotation, grants signed by the old identity lapse with it.

    Raises:
        PolicyError: if somebody else's key is of a lower profile than the namespace demands.
        Revoked: if the namespace's status revokes the recipient or the release.
        SequenceUsed: if somebody else changed the grant at the same time.
        PqregError: what ``read_grant`` and the registry raise.
    """
    granted = Subject(signer="", time=None, release=release.digest, recipient=recipient.id)
    refuse_revoked(publisher, release.name.namespace, granted)
    if recipient.id != own_recipient(publisher).public.id:
        require_profile(publisher, release.name.namespace, recipient)

    def wrap() -> bytes:
        return recipient.wrap(key, release.digest)

    return _change(publisher, release, recipient.id, wrap, expires, renew=renew)


def withdraw(publisher: Publisher, release: Release, recipient: str) -> GrantChange:
    """Take a grant back; the module says what that means.

    Raises:
        NotFound: if there never was one.
        SequenceUsed: if somebody else changed it at the same time.
        PqregError: what ``read_grant`` and the registry raise.
    """
    return _change(publisher, release, recipient, None, None)


def _change(
    publisher: Publisher,
    release: Release,
    recipient: str,
    wrap: Callable[[], bytes] | None,
    expires: datetime | None,
    *,
    renew: bool = False,
) -> GrantChange:
    last = read_grant(publisher, release, recipient)
    if last is None and wrap is None:
        raise NotFound(f"{release.name} was never granted to {recipient}", hint=f"see pqreg grant list {release.name}")
    if last is not None and not renew and _means(last.statement, wrap is not None, expires, publisher.now):
        return GrantChange(last.statement, changed=False)
    statement = GrantStatement(
        repository=release.name,
        release=release.digest,
        signer=publisher.signer.identity.id,
        recipient=recipient,
        sequence=1 if last is None else last.statement.sequence + 1,
        previous=None if last is None else last.payload,
        wrapped=None if wrap is None else wrap(),
        issued=publisher.now,
        expires=expires,
    )
    envelope = sign_envelope(statement.encode(), publisher.signer)
    try:
        answer = publisher.client.put_grant(release.name, release.digest, recipient, envelope.encode())
        logged = publisher.checked(answer, envelope, Kind.GRANT, release.name)
    except SequenceUsed:
        # An earlier try of ours whose answer was lost, or somebody else's decision, which is not overridden.
        state = read_grant(publisher, release, recipient)
        if (
            state is None
            or state.statement.signer != statement.signer
            or not _means(state.statement, wrap is not None, expires, publisher.now)
        ):
            raise
        return GrantChange(state.statement, changed=True)
    SeenGrants(publisher.state_dir).accept(statement)
    return GrantChange(statement, changed=True, logged=logged)


def _means(statement: GrantStatement, granted: bool, expires: datetime | None, now: datetime) -> bool:
    if not granted:
        return statement.withdrawn
    return in_force(statement, now) and statement.expires == expires
