# SPDX-License-Identifier: Apache-2.0
"""The verifier: which bytes a client believes. Pure: bytes in, values or an error out; the clock is an argument.

``Verifier`` is made from the bytes of a trust file and then asked about statements and their receipts, in any order
with one exception: a status statement that is to count must be given before what it is to be held against. Nothing
else it was asked changes what it believes, and nothing is returned before every step that applies has passed. The
steps are those of DESIGN §5; the code repeats their numbers, and every error carries the number of its step.

0. The trust file parses and has not expired. ``online`` (pull) allows no grace; verify and load allow ``grace_days``.
1. A tag statement is not expired, not older than the last one seen, and not a second one with the same sequence.
2. The envelope is exactly ours, and both halves of its signature verify under an identity of the trust file. Every
   (namespace, identity) that verifies is kept, because the payload that says which one it is has not been read yet.
3. The payload parses as exactly the kind expected; OMS root, manifest digest and file set agree; the name and signer
   it states select one of the pairs kept, to which ``min_profile`` applies.
4. The receipt proves that a log of the trust file holds this very statement, at an attested time T that the signer's
   validity window contains (``client.attested``). ``log: exempt`` asks for no receipt, and the clock decides.
5. Status of the namespace (``client.status``): nothing of this was revoked. The status statement itself passes 2 to 4.
   Where the trust file names no revoker it is skipped, and the notes say so. ``online`` there must be one, and it must
   be current; otherwise ``offline_status`` says whether there must.
6. Name and digest are those expected.

Steps 7 to 9 concern the weights themselves: ``client.directory``, ``client.pull`` and the loader.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pq_registry import limits
from pq_registry.client.attested import Attestation, attest, check_window
from pq_registry.client.freshness import SeenTag, check_issued, check_tag, target_of
from pq_registry.client.status import SeenStatus, StatusBook, Subject, check_succession
from pq_registry.client.verified import VerifiedRelease
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider
from pq_registry.crypto.trustkeys import TrustedPair, TrustStore
from pq_registry.crypto.trustsigning import root_of
from pq_registry.errors import (
    DigestMismatch,
    FormatError,
    NameMismatch,
    ProfileTooLow,
    RecipientUncertified,
    StatementMismatch,
    TrustExpired,
    TrustMissing,
    UntrustedSigner,
    at_step,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace, Reference, RepositoryName
from pq_registry.format.release import Release, bind
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.status import StatusStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import NamespaceTrust, TrustFile
from pq_registry.log.receipt import Receipt

__all__ = ["GET_TRUST", "SeenStatus", "SeenTag", "VerifiedRelease", "Verifier", "target_of"]

GET_TRUST = (
    "ask the publisher or your operator for a trust file over a channel you trust, or make one from the publisher's "
    ".pqpub file: pqreg trust init trust.json --publisher NAMESPACE=FILE.pqpub; then set PQREG_TRUST"
)


class Verifier:
    """What a trust file lets a client believe at one point in time."""

    def __init__(self, trust_bytes: bytes | None, now: datetime, *, online: bool, provider: Provider = OPENSSL) -> None:
        """Step 0.

        Args:
            trust_bytes: content of the trust file, or None if the client has none.
            now: the time at which everything is judged.
            online: whether fresh statements can be had; if so an expired trust file, tag or status gets no grace, and
                there must be a status statement where the trust file names revokers.
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
        self.online = online
        self._grace = timedelta(0) if online else timedelta(days=self.trust.grace_days)
        self._receipts: dict[tuple[str, int, bytes], Receipt] = {}
        self._book = StatusBook(now, self._grace, online=online, required=self.trust.offline_status == "require")
        if is_expired(now, self.trust.expires, self._grace):
            raise TrustExpired(
                "the trust file has expired",
                expected=f"a date before {format_instant(self.trust.expires)}",
                found=format_instant(now),
                hint="get a newer trust file from whoever gave you this one; the clock of this machine counts too",
            )

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """The receipts that passed step 4, one per tree: what a log has shown, for ``client.consistency``."""
        return tuple(self._receipts.values())

    @property
    def wants_receipts(self) -> bool:
        """Whether step 4 demands receipts."""
        return isinstance(self.trust.log, tuple)

    def wants_status(self, namespace: Namespace) -> bool:
        """Whether step 5 applies to ``namespace``: the trust file names who may revoke."""
        trusted = self.trust.namespaces.get(namespace.key)
        return trusted is not None and bool(trusted.revokers)

    def adopted(self, namespace: Namespace) -> SeenStatus | None:
        """The status statement that counts in step 5 for ``namespace``."""
        return self._book.get(namespace)

    def status(
        self,
        envelope_bytes: bytes,
        namespace: Namespace | None,
        seen: SeenStatus | None,
        *,
        receipt: bytes | None = None,
    ) -> StatusStatement:
        """Steps 2 to 5 for a status statement, which from then on counts in step 5 of everything else.

        Args:
            envelope_bytes: the exact envelope.
            namespace: whose status it must be; None takes whichever it is of.
            seen: the newest one of that namespace accepted before, if any.
            receipt: its receipt.

        Raises:
            StatusRollback, StatusEquivocation: if it contradicts ``seen``, or the one given before.
            StatusExpired: if it has expired, and the verifier is online or the trust file demands news.
            VerificationError: a subclass of the step that refused.
            FormatError: with the step at which the bytes were found malformed.
        """
        with at_step(2):
            envelope = _parse_small(envelope_bytes, limits.STATUS_ENVELOPE_BYTES)
            kept = self._store.matching(envelope)
        with at_step(3):
            statement = StatusStatement.parse(envelope.payload)
        if namespace is not None and statement.namespace.key != namespace.key:
            raise StatementMismatch(
                "this is the status of another namespace", expected=namespace, found=statement.namespace
            )
        trusted = self._namespace(statement.namespace)
        pair = self._choose(kept, statement.namespace, statement.signer, trusted.revokers, "revoker")
        attestation = self._attest(pair, envelope, Kind.STATUS, str(statement.namespace), receipt)
        found = SeenStatus(envelope_bytes, receipt, statement, envelope.payload_digest)
        check_succession(found, seen, signed_at=attestation.time, now=self.now)
        check_issued(f"the status of {statement.namespace}", statement.issued, self.now)
        self._book.adopt(found, signed_at=attestation.time)
        return statement

    def tag(
        self, envelope_bytes: bytes, reference: Reference, seen: SeenTag | None, *, receipt: bytes | None = None
    ) -> TagStatement:
        """Steps 2 to 5 for a tag statement, then step 1.

        Args:
            envelope_bytes: the exact envelope.
            reference: what was asked for; must name a tag.
            seen: the newest statement of this tag accepted before, if any.
            receipt: its receipt.

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
        namespace = statement.repository.namespace
        trusted = self._namespace(namespace)
        pair = self._choose(kept, namespace, statement.signer, trusted.publishers)
        pinned = statement.target in trusted.pinned
        attestation = self._attest(pair, envelope, Kind.TAG, str(statement.repository), receipt, pinned=pinned)
        self._book.check(trusted, Subject(signer=statement.signer, time=attestation.time, pinned=pinned))
        check_tag(statement, envelope.payload_digest, seen, now=self.now, grace=self._grace)
        return statement

    def release(
        self,
        envelope_bytes: bytes,
        manifest_bytes: bytes,
        *,
        expected_name: RepositoryName | None,
        expected_digest: Digest | None,
        receipt: bytes | None = None,
    ) -> VerifiedRelease:
        """Steps 2 to 6 for a release.

        Args:
            envelope_bytes: the exact envelope of the release statement.
            manifest_bytes: the exact bytes of pqreg.json.
            expected_name: the repository it must belong to, if the caller knows.
            expected_digest: the release digest it must have, if the caller knows.
            receipt: the statement's receipt.

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
        namespace, digest = manifest.name.namespace, envelope.payload_digest
        trusted = self._namespace(namespace)
        pair = self._choose(kept, namespace, manifest.signer, trusted.publishers)
        pinned = digest in trusted.pinned
        attestation = self._attest(pair, envelope, Kind.RELEASE, str(manifest.name), receipt, pinned=pinned)
        subject = Subject(signer=manifest.signer, time=attestation.time, pinned=pinned, release=digest)
        revocation = self._book.check(trusted, subject)
        # 6. Last, so that a release of another repository is only ever named after it proved to be genuine.
        if expected_name is not None and manifest.name != expected_name:
            raise NameMismatch("this is a release of another repository", expected=expected_name, found=manifest.name)
        if expected_digest is not None and digest != expected_digest:
            raise DigestMismatch(f"this is another release of {manifest.name}", expected=expected_digest, found=digest)
        release = Release(
            name=manifest.name,
            digest=digest,
            statement=statement,
            manifest=manifest,
            manifest_bytes=manifest_bytes,
            envelope=envelope,
        )
        unchecked = (
            *(() if attestation.time else (attestation.note,)),
            *(() if revocation.current else (revocation.note,)),
        )
        return VerifiedRelease(
            release,
            pair.identity,
            (attestation.note, revocation.note),
            unchecked,
            attestation.receipt,
            self._book.get(namespace),
        )

    def grant(self, envelope_bytes: bytes, *, receipt: bytes | None = None) -> GrantStatement:
        """Steps 2 to 5 for a grant, which a publisher of its namespace must have signed.

        What it grants, to whom and whether it still does is for step 7 (``crypto.sealing.open_grant``).

        Raises:
            VerificationError: a subclass of the step that refused.
            FormatError: with the step at which the bytes were found malformed.
        """
        with at_step(2):
            envelope = _parse_small(envelope_bytes, limits.GRANT_ENVELOPE_BYTES)
            kept = self._store.matching(envelope)
        with at_step(3):
            statement = GrantStatement.parse(envelope.payload)
        namespace = statement.repository.namespace
        trusted = self._namespace(namespace)
        pair = self._choose(kept, namespace, statement.signer, trusted.publishers)
        attestation = self._attest(pair, envelope, Kind.GRANT, str(statement.repository), receipt)
        subject = Subject(
            signer=statement.signer,
            time=attestation.time,
            release=statement.release,
            recipient=statement.recipient,
            grant=envelope.payload_digest,
        )
        self._book.check(trusted, subject)
        check_issued("the grant", statement.issued, self.now)
        return statement

    def certificate(self, envelope_bytes: bytes, namespace: Namespace, *, receipt: bytes | None = None) -> KeyStatement:
        """Steps 2 to 5 for a key statement, which an enrolment identity of ``namespace`` must have signed.

        Raises:
            RecipientUncertified: if it is of another namespace or has lapsed.
            VerificationError: a subclass of the step that refused.
            FormatError: with the step at which the bytes were found malformed.
        """
        with at_step(2):
            envelope = _parse_small(envelope_bytes, limits.GRANT_ENVELOPE_BYTES)
            kept = self._store.matching(envelope)
        with at_step(3):
            statement = KeyStatement.parse(envelope.payload)
        trusted = self._namespace(namespace)
        pair = self._choose(kept, namespace, statement.signer, trusted.enrolment, "enrolment identity")
        if statement.namespace.key != namespace.key:
            raise RecipientUncertified(
                "the recipient is certified for another namespace", expected=namespace, found=statement.namespace
            )
        attestation = self._attest(pair, envelope, Kind.KEY, str(statement.namespace), receipt)
        self._book.check(
            trusted, Subject(signer=statement.signer, time=attestation.time, recipient=statement.recipient)
        )
        check_issued(f"the certificate of {statement.node}", statement.issued, self.now)
        if statement.not_after is not None and is_expired(self.now, statement.not_after):
            raise RecipientUncertified(
                f"the certificate of {statement.node} has lapsed",
                expected=f"a date before {format_instant(statement.not_after)}",
                found=format_instant(self.now),
                hint="have an enrolment identity certify the key again: pqreg key certify",
            )
        return statement

    def _choose(
        self, kept: list[TrustedPair], name: Namespace, signer: str, allowed: tuple[str, ...], role: str = "publisher"
    ) -> TrustedPair:
        """The rest of step 3: name and signer select one of the pairs whose signature verified."""
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
        demanded = self._namespace(name).min_profile
        if pair.identity.profile.level < demanded:
            raise ProfileTooLow(
                f"the signer's profile is too low for {name}",
                expected=f"profile {demanded} or higher",
                found=f"profile {pair.identity.profile.level}",
            )
        return pair

    def _attest(
        self,
        pair: TrustedPair,
        envelope: Envelope,
        kind: Kind,
        name: str,
        receipt: bytes | None,
        *,
        pinned: bool = False,
    ) -> Attestation:
        # 4.
        with at_step(4):
            found = attest(
                envelope, kind=kind, name=name, identity=pair.identity.id, receipt=receipt, log=self.trust.log
            )
            check_window(pair.trusted, found, now=self.now, pinned=pinned)
        if found.receipt is not None:
            shown = found.receipt.checkpoint
            self._receipts[shown.origin, shown.size, shown.root] = found.receipt
        return found

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


def _parse_small(envelope_bytes: bytes, limit: int) -> Envelope:
    if len(envelope_bytes) > limit:
        raise FormatError(
            "the envelope is too large", expected=f"at most {limit} bytes", found=f"{len(envelope_bytes)} bytes"
        )
    return Envelope.parse(envelope_bytes)


def _describe(kept: list[TrustedPair]) -> str:
    return ", ".join(sorted({f"{pair.identity.id} (known for {pair.namespace})" for pair in kept}))
