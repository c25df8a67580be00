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

from pq_registry import limits
from pq_registry.client.chains import Link
from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.consistency import ask_log
from pq_registry.client.proofs import adopt_status, fetch_receipt
from pq_registry.client.replicate.chaining import Chain, ChainSender
from pq_registry.client.replicate.deliver import Delivery
from pq_registry.client.replicate.report import Action, Report
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import SeenTag, VerifiedRelease, Verifier
from pq_registry.crypto.sealing import require_match
from pq_registry.errors import (
    FormatError,
    LogMisbehaved,
    NotAuthenticated,
    NotFound,
    PolicyError,
    ResponseInvalid,
    TagExpired,
    TrustMissing,
    VerificationError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.name import Namespace, Reference, RepositoryName, Tag
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
        self._source = source
        self._delivery = delivery
        self._verifier = verifier
        self._state_dir = state_dir
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
        shown = self._repositories()
        trusted = {entry.namespace.key: entry.namespace for entry in self._verifier.trust.namespaces.values()}
        wanted = {name.key: name for name in self._plan.namespaces}
        if not wanted:
            wanted = {**trusted, **{name.namespace.key: name.namespace for name in shown}}
        for key in sorted(wanted):
            of_it = [name for name in shown if name.namespace.key == key]
            with self._refused("namespace", wanted[key]):
                self._namespace(of_it[0].namespace if of_it else wanted[key], of_it)
        return self.report

    def _repositories(self) -> list[RepositoryName]:
        found: list[RepositoryName] = []
        for namespace in self._plan.namespaces or (None,):
            after = None
            while True:
                page = self._source.repos(namespace=namespace, after=after, limit=limits.PAGE_ITEMS)
                found += [item.name for item in page.items]
                if page.next is None or not page.items or len(found) > limits.LISTING_ITEMS:
                    break
                after = page.next
        return found

    def _namespace(self, namespace: Namespace, repositories: list[RepositoryName]) -> None:
        if namespace.key not in self._verifier.trust.namespaces:  # said once, and not of each statement
            raise TrustMissing(
                f"the trust file says nothing about {namespace}", expected="a namespace of the trust file",
                found=namespace, hint="add its publisher to the trust file, or choose namespaces: --namespace",
            )  # fmt: skip
        # 1. First, and what it refuses stops everything else of this namespace.
        adopt_status(self._source, self._verifier, namespace, SeenStatuses(self._state_dir))
        self._status(namespace)
        for item in self._source.certificates(namespace):
            with self._refused("key", f"{namespace}/{item.recipient}"):
                self._key(namespace, item.recipient)
        for repository in repositories:
            with self._refused("repository", repository):
                self._repository(repository)

    def _status(self, namespace: Namespace) -> None:
        adopted = self._verifier.adopted(namespace)
        if adopted is None:
            if not self._verifier.wants_status(namespace) and self._source.status_envelope(namespace) is not None:
                self.report.note(f"the status of {namespace} is let be: the trust file names no revoker for it")
            return
        there = self._delivery.client.status_envelope(namespace)
        self._chains.send(
            Chain(
                kind="status",
                subject=str(namespace),
                namespace=namespace,
                source=self._source,
                newest=adopted.envelope,
                there=there,
                parse=StatusStatement.parse,
                post=lambda some: self._delivery.client.add_status_history(namespace, some),
            )
        )

    def _key(self, namespace: Namespace, recipient: str) -> None:
        envelope = self._source.certificate_envelope(namespace, recipient)
        if envelope is None or envelope == self._delivery.client.certificate_envelope(namespace, recipient):
            self.report.present += envelope is not None
            return
        receipt = fetch_receipt(self._source, self._verifier, envelope)
        statement: KeyStatement = self._verifier.certificate(envelope, namespace, receipt=receipt)
        subject = f"{namespace}/{recipient}"
        if statement.recipient != recipient:
            raise ResponseInvalid("the source answered with another key statement", expected=recipient,
                                  found=statement.recipient)  # fmt: skip
        if not self._plan.dry_run:
            self._delivery.register(namespace, statement.signer)
            self._delivery.client.put_certificate(namespace, recipient, envelope)
        self.report.add("key", subject, self._done)

    def _repository(self, repository: RepositoryName) -> None:
        tags: list[Tag] = []
        listed: list[Digest] = []
        after = None
        while True:
            page = self._source.repository(repository, after=after, limit=limits.PAGE_ITEMS)
            tags = tags or [item.tag for item in page.tags]
            listed += [item.digest for item in page.releases]
            if page.next is None or not page.releases or len(listed) > limits.LISTING_ITEMS:
                break
            after = page.next
        there = self._delivery.releases(repository)
        for digest in reversed(listed):
            if digest in there:
                self.report.present += 1
                continue
            with self._refused("release", f"{repository}@{digest}"):
                self._release(repository, digest)
                there.add(digest)
        for tag in tags:
            with self._refused("tag", f"{repository}:{tag}"):
                self._tag(Reference(repository, tag), there)
        for item in self._source.grants(repository):
            with self._refused("grant", f"{repository}@{item.release} for {item.recipient}"):
                self._grant(repository, item.release, item.recipient, there)

    def _release(self, repository: RepositoryName, digest: Digest) -> None:
        place = self._source.release(repository, digest)
        envelope, receipt = self._source.statement(digest)
        manifest = self._source.blob_bytes(place.manifest, limits.MANIFEST_BYTES)
        verified: VerifiedRelease = self._verifier.release(
            envelope, manifest, expected_name=repository, expected_digest=digest, receipt=receipt
        )
        self._ask_log(verified.receipt is not None)
        if not self._plan.dry_run:
            with RemoteSource(self._source) as source:
                self.report.sent_bytes += self._delivery.release(verified, source).sent
        self.report.add("release", f"{repository}@{digest}", self._done)

    def _tag(self, reference: Reference, there: Collection[Digest]) -> None:
        assert reference.tag is not None
        repository, tag = reference.repository, reference.tag
        envelope = self._source.present_tag_envelope(repository, tag)
        parsed = Envelope.parse(envelope)
        known = self._delivery.client.tag_envelope(repository, tag)
        if known is not None and Envelope.parse(known).payload_digest == parsed.payload_digest:
            self.report.present += 1
            return
        receipt = fetch_receipt(self._source, self._verifier, envelope)
        seen = SeenTags(self._state_dir)
        # Expiry is the last thing that is judged of a tag, so all else has passed.
        with contextlib.suppress(TagExpired):
            self._verifier.tag(envelope, reference, seen.get(reference), receipt=receipt)
        statement = TagStatement.parse(parsed.payload)
        seen.advance(reference, SeenTag(statement.sequence, parsed.payload_digest))
        self._ask_log(receipt is not None)
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
                source=self._source,
                newest=envelope,
                there=known,
                parse=TagStatement.parse,
                post=lambda some: self._delivery.client.add_tag_history(repository, tag, some),
                can_end=can_end,
            )
        )

    def _grant(self, repository: RepositoryName, release: Digest, recipient: str, there: Collection[Digest]) -> None:
        envelope = self._source.grant_envelope(repository, release, recipient)
        if envelope is None:
            return
        known = self._delivery.client.grant_envelope(repository, release, recipient) if release in there else None
        if known is not None and Envelope.parse(known).payload_digest == Envelope.parse(envelope).payload_digest:
            self.report.present += 1
            return
        receipt = fetch_receipt(self._source, self._verifier, envelope)
        grant: GrantStatement = self._verifier.grant(envelope, receipt=receipt)
        require_match(grant, release=release, repository=repository, recipient=recipient)
        SeenGrants(self._state_dir).accept(grant)
        self._ask_log(receipt is not None)
        if release not in there:
            raise NotFound(f"its release {release} was refused, and the destination does not have it")
        self._chains.send(
            Chain(
                kind="grant",
                subject=f"{repository}@{release} for {recipient}",
                namespace=repository.namespace,
                source=self._source,
                newest=envelope,
                there=known,
                parse=GrantStatement.parse,
                post=lambda some: self._delivery.client.add_grant_history(repository, release, recipient, some),
            )
        )

    def _ask_log(self, wanted: bool) -> None:
        """See that the source's log stands by the receipts accepted, before anything that rests on them is sent."""
        if wanted and self._verifier.wants_receipts:
            found = ask_log(self._source, self._verifier, Checkpoints(self._state_dir))
            if not found.current:
                self.report.note(found.note)

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
