# SPDX-License-Identifier: Apache-2.0
"""Verifies an evidence bundle: offline, with nothing but the bundle and a trust file, at any later time.

In this order:

1. The signature over the index: both halves, by the auditor given, or else by the one whose key is in the bundle, which
   then only says that the bundle is as somebody made it.
2. The files: exactly those listed, regular, each of its size and SHA-256.
3. The trust file: given, or the bundle's own if its SHA-256 is the one given. Whether it has expired by now does not
   matter: it says who was believed.
4. The checkpoint and every receipt, under the trust file's log policies; no two checkpoints of one size may differ.
5. Every statement, as the auditor judged it (``audit.judging``): both halves, role, and validity at the attested time
   its own receipt proves, not at the time of this check and not at a time the auditor states. A statement without a
   receipt that verifies is a finding, and nothing about it that depends on time is judged: when it was logged, and
   that it was, would be the auditor's word.
6. The statements against one another (``audit.chains``), as far as the bundle holds them: what is absent proves
   nothing, as a bundle may be about one repository only.

Steps 1 to 4 raise. What 5 and 6 find wrong is reported as findings, because it may be what the bundle is to prove.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path

from pq_registry import limits
from pq_registry.client.audit.chains import Comparison
from pq_registry.client.audit.finding import Code, Finding
from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.judging import Judge
from pq_registry.client.audit.report import open_findings
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider, verify_half
from pq_registry.crypto.suites import HALVES
from pq_registry.durable import reported
from pq_registry.errors import (
    CheckpointInvalid,
    ConsistencyInvalid,
    DigestMismatch,
    FileDigestMismatch,
    FileSetMismatch,
    NotFound,
    SignatureInvalid,
    StatementMismatch,
    UntrustedSigner,
    UsageError,
)
from pq_registry.format import evidence
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.evidence import EvidenceFile, EvidenceIndex, EvidenceSignature, EvidenceStatement
from pq_registry.format.forkproof import ForkProof
from pq_registry.format.instant import from_unix
from pq_registry.format.leaf import Leaf
from pq_registry.format.trustfile import TrustFile
from pq_registry.log.judge import signed_by_log
from pq_registry.log.misbehaviour import equivocation, proves_fork
from pq_registry.log.monitor import judge_any


@dataclass(frozen=True, slots=True)
class Judged:
    """One statement of a bundle, and when it counts: attested by a witness, or, if not, as the log alone says.

    ``proved`` is whether a receipt in the bundle shows that it was logged; without one its time is the auditor's word.
    """

    entry: EvidenceStatement
    attested: datetime | None
    proved: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A bundle that passed steps 1 to 4, and what steps 5 and 6 came to.

    ``misbehaviour`` are pairs of checkpoints in the bundle that the log signed and that contradict each other.
    """

    index: EvidenceIndex
    auditor_known: bool
    trust: TrustFile
    checkpoint: Checkpoint
    statements: tuple[Judged, ...]
    findings: tuple[Finding, ...]
    misbehaviour: tuple[tuple[Checkpoint, Checkpoint], ...]
    notes: tuple[str, ...]


class Bundle:
    """A bundle's directory. Reads what its index lists, and nothing else."""

    def __init__(self, directory: Path, auditor: PublicIdentity | None, provider: Provider) -> None:
        """Step 1; the index is parsed once its signature has been verified.

        Raises:
            UsageError: if there is no such directory.
            FileSetMismatch: if the index, its signature or the auditor's key is missing.
            SignatureInvalid: if a half is wrong, or the signature is of other bytes.
            UntrustedSigner: if it is signed by somebody else than it says, or than ``auditor``.
            FormatError: if one of them is malformed.
        """
        if not directory.is_dir():
            raise UsageError(f"there is no evidence bundle at {directory}", expected="a directory")
        self.directory = directory
        data = self._read(evidence.INDEX_NAME, limits.EVIDENCE_INDEX_BYTES)
        signature = EvidenceSignature.parse(self._read(evidence.SIGNATURE_NAME, limits.EVIDENCE_SIGNATURE_BYTES))
        if signature.payload != data:
            raise SignatureInvalid("the signature is not of this index", expected="exactly the bytes of evidence.json")
        identity = auditor or PublicIdentity.from_pem(self._read(evidence.AUDITOR_NAME, limits.IDENTITY_FILE_BYTES))
        _verify(signature, identity, provider)
        self.index = EvidenceIndex.parse(data)
        if identity.id != self.index.auditor:
            raise UntrustedSigner("the evidence is of another auditor", expected=identity.id, found=self.index.auditor)
        self._listed = {one.path: one for one in self.index.files}

    def verify_files(self) -> None:
        """Step 2.

        Raises:
            FileSetMismatch: if a file is missing, additional, no regular file or of another size.
            FileDigestMismatch: if a file has another content.
        """
        expected = {*self._listed, evidence.INDEX_NAME, evidence.SIGNATURE_NAME}
        found = set(self._present())
        if found != expected:
            raise FileSetMismatch(
                "the bundle does not hold the files its index lists",
                expected=", ".join(sorted(expected - found)[:5]) or "no other file",
                found=", ".join(sorted(found - expected)[:5]) or "nothing in their place",
            )
        for one in self.index.files:
            self._verified(one)

    def read(self, path: str) -> bytes:
        """A listed file, verified.

        Raises:
            NotFound: if the index does not list it.
            FileSetMismatch, FileDigestMismatch: if it is not as listed.
        """
        one = self._listed.get(path)
        if one is None:
            raise NotFound("the bundle does not hold this", found=path)
        return self._verified(one)

    def listed(self, folder: str) -> list[str]:
        """The paths below one directory."""
        return [path for path in self._listed if path.startswith(folder + "/")]

    # -- audit.judging.Statements ------------------------------------------------------------------------------------

    def statement(self, payload: Digest) -> tuple[bytes, bytes | None]:
        """Envelope and receipt. Raises NotFound."""
        path = f"receipts/{payload.hex}.tlog-proof"
        receipt = self.read(path) if path in self._listed else None
        return self.read(f"statements/{payload.hex}.json"), receipt

    def manifest(self, digest: Digest) -> bytes:
        """A pqreg.json. Raises NotFound."""
        return self.read(f"manifests/{digest.hex}.json")

    # ----------------------------------------------------------------------------------------------------------------

    def _verified(self, one: EvidenceFile) -> bytes:
        data = self._read(one.path, one.size)
        if len(data) != one.size:
            raise FileSetMismatch(f"{one.path} has another size", expected=f"{one.size} bytes", found=len(data))
        if Digest.of(data) != one.sha256:
            raise FileDigestMismatch(f"{one.path} is not the file the index lists", expected=one.sha256,
                                     found=Digest.of(data))  # fmt: skip
        return data

    def _read(self, path: str, limit: int) -> bytes:
        target = self.directory / path
        with reported("read", target):
            try:
                descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise FileSetMismatch(f"the bundle lacks {path}", expected="every file its index lists") from None
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise FileSetMismatch(f"{path} is no regular file", expected="regular files only")
                return file.read(limit + 1)

    def _present(self) -> Iterator[str]:
        with reported("read", self.directory):
            for entry in os.scandir(self.directory):
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.name
                elif entry.name not in evidence.DIRECTORIES:
                    yield f"{entry.name}/"
                else:
                    yield from (f"{entry.name}/{below.name}" for below in os.scandir(entry.path))


def check_bundle(
    directory: Path,
    *,
    trust: bytes | None = None,
    trust_sha256: Digest | None = None,
    auditor: PublicIdentity | None = None,
    provider: Provider = OPENSSL,
) -> Checked:
    """All six steps.

    Args:
        directory: the bundle.
        trust: a trust file, which counts instead of the bundle's.
        trust_sha256: what the bundle's trust file must be, if none is given.
        auditor: who must have signed.
        provider: who verifies ML-DSA signatures.

    Raises:
        UsageError: unless exactly one of ``trust`` and ``trust_sha256`` is given.
        VerificationError, FormatError: if the bundle is not what it should be; a subclass of what refused.
        LogEquivocation: if receipts in it show that the log has signed two trees of one size.
        StorageError: if it cannot be read.
    """
    if (trust is None) == (trust_sha256 is None):
        raise UsageError("which trust file is to count?", expected="a trust file, or the SHA-256 of the bundle's own")
    bundle = Bundle(directory, auditor, provider)
    bundle.verify_files()
    notes = _notes(bundle, auditor, trust)
    trusted = bundle.read(evidence.TRUST_NAME) if trust is None else trust
    if trust_sha256 is not None and Digest.of(trusted) != trust_sha256:
        raise DigestMismatch("the bundle's trust file is another one", expected=trust_sha256, found=Digest.of(trusted))
    judge = Judge(TrustFile.parse(trusted), provider=provider)
    checkpoint = judge_any(bundle.read(evidence.CHECKPOINT_NAME), judge.policies).checkpoint
    statements, findings = _judge(bundle, judge, checkpoint)
    return Checked(
        bundle.index,
        auditor is not None,
        judge.trust,
        checkpoint,
        statements,
        findings,
        tuple(_misbehaviour(bundle, judge)),
        tuple(notes),
    )


def _verify(signature: EvidenceSignature, identity: PublicIdentity, provider: Provider) -> None:
    failures = []
    for half, made in zip(HALVES, (signature.ec_signature, signature.pq_signature), strict=True):
        try:
            verify_half(provider, half, identity.profile, spki=identity.spki(half), message=signature.message,
                        signature=made)  # fmt: skip
        except SignatureInvalid as error:
            failures.append(error)
    if len(failures) == len(HALVES):
        raise UntrustedSigner("the evidence is signed by somebody else, or was altered",
                              expected=f"a signature by {identity.id}")  # fmt: skip
    if failures:
        raise failures[0]


def _judge(bundle: Bundle, judge: Judge, checkpoint: Checkpoint) -> tuple[tuple[Judged, ...], tuple[Finding, ...]]:
    """Steps 4 to 6."""
    roots = {checkpoint.size: checkpoint}
    judged = []
    with AuditIndex(None) as index:
        for entry in bundle.index.statements:
            leaf = _leaf(bundle, entry)
            judgement = judge.judge(entry.index, leaf, bundle)
            proved = judgement.proved
            if judgement.elsewhere is not None:
                raise StatementMismatch(
                    f"the index lists a statement as leaf {entry.index}, and its receipt proves another leaf",
                    expected=judgement.elsewhere,
                    found=entry.index,
                )
            if proved is not None and proved.checkpoint.origin == checkpoint.origin:
                known = roots.setdefault(proved.checkpoint.size, proved.checkpoint)
                if known.root != proved.checkpoint.root:
                    raise equivocation(known, proved.checkpoint)
            attested = None if proved is None else proved.attested
            stated = (entry.attested, entry.time) if proved is not None else (entry.attested, None)
            if stated != (attested, None if proved is None else from_unix(proved.leaf.time)):
                raise StatementMismatch(
                    f"the index states another time for leaf {entry.index} than its receipt proves",
                    expected=attested,
                    found=entry.attested,
                )
            if proved is None:
                judgement.fact = None
                judgement.findings = [one for one in judgement.findings if one.code is not Code.VALIDITY_LAPSED]
            else:
                index.add_leaf(entry.index, leaf)
            judged.append(Judged(entry, attested, proved is not None, tuple(judgement.findings)))
            index.judged([judgement], noticed=bundle.index.created)
        Comparison(index, judge.trust, complete=False).record(noticed=bundle.index.created)
        findings = tuple(one.finding for one in open_findings(index, limit=limits.EVIDENCE_FINDINGS))
    return tuple(judged), findings[::-1]


def _leaf(bundle: Bundle, entry: EvidenceStatement) -> Leaf:
    """The leaf an entry stands for; that it was logged, and as this, is for its receipt to prove."""
    parsed = Envelope.parse(bundle.statement(entry.payload)[0])
    leaf = Leaf.of(parsed, kind=entry.kind, name=entry.name, identity=entry.identity, time=int(entry.time.timestamp()))
    if leaf.payload != entry.payload:
        raise StatementMismatch("a statement of the bundle is another one", expected=entry.payload, found=leaf.payload)
    return leaf


def _misbehaviour(bundle: Bundle, judge: Judge) -> Iterator[tuple[Checkpoint, Checkpoint]]:
    """Contradictory checkpoints the auditor kept: signed by the log, with witnesses or without, and proof enough."""
    notes: dict[Digest, Checkpoint] = {}
    for path in sorted(bundle.listed("misbehaviour")):
        data = bundle.read(path)
        checkpoint = signed_by_log(data, judge.policies)
        if checkpoint is None:
            raise CheckpointInvalid(
                f"{path} is signed by no log of the trust file", expected="the log's own signatures"
            )
        notes[Digest.of(data)] = checkpoint
    for one, other in combinations(notes.values(), 2):
        if one.origin == other.origin and one.size == other.size and one.root != other.root:
            yield one, other
    for path in sorted(bundle.listed("forks")):
        proof = ForkProof.parse(bundle.read(path))
        old, new = notes.get(proof.old), notes.get(proof.new)
        if old is None or new is None or not proves_fork(proof, old, new):
            raise ConsistencyInvalid(f"{path} proves nothing", expected="a proof about two checkpoints of the bundle")
        yield old, new


def _notes(bundle: Bundle, auditor: PublicIdentity | None, trust: bytes | None) -> list[str]:
    notes = []
    if auditor is None:
        notes.append(
            f"signed by auditor {bundle.index.auditor}, whose key came with the bundle; give --auditor to demand one"
        )
    if trust is not None and Digest.of(trust) != bundle.index.trust:
        notes.append(f"the trust file given is not the one the auditor judged by ({bundle.index.trust})")
    return notes
