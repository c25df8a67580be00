# SPDX-License-Identifier: Apache-2.0
"""Two registries, a publisher who pushes to the first, and what moves things to the second: replication and bundles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from pq_registry.client.bundle.bring import Brought, Source, bring
from pq_registry.client.bundle.collect import Collection as BundleDocuments
from pq_registry.client.bundle.export import VolumeWriter
from pq_registry.client.bundle.layout import check_layout, lay_out
from pq_registry.client.bundle.volume import VolumeReader
from pq_registry.client.destination import PlainDirectory
from pq_registry.client.enrolment import certify
from pq_registry.client.grants import content_key, give, named_release
from pq_registry.client.grants import withdraw as withdraw_grant
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.replicate.deliver import Delivery
from pq_registry.client.replicate.report import Report
from pq_registry.client.replicate.run import Plan, Replication
from pq_registry.client.resolve import Resolved, resolve
from pq_registry.client.revoking import issue
from pq_registry.client.sealedpush import push_sealed
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.tagging import Publisher, move_tag
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.client.trustlogs import log_policy
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.format.bundleindex import Bundle, Document, Volume, document_name
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Namespace, Reference, Tag
from pq_registry.format.status import Revocation, RevocationKind
from pq_registry.format.tarstream import END, header, padding
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.trustfile import NamespaceTrust, TrustFile
from tests import samples
from tests.publishing import Registry, make_model, publisher_at, push_as, running_registry
from tests.sealing_site import recipient

ACME = Namespace("acme")
YEAR = timedelta(days=365)


@dataclass
class Move:
    """Source, destination, and a node's home. The trust file demands receipts of either registry's log."""

    source: Registry
    destination: Registry
    home: Path
    acme: Namespace = ACME
    revoker: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def namespace(self) -> NamespaceTrust:
        """Alice publishes, the revoker revokes and certifies."""
        signers = (samples.publisher("alice"), samples.publisher("revoker"))
        entries = tuple(samples.trusted(signer) for signer in signers)
        ids = tuple(entry.id for entry in entries)
        return NamespaceTrust(
            self.acme, entries, ids[:1], min_profile=3, revokers=ids[1:] if self.revoker else (), enrolment=ids[1:]
        )

    @property
    def trust(self) -> TrustFile:
        """What the node believes."""
        policies = []
        for registry in (self.source,) if self.source is self.destination else (self.source, self.destination):
            with registry.client() as client:
                policies.append(LogPolicy(log_policy(client.log_file("vkey"), {}, None)))
        now = utc_now()
        trust = samples.trust_file(self.namespace)
        fields = {"created": now, "expires": now + YEAR, "log": tuple(policies), **self.options}
        return replace(trust, **fields)

    def verifier(self, *, online: bool = True, now: datetime | None = None) -> Verifier:
        """What is believed now."""
        return Verifier(self.trust.encode(), now or utc_now(), online=online)

    def publisher(self, name: str = "alice", registry: Registry | None = None) -> Publisher:
        """Who publishes at the source."""
        return publisher_at(registry or self.source, self.home / "publisher" / name, name, trust=self.trust)

    def push(self, reference: str, seed: int | str = 1, *, size: int = 100_000) -> Digest:
        """A model of its own, pushed to the source."""
        directory = make_model(
            self.home / "models" / f"{reference.replace('/', '-')}-{seed}", f"{self.acme} {seed}", size=size
        )
        return push_as(self.publisher(), directory, reference).release

    def push_sealed(self, reference: str, *nodes: SecretRecipient) -> Digest:
        """The same, sealed for nodes."""
        directory = make_model(self.home / "models" / reference.replace("/", "-"), reference)
        done = push_sealed(
            directory, Reference.parse(reference), publisher=self.publisher(), recipients=[one.public for one in nodes]
        )
        return done.pushed.release

    def tag(self, reference: str, target: Digest | None) -> None:
        """Point a tag, or withdraw it."""
        wanted = Reference.parse(reference)
        assert wanted.tag is not None
        move_tag(self.publisher(), wanted.repository, wanted.tag, target, lifetime=YEAR)

    def revoke(self, *releases: Digest) -> None:
        """Issue the status, with these revoked."""
        entries = [Revocation(RevocationKind.RELEASE, str(one), utc_now()) for one in releases]
        issue(self.publisher("revoker"), self.acme, entries, lifetime=timedelta(days=30))

    def certify(self, node: SecretRecipient, name: str = "node-1") -> None:
        """Certify a node's key."""
        certify(self.publisher("revoker"), node.public, namespace=self.acme, node=name, lifetime=None)

    def grant(self, reference: str, node: SecretRecipient, *, withdraw: bool = False) -> None:
        """Grant a sealed release, or take that back."""
        publisher = self.publisher()
        release = named_release(publisher, Reference.parse(reference))
        if withdraw:
            withdraw_grant(publisher, release, node.public.id)
        else:
            give(publisher, release, node.public, content_key(publisher, release))

    def replicate(
        self,
        *,
        state: str = "replicator",
        namespaces: Collection[str] | None = None,
        dry_run: bool = False,
        source: RegistryClient | None = None,
        destination: RegistryClient | None = None,
        progress: Progress | None = None,
        verifier: Verifier | None = None,
    ) -> Report:
        """One run, of its own namespace unless told otherwise."""
        verifier = verifier or self.verifier()
        delivery = Delivery(
            destination or self.destination.client(sleep=no_pause), verifier.trust, connections=2,
            progress=progress or NullProgress(),
        )  # fmt: skip
        chosen = (self.acme,) if namespaces is None else tuple(map(Namespace, namespaces))
        plan = Plan(namespaces=chosen, dry_run=dry_run)
        reader = source or self.source.client(sleep=no_pause)
        return Replication(reader, delivery, verifier, state_dir=self.home / state, plan=plan).run()

    def resolve_at(self, registry: Registry, reference: str, *, state: str = "node") -> Resolved:
        """What a node of this trust gets there."""
        with registry.client() as client:
            return resolve(Reference.parse(reference), client, self.verifier(), SeenTags(self.home / state))

    def export(
        self,
        reference: str,
        *,
        volume_size: int | None = None,
        tags: Sequence[str] = (),
        grants: bool = False,
        whole: bool = False,
        state: str = "exporter",
    ) -> list[bytes]:
        """A bundle's volumes, in memory."""
        wanted = Reference.parse(reference)
        verifier = self.verifier()
        with self.source.client() as client, RemoteSource(client) as source:
            found = resolve(wanted, client, verifier, SeenTags(self.home / state))
            release = found.verified.release
            documents = BundleDocuments(found, client, verifier, SeenTags(self.home / state))
            documents.add_tags(
                [*([wanted.tag] if wanted.tag and not wanted.digest else []), *map(Tag, tags)], whole=whole
            )
            if grants:
                documents.add_grants(SeenGrants(self.home / state), whole=whole)
            if whole:
                documents.add_status_history()
            bundle = lay_out(
                release.name, release.digest, release.manifest.files, documents.documents,
                created=utc_now(), volume_size=volume_size,
            )  # fmt: skip
            files = check_layout(bundle, release.manifest.files)
            writer = VolumeWriter(bundle, documents.documents, files, source, connections=2, progress=NullProgress())
            return [written(writer, number) for number in range(1, len(bundle.volumes) + 1)]

    def bring(
        self,
        volumes: Mapping[str, bytes] | Sequence[bytes],
        out: str = "out",
        *,
        expected: str | None = None,
        state: str = "edge",
        verifier: Verifier | None = None,
    ) -> Brought:
        """Import them."""
        named = volumes if isinstance(volumes, Mapping) else {f"volume {n}": data for n, data in enumerate(volumes, 1)}
        return bring(
            [Source(label, lambda data=data: BytesIO(data)) for label, data in named.items()],  # type: ignore[misc]
            lambda _bundle: PlainDirectory(self.home / out),
            verifier or self.verifier(online=False),
            expected=None if expected is None else Reference.parse(expected),
            state_dir=self.home / state,
            progress=NullProgress(),
        )


def written(writer: VolumeWriter, number: int) -> bytes:
    """One volume."""
    stream = BytesIO()
    writer.write(number, stream.write)
    return stream.getvalue()


def repacked(
    volume: bytes,
    *,
    documents: Callable[[dict[str, bytes]], dict[str, bytes]] = lambda found: found,
    index: Callable[[Bundle], Bundle] = lambda found: found,
    content: Callable[[bytes], bytes] = lambda found: found,
) -> bytes:
    """A volume taken apart and put together again as whoever forges one would: with digests that fit."""
    reader = VolumeReader(BytesIO(volume), "genuine")
    changed = documents(reader.documents())
    segments = []
    for segment in reader.segments():
        data = bytearray(segment.size)
        reader.read(memoryview(data))
        segments.append((segment, content(bytes(data))))
    listed = tuple(Document(role, len(data), Digest.of(data)) for role, data in sorted(changed.items()))
    bundle = index(replace(reader.bundle, documents=listed))
    encoded = bundle.encode()
    members = [("bundle.json", encoded), ("volume.json", Volume(Digest.of(encoded), reader.number).encode())]
    members += [(document_name(n), changed[one.role]) for n, one in enumerate(bundle.documents)]
    members += [(segment.name, data) for segment, data in segments]
    return b"".join(header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members) + END


def no_pause(_seconds: float) -> None:
    """Retries do not wait in tests."""


@contextmanager
def two_registries(root: Path) -> Iterator[Move]:
    """Serve both."""
    with running_registry(root, name="source") as source, running_registry(root, name="destination") as destination:
        yield Move(source, destination, root)


@contextmanager
def one_registry(root: Path) -> Iterator[Move]:
    """Serve the source only."""
    with running_registry(root, name="source") as source:
        yield Move(source, source, root)


__all__ = ["ACME", "Move", "one_registry", "recipient", "two_registries"]
