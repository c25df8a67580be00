# SPDX-License-Identifier: Apache-2.0
"""One run from a source to a destination. A rerun sends what is lacking and nothing twice; it is also how one resumes.

Per namespace, and in this order, so that a run that is cut off never leaves a release without its revocation:

1. The source's status passes steps 2 to 5 and is held against what this user has seen. Where the trust file names
   revokers and this fails, nothing of the namespace is sent. Then it goes up with its history.
2. Key statements pass steps 2 to 5 by the trust file's enrolment identities.
3. Per repository, oldest first, the releases that the destination lacks: steps 2 to 6, then the log's consistency, then
   each shard in the buffer that is sent. Sealed ones are ciphertext and stay it.
4. Tags: the newest statement passes steps 2 to 5 and step 1. It may have expired, for a replica shows what the source
   shows, and whoever resolves it is told. The statements before it are proven by its hash chain (``client.chains``).
5. Grants alike; a withdrawal is a statement like any other.

What one of them refuses is written into the report, and the run goes on with the next thing. What ends the run: a
network, server or disk that fails, a token that is not accepted, and a log that contradicts itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pq_registry.client.chains import Link
from pq_registry.client.replicate.chaining import Chain, ChainSender
from pq_registry.client.replicate.deliver import Delivery
from pq_registry.client.replicate.reading import VerifiedSource
from pq_registry.client.replicate.report import Action, Report
from pq_registry.client.source import RemoteSource
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.errors import (
    FormatError,
    LogMisbehaved,
    NotAuthenticated,
    NotFound,
    PolicyError,
    ResponseInvalid,
    TrustMissing,
    VerificationError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import is_expired
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.name import Namespace, Reference, RepositoryName
from pq_registry.format.status import StatusStatement
from pq_registry.format.tag import TagStatement

REFUSALS = (VerificationError, FormatError, PolicyError, NotFound, ResponseInvalid)
"""What concerns one thing. Everything else ends the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done: ``namespaces`` is all that the source shows if empty; a ``dry_run`` verifies only."""

    namespaces: Collection[Namespace] = ()
    dry_run: bool = False


class Replication:
    """One run."""

    def __init__(
        self, source: RegistryClient, delivery: Delivery, verifier: Verifier, *, state_dir: Path, plan: Plan
    ) -> None:
        """Nothing is asked yet.

        Args:
            source: the registry to read from.
            delivery: the registry that gets what it lacks.
            verifier: what to believe.
            state_dir: where this user remembers what was seen.
            plan: what is to be done.
        """
        self.report = Report()
        self._source = VerifiedSource(source, verifier, state_dir=state_dir, report=self.report)
        self._delivery = delivery
        self._there = delivery.client
        self._trust = verifier.trust
        self._now = verifier.now
        self._plan = plan
        self._chains = ChainSender(delivery, self.report, dry_run=plan.dry_run)

    def run(self) -> Report:
        """Do it.

        Raises:
            TransportError: if a registry cannot be asked.
            NotAuthenticated: if it does not accept the token.
            LogMisbehaved: if the source's log contradicts itself.
            StorageError: if what was seen cannot be read or recorded.
        """
        shown = self._source.repositories(self._plan.namespaces)
        wanted = {name.key: name for name in self._plan.namespaces}
        if not wanted:
            trusted = {entry.namespace.key: entry.namespace for entry in self._trust.namespaces.values()}
            wanted = {**trusted, **{name.namespace.key: name.namespace for name in shown}}
        for key in sorted(wanted):
            of_it = [name for name in shown if name.namespace.key == key]
            with self._refused("namespace", wanted[key]):
                self._namespace(of_it[0].namespace if of_it else wanted[key], of_it)
        return self.report

    def _namespace(self, namespace: Namespace, repositories: list[RepositoryName]) -> None:
        if namespace.key not in self._trust.namespaces:  # said once, and not of each statement
            raise TrustMissing(
                f"the trust file says nothing about {namespace}", expected="a namespace of the trust file",
                found=namespace, hint="add its publisher to the trust file, or choose namespaces: --namespace",
            )  # fmt: skip
        # 1. First, and what it refuses stops everything else of this namespace.
        self._status(namespace)
        for item in self._source.client.certificates(namespace):
            with self._refused("key", f"{namespace}/{item.recipient}"):
                self._key(namespace, item.recipient)
        for repository in repositories:
            with self._refused("repository", repository):
                self._repository(repository)

    def _status(self, namespace: Namespace) -> None:
        adopted = self._source.status(namespace)
        if adopted is not None:
            self._chains.send(
                Chain(
                    kind="status",
                    subject=str(namespace),
                    namespace=namespace,
                    source=self._source.client,
                    newest=adopted.envelope,
                    there=self._there.status_envelope(namespace),
                    parse=StatusStatement.parse,
                    post=lambda some: self._there.add_status_history(namespace, some),
                )
            )
        elif not self._trust.namespaces[namespace.key].revokers and self._source.client.status_envelope(namespace):
            self.report.note(f"the status of {namespace} is let be: the trust file names no revoker")

    def _key(self, namespace: Namespace, recipient: str) -> None:
        envelope = self._source.client.certificate_envelope(namespace, recipient)
        if envelope is None or envelope == self._there.certificate_envelope(namespace, recipient):
            self.report.present += envelope is not None
            return
        if not self._trust.namespaces[namespace.key].enrolment:
            self.report.note(f"certificates of {namespace} are let be: the trust file names no enrolment identity")
            return
        claimed = KeyStatement.parse(Envelope.parse(envelope).payload)
        if claimed.not_after is not None and is_expired(self._now, claimed.not_after):
            self.report.note(f"the certificate of {claimed.node} has lapsed and is let be")
            return
        statement = self._source.key(namespace, recipient, envelope)
        if not self._plan.dry_run:
            self._delivery.register(namespace, statement.signer)
            self._there.put_certificate(namespace, recipient, envelope)
        self.report.add("key", f"{namespace}/{recipient}", self._done)

    def _repository(self, repository: RepositoryName) -> None:
        tags, releases = self._source.listing(repository)
        there = self._delivery.releases(repository)
        for digest in releases:
            if digest in there:
                self.report.present += 1
                continue
            with self._refused("release", f"{repository}@{digest}"):
                self._release(repository, digest)
                there.add(digest)
        for tag in tags:
            with self._refused("tag", f"{repository}:{tag}"):
                self._tag(Reference(repository, tag), there)
        for item in self._source.client.grants(repository):
            with self._refused("grant", f"{repository}@{item.release} for {item.recipient}"):
                self._grant(repository, item.release, item.recipient, there)

    def _release(self, repository: RepositoryName, digest: Digest) -> None:
        verified = self._source.release(repository, digest)
        if not self._plan.dry_run:
            with RemoteSource(self._source.client) as source:
                self.report.sent_bytes += self._delivery.release(verified, source).sent
        self.report.add("release", f"{repository}@{digest}", self._done)

    def _tag(self, reference: Reference, there: Collection[Digest]) -> None:
        assert reference.tag is not None
        repository, tag = reference.repository, reference.tag
        envelope = self._source.client.present_tag_envelope(repository, tag)
        known = self._there.tag_envelope(repository, tag)
        if self._is_same(envelope, known):
            return
        statement = self._source.tag(reference, envelope)
        if statement.target is not None and statement.target not in there:
            raise NotFound(f"its target {statement.target} was refused, and the destination does not have it")

        def can_end(link: Link) -> bool:
            target = TagStatement.parse(Envelope.parse(link.envelope).payload).target
            return target is None or target in there

        self._chains.send(
            Chain(
                kind="tag",
                subject=str(reference),
                namespace=repository.namespace,
                source=self._source.client,
                newest=envelope,
                there=known,
                parse=TagStatement.parse,
                post=lambda some: self._there.add_tag_history(repository, tag, some),
                can_end=can_end,
            )
        )

    def _grant(self, repository: RepositoryName, release: Digest, recipient: str, there: Collection[Digest]) -> None:
        envelope = self._source.client.grant_envelope(repository, release, recipient)
        known = self._there.grant_envelope(repository, release, recipient) if release in there else None
        if envelope is None or self._is_same(envelope, known):
            return
        self._source.grant(repository, release, recipient, envelope)
        if release not in there:
            raise NotFound(f"its release {release} was refused, and the destination does not have it")
        self._chains.send(
            Chain(
                kind="grant",
                subject=f"{repository}@{release} for {recipient}",
                namespace=repository.namespace,
                source=self._source.client,
                newest=envelope,
                there=known,
                parse=GrantStatement.parse,
                post=lambda some: self._there.add_grant_history(repository, release, recipient, some),
            )
        )

    def _is_same(self, envelope: bytes, known: bytes | None) -> bool:
        """Whether the destination's newest statement is this one."""
        if known is None or Envelope.parse(known).payload_digest != Envelope.parse(envelope).payload_digest:
            return False
        self.report.present += 1
        return True

    @property
    def _done(self) -> Action:
        return Action.WOULD_SEND if self._plan.dry_run else Action.SENT

    @contextlib.contextmanager
    def _refused(self, kind: str, subject: object) -> Iterator[None]:
        """Write down what refuses this thing, and go on with the next."""
        try:
            yield
        except (LogMisbehaved, NotAuthenticated):
            raise
        except REFUSALS as error:
            self.report.refuse(kind, subject, error)
