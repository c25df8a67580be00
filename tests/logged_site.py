# SPDX-License-Identifier: Apache-2.0
"""A publisher, a revoker, a log in memory with its witnesses, and a registry of a few lines that serves all of it.

Everything happens at ``samples.NOW`` unless a test moves ``log.time``; the node's clock is ``now``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pq_registry.client.pull import PullResult, pull
from pq_registry.client.resolve import Resolved, resolve
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace, Reference
from pq_registry.format.status import Revocation, StatusStatement
from pq_registry.format.trustfile import NamespaceTrust, TrustFile
from pqreg_keys.custody import SecretIdentity
from tests import samples
from tests.fake_registry import FakeRegistry
from tests.logsamples import MemoryLog
from tests.samples import NOW, REPOSITORY, publisher, trust_file, trusted

ACME = REPOSITORY.namespace
SECOND = timedelta(seconds=1)
REVOKER = "revoker"


def acme(
    *publishers: SecretIdentity, revoker: bool = True, window: tuple[datetime | None, datetime | None] = (None, None)
) -> NamespaceTrust:
    """Trust for acme: its publishers, all with one validity window, and a revoker unless told otherwise."""
    signers = publishers or (publisher(),)
    entries = tuple(trusted(signer, *window) for signer in signers)
    ids = tuple(entry.id for entry in entries)
    revokers: tuple[str, ...] = ()
    if revoker:
        entries = (*entries, trusted(publisher(REVOKER)))
        revokers = (publisher(REVOKER).identity.id,)
    return NamespaceTrust(ACME, entries, ids, min_profile=3, revokers=revokers)


def status_statement(*revoked: Revocation, **fields: Any) -> StatusStatement:
    """The first status statement of acme, by its revoker."""
    statement = StatusStatement(
        namespace=ACME,
        signer=publisher(REVOKER).identity.id,
        sequence=1,
        previous=None,
        revoked=tuple(sorted(revoked, key=lambda entry: entry.key)),
        issued=NOW,
        expires=NOW + timedelta(days=30),
    )
    return replace(statement, **fields)


def next_status(last: StatusStatement, *revoked: Revocation, **fields: Any) -> StatusStatement:
    """The statement after ``last``, with exactly these entries."""
    previous = Digest.of(last.encode())
    return status_statement(*revoked, **{"sequence": last.sequence + 1, "previous": previous, **fields})


def sign_status(statement: StatusStatement, signer: str = REVOKER) -> Envelope:
    """Sign it."""
    return sign_envelope(statement.encode(), publisher(signer))


class LoggedSite:
    """One registry with a log, and one node."""

    def __init__(
        self, registry: FakeRegistry, home: Path, *, witnesses: int = 1, trust: NamespaceTrust | None = None
    ) -> None:
        self.registry = registry
        self.home = home
        self.log = MemoryLog(witnesses=witnesses)
        self.namespace = trust or acme(revoker=False)
        self.now = NOW
        self.seen = SeenTags(home / "state")
        self.options: dict[str, Any] = {}

    @property
    def trust(self) -> TrustFile:
        """The node's trust file."""
        return trust_file(self.namespace, **{"log": self.log.policies(), **self.options})

    def verifier(self, *, online: bool = True) -> Verifier:
        """What the node believes now."""
        return Verifier(self.trust.encode(), self.now, online=online)

    def client(self) -> RegistryClient:
        """A client of the registry."""
        return RegistryClient(self.registry.url, timeout=20, sleep=lambda _seconds: None)

    def log_statement(self, envelope: Envelope, kind: Kind, name: str, signer: SecretIdentity) -> bytes:
        """Log a statement and serve it with its receipt; answers the receipt."""
        receipt = self.log.log(envelope, kind=kind, name=name, identity=signer.identity.id)
        self.registry.statements[envelope.payload_digest.hex] = envelope.encode()
        self.registry.receipts[envelope.payload_digest.hex] = receipt
        self.serve_log()
        return receipt

    def serve_log(self, log: MemoryLog | None = None) -> None:
        """Let the registry show this log, as it was published last."""
        self.registry.log_files = dict((log or self.log).files)

    def publish(self, files: Mapping[str, bytes] = samples.FILES, *, signer: SecretIdentity | None = None) -> Digest:
        """Publish and log a release; answers its digest."""
        signer = signer or publisher()
        envelope, manifest = samples.release(files, signer=signer)
        self.registry.add_release(envelope, manifest, files)
        self.log_statement(envelope, Kind.RELEASE, str(REPOSITORY), signer)
        return envelope.payload_digest

    def set_tag(self, target: Digest, **fields: Any) -> None:
        """Set acme/minilm:v1 and log that."""
        statement = samples.tag_statement(target, **fields)
        envelope = sign_envelope(statement.encode(), publisher())
        self.registry.tags["v1"] = envelope.encode()
        self.log_statement(envelope, Kind.TAG, str(REPOSITORY), publisher())

    def set_status(self, statement: StatusStatement, signer: str = REVOKER) -> StatusStatement:
        """Serve and log a status."""
        envelope = sign_status(statement, signer)
        self.registry.statuses[str(Namespace("acme"))] = envelope.encode()
        self.log_statement(envelope, Kind.STATUS, str(statement.namespace), publisher(signer))
        return statement

    def resolve(self, what: Digest | str = "v1", *, online: bool = True) -> Resolved:
        """Resolve a release digest or a tag of acme/minilm."""
        mark = "@" if isinstance(what, Digest) else ":"
        with self.client() as client:
            reference = Reference.parse(f"{REPOSITORY}{mark}{what}")
            return resolve(reference, client, self.verifier(online=online), self.seen)

    def pull(self, what: Digest | str = "v1", out: Path | None = None) -> PullResult:
        """Pull it."""
        resolved = self.resolve(what)
        with self.client() as client, RemoteSource(client) as source:
            return pull(resolved, source, out or self.home / "out", connections=2)
