# SPDX-License-Identifier: Apache-2.0
"""The verifier: which bytes a client believes. Pure: bytes in, values or an error out; the clock is an argument.

``Verifier`` is made from the bytes of a trust file and then asked about tag envelopes and releases, in any order.
Nothing it was asked changes what it believes, and nothing is returned before every step that applies has passed.
The steps are those of DESIGN §5; the code repeats their numbers, and every error carries the number of its step.

0. The trust file parses and has not expired. ``online`` (pull) allows no grace; verify and load allow ``grace_days``.
1. A tag statement is not expired, not older than the last one seen, and not a second one with the same sequence.
2. The envelope is exactly ours, and both halves of its signature verify under an identity of the trust file. Every
   (namespace, identity) that verifies is kept, because the payload that says which one it is has not been read yet.
3. The payload parses as exactly the kind expected; OMS root, manifest digest and file set agree; the name and signer
   it states select one of the pairs kept, to which ``min_profile`` applies.
4. Log proof. A trust file of this version says ``log: exempt``: there is no attested time, so validity windows are
   judged at the client's clock, and a lapsed identity is refused unless the release's digest is pinned.
5. Status of the namespace. Where the trust file names no revoker it is skipped, and the notes say so.
6. Name and digest are those expected.

Steps 7 to 9 concern the weights themselves: ``client.directory``, ``client.pull`` and the loader.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider
from pq_registry.crypto.trustkeys import TrustedPair, TrustStore
from pq_registry.crypto.trustsigning import root_of
from pq_registry.errors import (
    DigestMismatch,
    FormatError,
    IdentityLapsed,
    NameMismatch,
    ProfileTooLow,
    RecipientUncertified,
    StatementMismatch,
    StatusUnavailable,
    TagEquivocation,
    TagExpired,
    TagRollback,
    TagWithdrawn,
    TrustExpired,
    TrustMissing,
    UntrustedSigner,
    at_step,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import format_instant, in_window, is_expired
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.name import Namespace, Reference, RepositoryName
from pq_registry.format.release import Release, bind
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import NamespaceTrust, TrustFile

GET_TRUST = (
    "ask the publisher or your operator for a trust file over a channel you trust, or make one from the publisher's "
    ".pqpub file: pqreg trust init trust.json --publisher NAMESPACE=FILE.pqpub; then set PQREG_TRUST"
)


@dataclass(frozen=True, slots=True)
class SeenTag:
    """The newest statement of a tag this client has accepted: its sequence and its payload's digest."""

    sequence: int
    payload: Digest


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release that passed steps 0 to 6.

    ``notes`` are sentences about what the trust file let pass unchecked; every command shows them.
    """

    release: Release
    signer: PublicIdentity
    notes: tuple[str, ...]


class Verifier:
    """What a trust file lets a client believe at one point in time."""

    def __init__(self, trust_bytes: bytes | None, now: datetime, *, online: bool, provider: Provider = OPENSSL) -> None:
        """Step 0.

        Args:
            trust_bytes: content of the trust file, or None if the client has none.
            now: the time at which everything is judged.
            online: whether fresh statements can be had; if so an expired trust file or tag gets no grace.
            provider: who verifies signatures.

        Raises:
            TrustMissing: without a trust file.
            TrustExpired: at or after its expiry (plus ``grace_days`` when not online).
            FormatError: if the file or a key in it is malformed.
        """
        if trust_bytes is None:
            raise TrustMissing("no trust file is configured, so nothing can be believed", hint=GET_TRUST)
        with at_step(0):
            self.trust = TrustFile.parse(trust_bytes)
            self._store = TrustStore.from_trust_file(self.trust, provider=provider)
            root_of(self.trust)  # checked like every key in the file, though nothing here is signed by it
        self.now = now
        self._grace = timedelta(0) if online else timedelta(days=self.trust.grace_days)
        if is_expired(now, self.trust.expires, self._grace):
            raise TrustExpired(
                "the trust file has expired",
                expected=f"a date before {format_instant(self.trust.expires)}",
                found=format_instant(now),
                hint="get a newer trust file from whoever gave you this one; the clock of this machine counts too",
            )

    def tag(self, envelope_bytes: bytes, reference: Reference, seen: SeenTag | None) -> TagStatement:
        """Steps 2 to 5 for a tag statement, then step 1.

        Args:
            envelope_bytes: the exact envelope.
            reference: what was asked for; must name a tag.
            seen: the newest statement of this tag accepted before, if any.

        Returns:
            The statement. It may withdraw the tag: remember its sequence, then call ``target_of``.

        Raises:
            VerificationError: a subclass of the step that refused.
            FormatError: with the step at which the bytes were found malformed.
        """
        with at_step(2):
            envelope = Envelope.parse(envelope_bytes)
            kept = self._store.matching(envelope)
        with at_step(3):
            statement = TagStatement.parse(envelope.payload)
        if (statement.repository, statement.tag) != (reference.repository, reference.tag):
            raise StatementMismatch(
                "this is the statement of another tag",
                expected=f"{reference.repository}:{reference.tag}",
                found=f"{statement.repository}:{statement.tag}",
            )
        publishers = self._namespace(statement.repository.namespace).publishers
        self._admit(kept, statement.repository.namespace, statement.signer, statement.target, publishers)
        self._check_freshness(statement, envelope.payload_digest, seen)
        return statement

    def release(
        self,
        envelope_bytes: bytes,
        manifest_bytes: bytes,
        *,
        expected_name: RepositoryName | None,
        expected_digest: Digest | None,
    ) -> VerifiedRelease:
        """Steps 2 to 6 for a release.

        Args:
            envelope_bytes: the exact envelope of the release statement.
            manifest_bytes: the exact bytes of pqreg.json.
            expected_name: the repository it must belong to, if the caller knows.
            expected_digest: the release digest it must have, if the caller knows.

        Raises:
            VerificationError: a subclass of the step that refused.
            FormatError: with the step at which the bytes were found malformed.
        """
        with at_step(2):
            envelope = Envelope.parse(envelope_bytes)
            kept = self._store.matching(envelope)
        with at_step(3):
            statement = ReleaseStatement.parse(envelope.payload)
            manifest = bind(statement, envelope.payload_digest, manifest_bytes)
        notes = self._admit(
            kept,
            manifest.name.namespace,
            manifest.signer,
            envelope.payload_digest,
            self._namespace(manifest.name.namespace).publishers,
        )
        # 6. Last, so that a release of another repository is only ever named after it proved to be genuine.
        if expected_name is not None and manifest.name != expected_name:
            raise NameMismatch("this is a release of another repository", expected=expected_name, found=manifest.name)
        if expected_digest is not None and envelope.payload_digest != expected_digest:
            raise DigestMismatch(
                f"this is another release of {manifest.name}", expected=expected_digest, found=envelope.payload_digest
            )
        signer = next(pair.identity for pair in kept if pair.identity.id == manifest.signer)
        release = Release(
            name=manifest.name,
            digest=envelope.payload_digest,
            statement=statement,
            manifest=manifest,
            manifest_bytes=manifest_bytes,
            envelope=envelope,
        )
        return VerifiedRelease(release, signer, notes)

    def grant(self, envelope_bytes: bytes) -> GrantStatement:
        """Steps 2 to 5 for a grant, which a publisher of its namespace must have signed.

        What it grants, to whom and whether it still does is for step 7 (``crypto.sealing.open_grant``).

        Raises:
            VerificationError: a subclass of the step that refused.
            FormatError: with the step at which the bytes were found malformed.
        """
        with at_step(2):
            envelope = _parse_small(envelope_bytes)
            kept = self._store.matching(envelope)
        with at_step(3):
            statement = GrantStatement.parse(envelope.payload)
        namespace = statement.repository.namespace
        self._admit(kept, namespace, statement.signer, None, self._namespace(namespace).publishers)
        if statement.issued > self.now + timedelta(seconds=limits.CLOCK_SKEW_SECONDS):
            raise StatementMismatch(
                "the grant comes from the future",
                expected=f"issued at {format_instant(self.now)} or before",
                found=format_instant(statement.issued),
                hint="check the clock of this machine",
            )
        return statement

    def certificate(self, envelope_bytes: bytes, namespace: Namespace) -> KeyStatement:
        """Steps 2 to 5 for a key statement, which an enrolment identity of ``namespace`` must have signed.

        Raises:
            RecipientUncertified: if it is of another namespace or has lapsed.
            VerificationError: a subclass of the step that refused.
            FormatError: with the step at which the bytes were found malformed.
        """
        with at_step(2):
            envelope = _parse_small(envelope_bytes)
            kept = self._store.matching(envelope)
        with at_step(3):
            statement = KeyStatement.parse(envelope.payload)
        self._admit(kept, namespace, statement.signer, None, self._namespace(namespace).enrolment, "enrolment identity")
        if statement.namespace.key != namespace.key:
            raise RecipientUncertified(
                "the recipient is certified for another namespace", expected=namespace, found=statement.namespace
            )
        if statement.not_after is not None and is_expired(self.now, statement.not_after):
            raise RecipientUncertified(
                f"the certificate of {statement.node} has lapsed",
                expected=f"a date before {format_instant(statement.not_after)}",
                found=format_instant(self.now),
                hint="have an enrolment identity certify the key again: pqreg key certify",
            )
        return statement

    def _admit(
        self,
        kept: list[TrustedPair],
        name: Namespace,
        signer: str,
        digest: Digest | None,
        allowed: tuple[str, ...],
        role: str = "publisher",
    ) -> tuple[str, ...]:
        """The rest of step 3, and steps 4 and 5: the stated signer, one of ``allowed``, may sign for ``name`` now."""
        namespace = self._namespace(name)
        # 3. Name and signer select one of the pairs whose signature verified; only publishers sign releases and tags.
        chosen = [
            pair for pair in kept if pair.namespace.key == name.key and pair.identity.id == signer and signer in allowed
        ]
        if not chosen:
            raise UntrustedSigner(
                f"the signature is genuine, but its signer may not sign for {name}",
                expected=f"a {role} of {name} in the trust file",
                found=f"signer {signer}; the signature is by {_describe(kept)}",
            )
        pair = chosen[0]
        if pair.identity.profile.level < namespace.min_profile:
            raise ProfileTooLow(
                f"the signer's profile is too low for {name}",
                expected=f"profile {namespace.min_profile} or higher",
                found=f"profile {pair.identity.profile.level}",
            )
        # 4. No attested time without a log: the window is judged now.
        trusted = pair.trusted
        pinned = digest is not None and digest in namespace.pinned
        if not pinned and not in_window(self.now, trusted.not_before, trusted.not_after):
            start = format_instant(trusted.not_before) if trusted.not_before else "the beginning"
            end = format_instant(trusted.not_after) if trusted.not_after else "the end of time"
            raise IdentityLapsed(
                f"the signer {signer} is not valid at this time",
                expected=f"a time from {start} to before {end}",
                found=format_instant(self.now),
                hint="get a newer trust file; an old release you rely on can be pinned there by its digest",
            )
        return ("transparency log: not checked, the trust file says `log: exempt`", self._status_note(namespace))

    def _status_note(self, namespace: NamespaceTrust) -> str:
        # 5. Status statements need the log; until then a demand for them cannot be met and is a refusal.
        if not namespace.revokers:
            return f"revocation: not checked, the trust file names no revoker for {namespace.namespace}"
        if self.trust.offline_status == "require":
            raise StatusUnavailable(
                f"the revocation status of {namespace.namespace} is not known",
                expected="a status statement, since the trust file says `offline_status: require`",
                found="none",
                hint="set offline_status to warn in the trust file if that is acceptable at this site",
            )
        return f"revocation: not checked, there is no status statement for {namespace.namespace}"

    def _check_freshness(self, statement: TagStatement, payload: Digest, seen: SeenTag | None) -> None:
        # 1. Only a statement that passed everything else may say what is fresh.
        label = f"{statement.repository}:{statement.tag}"
        if seen is not None and statement.sequence < seen.sequence:
            raise TagRollback(
                f"{label} was moved back to an older statement",
                expected=f"sequence {seen.sequence} or higher",
                found=f"sequence {statement.sequence}",
                hint="the registry or a mirror serves stale data; try again later or ask its operator",
            )
        if seen is not None and statement.sequence == seen.sequence and payload != seen.payload:
            raise TagEquivocation(
                f"two different statements of {label} carry sequence {seen.sequence}",
                expected=seen.payload,
                found=payload,
                hint="the publisher's key signed both: ask the publisher, and keep both statements as evidence",
            )
        if is_expired(self.now, statement.expires, self._grace):
            raise TagExpired(
                f"the statement of {label} has expired",
                expected=f"a date before {format_instant(statement.expires)}",
                found=format_instant(self.now),
                hint="ask the publisher to set the tag again (pqreg tag), or name the release by its digest",
            )
        if statement.issued > self.now + timedelta(seconds=limits.CLOCK_SKEW_SECONDS):
            raise StatementMismatch(
                f"the statement of {label} comes from the future",
                expected=f"issued at {format_instant(self.now)} or before",
                found=format_instant(statement.issued),
                hint="check the clock of this machine",
            )

    def _namespace(self, namespace: Namespace) -> NamespaceTrust:
        trusted = self.trust.namespaces.get(namespace.key)
        if trusted is None:
            raise TrustMissing(
                f"the trust file says nothing about {namespace}",
                expected=f"namespace {namespace}",
                found=", ".join(sorted(self.trust.namespaces)) or "none",
                hint=f"add its publisher: pqreg trust add TRUST.json --publisher {namespace}=FILE.pqpub",
            )
        return trusted


def _parse_small(envelope_bytes: bytes) -> Envelope:
    if len(envelope_bytes) > limits.GRANT_ENVELOPE_BYTES:
        raise FormatError("the envelope is too large", expected=f"at most {limits.GRANT_ENVELOPE_BYTES} bytes",
                          found=f"{len(envelope_bytes)} bytes")  # fmt: skip
    return Envelope.parse(envelope_bytes)


def _describe(kept: list[TrustedPair]) -> str:
    return ", ".join(sorted({f"{pair.identity.id} (known for {pair.namespace})" for pair in kept}))


def target_of(statement: TagStatement) -> Digest:
    """The release a tag points to.

    Raises:
        TagWithdrawn: if the statement withdraws the tag.
    """
    if statement.target is None:
        raise TagWithdrawn(
            f"the publisher withdrew {statement.repository}:{statement.tag}",
            found=f"sequence {statement.sequence} of {format_instant(statement.issued)}",
            hint="list what is there: pqreg ls " + str(statement.repository),
        )
    return statement.target
