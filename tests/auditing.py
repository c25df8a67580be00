# SPDX-License-Identifier: Apache-2.0
"""A registry and its log in memory, as an auditor sees them: statements are published, and then anything is bent.

::

    site = AuditSite(witnesses=2)
    release = site.release()
    site.tag(release)
    with site.audited(tmp_path) as (report, outcome): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.judging import Judge, Judgement
from pq_registry.client.audit.report import Report, make_report
from pq_registry.client.audit.run import AuditOptions, Auditor, Outcome
from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import from_unix
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.leaf import Kind
from pq_registry.format.name import RepositoryName
from pq_registry.format.recipientfile import Kem
from pq_registry.format.status import Revocation, StatusStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from pqreg_keys.custody import SecretIdentity
from tests import samples
from tests.fake_registry import FakeRegistry
from tests.logsamples import TIME, MemoryLog

NOW = from_unix(TIME + 60)
ALICE, MALLORY = samples.publisher(), samples.publisher("mallory")
REVOKER, ENROLMENT = samples.publisher("revoker"), samples.publisher("enrolment")


@cache
def recipient(name: str) -> PublicRecipient:
    """A recipient; the same one for the same name within a process."""
    del name
    return SecretRecipient.generate(Kem.MLKEM768_X25519).public


class AuditSite:
    """What a registry serves, by hand. ``log`` may be replaced, ``envelopes``, ``receipts``, ``manifests`` altered."""

    def __init__(self, *, witnesses: int = 1, trust: TrustFile | None = None) -> None:
        self.log = MemoryLog(witnesses=witnesses)
        self.trust = replace(trust or samples.trust_file(), log=self.log.policies())
        self.envelopes: dict[Digest, bytes] = {}
        self.places: dict[Digest, int] = {}
        self.receipts: dict[Digest, bytes] = {}
        self.manifests: dict[Digest, bytes] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.asked: list[Digest] = []
        self.tags: dict[str, TagStatement] = {}
        self.statuses: list[StatusStatement] = []

    # -- publishing --------------------------------------------------------------------------------------------------

    def add(self, envelope: Envelope, *, kind: Kind, name: str, identity: str, time: int | None = None) -> int:
        """Log an envelope, whoever signed it; its index."""
        self.envelopes.setdefault(envelope.payload_digest, envelope.encode())
        index = self.log.append(envelope, kind=kind, name=name, identity=identity, time=time)
        self.log.publish()
        self.places.setdefault(envelope.payload_digest, index)
        self.receipts.setdefault(envelope.payload_digest, self.log.receipt(index))
        return index

    def release(
        self, files: dict[str, bytes] | None = None, *, signer: SecretIdentity | None = None, name: str = "acme/minilm"
    ) -> Digest:
        """Publish a release."""
        signer = signer or samples.publisher()
        files = files or {"config.json": str(len(self.envelopes)).encode()}
        envelope, manifest = samples.release(files, name=RepositoryName.parse(name), signer=signer)
        self.manifests[Digest.of(manifest)] = manifest
        self.blobs.update({Digest.of(content): content for content in files.values()})
        self.add(envelope, kind=Kind.RELEASE, name=name, identity=signer.identity.id)
        return envelope.payload_digest

    def tag(
        self, target: Digest | None, *, signer: SecretIdentity | None = None, by: SecretIdentity | None = None,
        **fields: Any,
    ) -> int:  # fmt: skip
        """Move acme/minilm:v1; ``by`` signs what names ``signer``."""
        signer = signer or samples.publisher()
        last = self.tags.get("v1")
        chain: dict[str, Any] = {}
        if last is not None:
            chain = {"sequence": last.sequence + 1, "previous": Digest.of(last.encode())}
        statement = samples.tag_statement(target, **{"signer": signer.identity.id, **chain, **fields})
        self.tags["v1"] = statement
        envelope = sign_envelope(statement.encode(), by or signer)
        return self.add(envelope, kind=Kind.TAG, name=str(statement.repository), identity=signer.identity.id)

    def certify(self, recipient: PublicRecipient, signer: SecretIdentity, not_after: datetime | None = None) -> int:
        """Certify a recipient."""
        statement = KeyStatement(
            signer=signer.identity.id, namespace=samples.REPOSITORY.namespace, node="node1", kem=recipient.kem,
            public_key=recipient.public_key, issued=samples.NOW - timedelta(days=2), not_after=not_after,
        )  # fmt: skip
        return self.add(
            sign_envelope(statement.encode(), signer), kind=Kind.KEY, name="acme", identity=signer.identity.id
        )

    def grant(self, release: Digest, recipient: PublicRecipient, signer: SecretIdentity | None = None) -> int:
        """Grant a release, with a content key nobody can use."""
        signer = signer or samples.publisher()
        statement = GrantStatement(
            repository=samples.REPOSITORY, release=release, signer=signer.identity.id, recipient=recipient.id,
            sequence=1, previous=None, wrapped=bytes(recipient.kem.wrapped_bytes), issued=samples.NOW, expires=None,
        )  # fmt: skip
        return self.add(
            sign_envelope(statement.encode(), signer), kind=Kind.GRANT, name=str(samples.REPOSITORY),
            identity=signer.identity.id,
        )  # fmt: skip

    def status(self, *revoked: Revocation, signer: SecretIdentity | None = None) -> int:
        """Issue the next status."""
        signer = signer or samples.publisher("revoker")
        last = self.statuses[-1] if self.statuses else None
        statement = StatusStatement(
            namespace=samples.REPOSITORY.namespace, signer=signer.identity.id,
            sequence=1 if last is None else last.sequence + 1,
            previous=None if last is None else Digest.of(last.encode()),
            revoked=tuple(sorted(revoked, key=lambda entry: entry.key)), issued=samples.NOW,
            expires=samples.NOW + timedelta(days=30),
        )  # fmt: skip
        self.statuses.append(statement)
        return self.add(
            sign_envelope(statement.encode(), signer), kind=Kind.STATUS, name="acme", identity=signer.identity.id
        )

    # -- what the auditor asks for -----------------------------------------------------------------------------------

    def statement(self, payload: Digest) -> tuple[bytes, bytes | None]:
        self.asked.append(payload)
        if payload not in self.envelopes:
            raise NotFound("there is no such statement")
        return self.envelopes[payload], self.receipts.get(payload)

    def manifest(self, digest: Digest) -> bytes:
        if digest not in self.manifests:
            raise NotFound("there is no such blob")
        return self.manifests[digest]

    def serve_at(self, registry: FakeRegistry) -> None:
        """Let a server show what there is now."""
        registry.statements = {digest.hex: data for digest, data in self.envelopes.items()}
        registry.receipts = {digest.hex: data for digest, data in self.receipts.items()}
        registry.blobs = {digest.hex: data for digest, data in {**self.manifests, **self.blobs}.items()}
        registry.log_files = dict(self.log.files)

    # -- auditing ----------------------------------------------------------------------------------------------------

    def audit(
        self, index: AuditIndex, *, now: datetime = NOW, note: bytes | None = None, content: Any = None, **options: Any
    ) -> Outcome:
        """One audit of what is served now."""
        nothing = lambda _judgement: None
        auditor = Auditor(
            index, Judge(self.trust), self.log.reader(), self, content=content or nothing,
            options=AuditOptions(**{"threads": 2, **options}),
        )  # fmt: skip
        return auditor.audit(note or self.log.files["checkpoint"], now)

    @contextmanager
    def audited(self, directory: Path, **options: Any) -> Iterator[tuple[Report, Outcome]]:
        """Audit with the state in ``directory``, and report."""
        with AuditIndex(directory) as index:
            outcome = self.audit(index, **options)
            yield make_report(index, self.trust, outcome), outcome

    def codes(self, directory: Path, **options: Any) -> list[str]:
        """The codes of all open findings after an audit, sorted."""
        with self.audited(directory, **options) as (report, _):
            return sorted(one["code"] for one in found(report))


def roles() -> AuditSite:
    """A site whose trust file names a publisher, a revoker and an enrolment identity."""
    namespace = replace(
        samples.namespace_trust(ALICE, REVOKER, ENROLMENT), publishers=(ALICE.identity.id,),
        revokers=(REVOKER.identity.id,), enrolment=(ENROLMENT.identity.id,),
    )  # fmt: skip
    return AuditSite(trust=samples.trust_file(namespace))


def found(report: Report) -> list[dict[str, Any]]:
    """The findings of a report, as its JSON has them."""
    findings = report.value["findings"]
    assert isinstance(findings, list)
    return findings


def judge_one(site: AuditSite, index: int) -> Judgement:
    """The judgement of one leaf."""
    from pq_registry.format.leaf import Leaf

    return Judge(site.trust).judge(index, Leaf.parse(site.log.entries[index]), site)
