# SPDX-License-Identifier: Apache-2.0
"""Writes an evidence bundle: what an audit verified, so that others can verify it again, years later and offline.

A directory with every statement in scope, its receipt (leaf, inclusion, checkpoint, cosignatures), the manifests of
releases, the trust file, the checkpoint the log was followed to, contradictory checkpoints if there are any, what was
found, and an index of all that which the auditor's identity signs (``format.evidence``). Status and key statements of
a namespace are always in scope with it: what was revoked and who was certified must not be left out.

The directory appears under its name when it is complete, and not before.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from pq_registry import limits
from pq_registry.client.audit.finding import Code
from pq_registry.client.audit.index import AuditIndex, leaf_of
from pq_registry.client.audit.judging import Judge, Statements
from pq_registry.client.audit.report import kept_of
from pq_registry.crypto import selftest
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider, verify_half
from pq_registry.crypto.signing import Signer
from pq_registry.crypto.suites import HALVES
from pq_registry.durable import make_directory, reported, sync_directory, temporary_path, write_file
from pq_registry.errors import AlreadyExists, UsageError
from pq_registry.format import evidence
from pq_registry.format.digest import Digest
from pq_registry.format.evidence import (
    EvidenceFile,
    EvidenceFinding,
    EvidenceIndex,
    EvidenceSignature,
    EvidenceStatement,
)
from pq_registry.format.instant import format_instant, from_unix, parse_instant
from pq_registry.format.name import Namespace, Reference
from pq_registry.log.misbehaviour import FORK_SUFFIX, SUFFIX

_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Scope:
    """What a bundle is about: everything, some namespaces, or one repository, tag or release; and since when."""

    reference: Reference | None = None
    namespaces: tuple[Namespace, ...] = ()
    since: datetime | None = None
    spelled_tag: bool = False

    def __str__(self) -> str:
        """In words, for the index."""
        parts = [str(namespace) for namespace in self.namespaces]
        if self.reference is not None:
            whole = self.reference.digest is None and not self.spelled_tag
            parts = [str(self.reference.repository if whole else self.reference)]
        since = [] if self.since is None else [f"since {format_instant(self.since)}"]
        return ", ".join((parts or ["everything in the log"]) + since)

    def rows(self, index: AuditIndex) -> Iterator[sqlite3.Row]:
        """The leaves in scope, by index."""
        values: list[object] = []
        wanted = ["kind IS NOT NULL"]
        keys = {namespace.key for namespace in self.namespaces}
        if self.reference is not None:
            keys = {self.reference.repository.namespace.key}
        if keys:
            wanted.append(f"namespace IN ({', '.join('?' * len(keys))})")
            values += sorted(keys)
        narrowed, more = self._narrowed()
        wanted.append(f"(kind IN ('status', 'key') OR ({narrowed}))")
        values += more
        query = f"SELECT * FROM leaves WHERE {' AND '.join(wanted)} ORDER BY idx"  # noqa: S608  placeholders
        return index.rows(query, *values)

    def _narrowed(self) -> tuple[str, list[object]]:
        wanted, values = ["1"], list[object]()
        if self.since is not None:
            wanted.append("coalesce(attested, time) >= ?")
            values.append(int(self.since.timestamp()))
        reference = self.reference
        if reference is not None:
            wanted.append("lower(name) = ?")
            values.append(reference.repository.key)
            if reference.digest is not None:
                about = "SELECT idx FROM facts WHERE target = ?"
                wanted.append(f"(payload = ? OR idx IN ({about}))")
                values += [reference.digest.hex] * 2
            elif self.spelled_tag:
                chain = "FROM facts WHERE kind = 'tag' AND subject = ?"
                wanted.append(f"(idx IN (SELECT idx {chain}) OR payload IN (SELECT target {chain}))")
                values += [f"{reference.repository.key}:{reference.tag}"] * 2
        return " AND ".join(wanted), values


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """Who makes a bundle, when, with what, and where it came from; ``trust`` is the exact trust file judged by."""

    signer: Signer
    trust: bytes
    registry: str
    software: Mapping[str, str]
    now: datetime


def export(
    index: AuditIndex,
    judge: Judge,
    statements: Statements,
    out: Path,
    scope: Scope,
    making: Making,
    *,
    provider: Provider = OPENSSL,
) -> EvidenceIndex:
    """Write a bundle to the new directory ``out``.

    Args:
        index: the state of the audit.
        judge: the trust file.
        statements: where statements, receipts and manifests come from.
        out: must not exist.
        scope: what goes in.
        making: the auditor's identity and what else the index says.
        provider: who verifies what was signed.

    Raises:
        AlreadyExists: if something stands at ``out``.
        UsageError: if nothing has been audited, nothing is in scope, or too much for one bundle.
        TransportError: if a statement cannot be had; what the registry withholds is left out, and is a finding.
        StorageError: if the bundle cannot be written.
    """
    signer = making.signer
    followed = index.load()
    if followed is None:
        raise UsageError("nothing has been audited in this state directory", hint="pqreg audit --state DIR")
    if out.exists() or out.is_symlink():
        raise AlreadyExists(f"{out} exists", hint="choose another name or remove it first")
    make_directory(out.parent)
    place = temporary_path(out)
    with reported("write", place):
        place.mkdir(mode=0o700)
    try:
        writer = _Writer(place, judge, statements)
        writer.add(evidence.TRUST_NAME, making.trust)
        writer.add(evidence.AUDITOR_NAME, signer.identity.to_pem())
        writer.add(evidence.CHECKPOINT_NAME, followed.note)
        writer.add_misbehaviour(index)
        rows = list(islice(scope.rows(index), limits.EVIDENCE_STATEMENTS + 1))
        if len(rows) > limits.EVIDENCE_STATEMENTS:
            raise _too_much()
        entries = tuple(filter(None, map(writer.add_statement, rows)))
        if not entries:
            raise UsageError(f"there is nothing to export about {scope}", hint="pqreg audit first, then see its report")
        document = EvidenceIndex(
            auditor=signer.identity.id,
            created=making.now,
            registry=making.registry,
            log=followed.checkpoint.origin,
            scope=str(scope),
            trust=Digest.of(making.trust),
            software=tuple(sorted(making.software.items())),
            statements=entries,
            findings=_findings(index, {row["idx"] for row in rows}, making.now),
            files=tuple(sorted(writer.files.values())),
        )
        data = document.encode()
        write_file(place / evidence.INDEX_NAME, data)
        write_file(place / evidence.SIGNATURE_NAME, _sign(data, signer, provider).encode())
        with reported("write", out):
            os.rename(place, out)
            sync_directory(out.parent)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return document


class _Writer:
    def __init__(self, place: Path, judge: Judge, statements: Statements) -> None:
        self._place = place
        self._judge = judge
        self._statements = statements
        self._made: set[str] = set()
        self.files: dict[str, EvidenceFile] = {}

    def add(self, path: str, data: bytes) -> None:
        if path in self.files:
            return
        if len(self.files) >= limits.EVIDENCE_FILES:
            raise _too_much()
        folder = path.rpartition("/")[0]
        if folder and folder not in self._made:
            make_directory(self._place / folder, 0o700)
            self._made.add(folder)
        write_file(self._place / evidence.check_path(path), data)
        self.files[path] = EvidenceFile(path, Digest.of(data), len(data))

    def add_misbehaviour(self, index: AuditIndex) -> None:
        if index.directory is None:
            return
        kept = index.directory / "evidence"
        for row in list(index.rows("SELECT old, new, fork FROM misbehaviour")):
            wanted = [("misbehaviour", row["old"], SUFFIX), ("misbehaviour", row["new"], SUFFIX)]
            if row["fork"] is not None:
                wanted.append(("forks", row["fork"], FORK_SUFFIX))
            for folder, name, suffix in wanted:
                path = kept / f"{name}{suffix}"
                with reported("read", path):
                    self.add(f"{folder}/{name}{suffix}", path.read_bytes())

    def add_statement(self, row: sqlite3.Row) -> EvidenceStatement | None:
        """Add what there is of one leaf.

        None where the registry withholds its statement, and where the receipt is of another leaf: a statement that was
        logged twice stands in a bundle as the leaf that can be proved, and no time is stated for the other.
        """
        leaf = leaf_of(row)
        manifests: dict[Digest, bytes] = {}
        # Judged anew: the time that goes into the index is the one that the receipt beside it proves.
        judgement = self._judge.judge(row["idx"], leaf, _Noting(self._statements, manifests))
        if judgement.envelope is None or judgement.elsewhere is not None:
            return None
        self.add(f"statements/{leaf.payload.hex}.json", judgement.envelope)
        if judgement.receipt is not None:
            self.add(f"receipts/{leaf.payload.hex}.tlog-proof", judgement.receipt)
        for digest, data in manifests.items():
            self.add(f"manifests/{digest.hex}.json", data)
        return EvidenceStatement(
            index=row["idx"],
            kind=leaf.kind,
            name=leaf.name,
            identity=leaf.identity,
            payload=leaf.payload,
            time=from_unix(leaf.time),
            attested=None if judgement.proved is None else judgement.proved.attested,
        )


class _Noting:
    """Passes on what is asked, and notes the manifests that came."""

    def __init__(self, statements: Statements, manifests: dict[Digest, bytes]) -> None:
        self._statements = statements
        self._manifests = manifests

    def statement(self, payload: Digest) -> tuple[bytes, bytes | None]:
        return self._statements.statement(payload)

    def manifest(self, digest: Digest) -> bytes:
        data = self._manifests[digest] = self._statements.manifest(digest)
        return data


def _findings(index: AuditIndex, about: Collection[int], now: datetime) -> tuple[EvidenceFinding, ...]:
    found = [
        EvidenceFinding(code=row["code"], message=row["message"][:_TEXT], noticed=now)
        for row in index.rows("SELECT * FROM misbehaviour ORDER BY old, new")
    ]
    for row in index.rows("SELECT * FROM findings ORDER BY id"):
        one = kept_of(row).finding
        if one.index is not None and one.index not in about:
            continue
        if one.code is Code.LOG_EQUIVOCATION:
            continue  # said above
        found.append(
            EvidenceFinding(
                code=one.code.value,
                message=one.message[:_TEXT],
                noticed=parse_instant(row["noticed"]),
                name=one.name or None,
                index=one.index,
                statement=one.statement,
                expected=one.expected[:_TEXT] if one.expected else None,
                found=one.found[:_TEXT] if one.found else None,
            )
        )
        if len(found) > limits.EVIDENCE_FINDINGS:
            raise _too_much()
    return tuple(found)


def _sign(data: bytes, signer: Signer, provider: Provider) -> EvidenceSignature:
    selftest.ensure()
    signature = EvidenceSignature(data, *signer.sign(evidence.message(data)))
    for half in HALVES:  # a fault while signing must not be handed out
        made = signature.ec_signature if half == "ec" else signature.pq_signature
        verify_half(provider, half, signer.identity.profile, spki=signer.identity.spki(half),
                    message=signature.message, signature=made)  # fmt: skip
    return signature


def _too_much() -> UsageError:
    return UsageError(
        "this is too much for one evidence bundle",
        expected=f"at most {limits.EVIDENCE_STATEMENTS} statements, {limits.EVIDENCE_FILES} files and "
        f"{limits.EVIDENCE_FINDINGS} findings",
        hint="export a repository, a namespace, or what is new: REF, --namespace, --since",
    )
