# SPDX-License-Identifier: Apache-2.0
"""Judges one logged statement against a trust file. Pure: bytes in, findings and a fact out.

For each leaf, in this order; what is wrong is collected, and the order only decides what can still be looked at:

1. The envelope is the one that was logged: its payload has the leaf's digest and its signatures the leaf's digests.
2. The receipt verifies for this leaf, under a policy of the trust file; it gives the attested time.
3. The statement parses as what the leaf calls it, and leaf and statement agree about name and signer.
4. The trust file lists the signer for the namespace, in the role that the kind demands.
5. Both halves of the signature verify under that identity, and its profile is sufficient.
6. The identity was valid at the attested time. Without one (no independent witness, or a leaf older than its receipt)
   at the leaf's own time, which is the log's word. A release that the trust file pins passes.

Whether the signer was revoked, and whether the statement continues those before it, takes the other leaves
(``audit.chains``). A namespace the trust file does not list cannot be judged; its leaves are counted, not found fault
with. Expiry of the trust file is no concern here: whoever audits says which trust file counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pq_registry.client.attested import Attestation, check_window
from pq_registry.client.audit.facts import Fact, Statement, fact_of, read_statement
from pq_registry.client.audit.finding import Code, Finding
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider
from pq_registry.crypto.signing import failed_halves
from pq_registry.crypto.trustkeys import TrustedPair, TrustStore
from pq_registry.errors import (
    FormatError,
    IdentityLapsed,
    NotFound,
    PqregError,
    ReceiptMissing,
    SignatureInvalid,
    TrustMissing,
    VerificationError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import from_unix
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.manifest import MANIFEST_NAME, Manifest
from pq_registry.format.name import Namespace
from pq_registry.format.release import bind
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.trustfile import NamespaceTrust, TrustFile
from pq_registry.log.receipt import Receipt, verify_receipt

ROLE_OF = {
    Kind.RELEASE: "publishers",
    Kind.TAG: "publishers",
    Kind.GRANT: "publishers",
    Kind.KEY: "enrolment",
    Kind.STATUS: "revokers",
    Kind.ATTESTATION: "publishers",
}
REFRESHED = frozenset({Kind.TAG, Kind.STATUS})
"""Kinds a refresher may issue again with a later expiry; that nothing else changed is for ``audit.chains``."""


class Statements(Protocol):
    """Where the statements behind the leaves come from. Nothing it gives is believed."""

    def statement(self, payload: Digest) -> tuple[bytes, bytes | None]:
        """Envelope and receipt. Raises NotFound if it has none."""

    def manifest(self, digest: Digest) -> bytes:
        """The pqreg.json with this digest. Raises NotFound if it has none."""


@dataclass(slots=True)
class Judgement:
    """What came of one leaf.

    ``covered`` is whether the trust file says anything about its namespace; ``envelope`` and ``receipt`` are what was
    shown for it, if that is of its statement at all, and ``faithful`` whether the signatures are those that were
    logged. ``elsewhere`` is the leaf that the receipt proves where that is another one of the same statement.
    """

    index: int
    leaf: Leaf
    findings: list[Finding] = field(default_factory=list)
    covered: bool = True
    genuine: bool = False
    faithful: bool = False
    fact: Fact | None = None
    proved: Receipt | None = None
    elsewhere: int | None = None
    manifest: Manifest | None = None
    envelope: bytes | None = None
    receipt: bytes | None = None

    @property
    def attested(self) -> int | None:
        """The attested time of this very leaf, in seconds since 1970."""
        time = None if self.proved is None else self.proved.attested
        return None if time is None else int(time.timestamp())

    def find(self, code: Code, message: str, expected: object = None, found: object = None) -> None:
        """Add a finding."""
        self.findings.append(
            Finding(
                code=code,
                message=message,
                name=self.leaf.name,
                index=self.index,
                statement=self.leaf.payload,
                expected=None if expected is None else str(expected),
                found=None if found is None else str(found),
            )
        )

    def refuse(self, code: Code, error: PqregError) -> None:
        """Add what an error says as a finding."""
        self.find(code, error.message, error.expected, error.found)


class Judge:
    """A trust file, asked about leaves; may be used by several threads."""

    def __init__(self, trust: TrustFile, *, provider: Provider = OPENSSL) -> None:
        """Check every key of ``trust``.

        Raises:
            TrustMissing: if it names no log, so that no receipt could be judged.
            FormatError: if a key in it is malformed.
        """
        if not isinstance(trust.log, tuple):
            raise TrustMissing(
                "the trust file names no log, so there is nothing to audit",
                expected="a log policy",
                found="log: exempt",
                hint="pqreg trust log add",
            )
        self.trust = trust
        self.policies: tuple[LogPolicy, ...] = trust.log
        self._store = TrustStore.from_trust_file(trust, provider=provider)
        self._provider = provider

    def judge(self, index: int, leaf: Leaf, statements: Statements) -> Judgement:
        """All six steps for one leaf.

        Raises:
            TransportError, AccessDenied: if ``statements`` cannot be asked, other than that it has no such thing.
        """
        judgement = Judgement(index, leaf)
        envelope = self._logged_envelope(judgement, statements)
        if envelope is None:
            judgement.covered = self._namespace(leaf) is not None
            return judgement
        self._check_receipt(judgement, envelope)
        trusted = self._namespace(leaf)
        if trusted is None:
            judgement.covered = False
            return judgement
        statement = self._read(judgement, envelope, statements)
        if self._signed(judgement, envelope, trusted) and statement is not None:
            judgement.genuine = True
            judgement.fact = fact_of(statement, envelope.payload_digest)
        return judgement

    def _namespace(self, leaf: Leaf) -> NamespaceTrust | None:
        return self.trust.namespaces.get(Namespace(leaf.name.partition("/")[0]).key)

    @staticmethod
    def _logged_envelope(judgement: Judgement, statements: Statements) -> Envelope | None:
        """Step 1."""
        leaf = judgement.leaf
        try:
            data, receipt = statements.statement(leaf.payload)
        except NotFound:
            judgement.find(Code.STATEMENT_WITHHELD, "the registry has no statement for this leaf")
            return None
        try:
            envelope = Envelope.parse(data)
        except (FormatError, SignatureInvalid) as error:
            judgement.refuse(Code.STATEMENT_ALTERED, error)
            return None
        if envelope.payload_digest != leaf.payload:
            judgement.find(Code.STATEMENT_ALTERED, "the registry shows another statement for this leaf",
                           leaf.payload, envelope.payload_digest)  # fmt: skip
            return None
        judgement.envelope, judgement.receipt = data, receipt
        found = (Digest.of(envelope.ec_signature), Digest.of(envelope.pq_signature))
        judgement.faithful = found == (leaf.ec, leaf.pq)
        if not judgement.faithful:
            judgement.find(
                Code.STATEMENT_ALTERED,
                "the registry shows the statement with other signatures than those that were logged",
                f"EC {leaf.ec}, ML-DSA {leaf.pq}",
                f"EC {found[0]}, ML-DSA {found[1]}",
            )
        return envelope

    def _check_receipt(self, judgement: Judgement, envelope: Envelope) -> None:
        """Step 2."""
        leaf = judgement.leaf
        if judgement.receipt is None:
            judgement.refuse(Code.RECEIPT_MISSING, ReceiptMissing("the registry has no receipt for this statement"))
            return
        try:
            receipt = verify_receipt(
                judgement.receipt, envelope=envelope, kind=leaf.kind, name=leaf.name, identity=leaf.identity,
                policies=self.policies,
            )  # fmt: skip
        except (VerificationError, FormatError) as error:
            judgement.refuse(Code.RECEIPT_INVALID, error)
            return
        # A statement logged twice has the receipt of one of its leaves; its time is not the other's.
        if receipt.index == judgement.index:
            judgement.proved = receipt
        else:
            judgement.elsewhere = receipt.index

    @staticmethod
    def _read(judgement: Judgement, envelope: Envelope, statements: Statements) -> Statement | None:
        """Step 3."""
        leaf = judgement.leaf
        statement: Statement | None
        try:
            if leaf.kind is Kind.RELEASE:
                statement = _read_release(judgement, envelope, statements)
                if statement is None:
                    return None
            else:
                statement = read_statement(leaf.kind, envelope.payload)
        except (FormatError, VerificationError) as error:
            judgement.refuse(Code.STATEMENT_UNREADABLE, error)
            return None
        fact = fact_of(statement, leaf.payload)
        if (fact.name, fact.signer) != (leaf.name, leaf.identity):
            judgement.find(Code.LEAF_MISMATCH, "leaf and statement disagree about name or signer",
                           f"{fact.name} by {fact.signer}", f"{leaf.name} by {leaf.identity}")  # fmt: skip
            return None
        return statement

    def _signed(self, judgement: Judgement, envelope: Envelope, trusted: NamespaceTrust) -> bool:
        """Steps 4 to 6."""
        leaf = judgement.leaf
        pair = self._pair(trusted.namespace, leaf.identity)
        if pair is None:
            judgement.find(
                Code.UNKNOWN_KEY,
                f"an identity the trust file does not list signed for {trusted.namespace}",
                ", ".join(sorted(identity.id for identity in trusted.identities)),
                leaf.identity,
            )
            return False
        failures = failed_halves(envelope, pair.identity, provider=self._provider)
        for half, error in failures.items():
            judgement.find(Code.SIGNATURE_INVALID, f"the {half.upper()} half does not verify: {error.message}",
                           error.expected, error.found)  # fmt: skip
        if failures:
            return False
        role = ROLE_OF[leaf.kind]
        allowed = set(getattr(trusted, role)) | (set(trusted.refreshers) if leaf.kind in REFRESHED else set())
        if leaf.identity not in allowed:
            judgement.find(Code.ROLE_MISSING, f"the signer of this {leaf.kind.value} statement is none of the {role}",
                           ", ".join(sorted(allowed)) or "nobody", leaf.identity)  # fmt: skip
            return False
        if pair.identity.profile.level < trusted.min_profile:
            judgement.find(Code.PROFILE_TOO_LOW, f"the signer's profile is too low for {trusted.namespace}",
                           f"profile {trusted.min_profile} or higher",
                           f"profile {pair.identity.profile.level}")  # fmt: skip
            return False
        return self._valid(judgement, pair, trusted)

    @staticmethod
    def _valid(judgement: Judgement, pair: TrustedPair, trusted: NamespaceTrust) -> bool:
        """Step 6."""
        leaf = judgement.leaf
        try:
            check_window(
                pair.trusted, Attestation(judgement.proved), now=from_unix(leaf.time),
                pinned=leaf.payload in trusted.pinned,
            )  # fmt: skip
        except IdentityLapsed as error:
            judgement.refuse(Code.VALIDITY_LAPSED, error)
            return False
        except FormatError as error:  # a time no calendar has
            judgement.refuse(Code.LEAF_UNREADABLE, error)
            return False
        return True

    def _pair(self, namespace: Namespace, identity: str) -> TrustedPair | None:
        pairs = self._store.identities(namespace)
        return next((pair for pair in pairs if pair.identity.id == identity), None)


def _read_release(judgement: Judgement, envelope: Envelope, statements: Statements) -> Manifest | None:
    statement = ReleaseStatement.parse(envelope.payload)
    listed = {resource.path.text: resource.digest for resource in statement.resources}
    digest = listed.get(MANIFEST_NAME)
    if digest is None:
        raise FormatError(f"the release lists no {MANIFEST_NAME}")
    try:
        data = statements.manifest(digest)
    except NotFound:
        judgement.find(Code.MANIFEST_MISSING, f"the registry does not have {MANIFEST_NAME} of this release", digest)
        return None
    if Digest.of(data) != digest:
        judgement.find(Code.MANIFEST_ALTERED, f"{MANIFEST_NAME} is not the one this release signs", digest,
                       Digest.of(data))  # fmt: skip
        return None
    judgement.manifest = bind(statement, envelope.payload_digest, data)
    return judgement.manifest
