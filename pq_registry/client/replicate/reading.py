# SPDX-License-Identifier: Apache-2.0
"""Reading from a source what is to be copied: every answer of these methods has passed the verification.

The steps are those of DESIGN §5; what was seen is compared and remembered as by any client. A tag statement that has
expired is read like any other, because a replica shows what the source shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from pq_registry import limits
from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.consistency import ask_log
from pq_registry.client.proofs import adopt_status, fetch_receipt
from pq_registry.client.replicate.report import Report
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.state import SeenTags
from pq_registry.client.status import SeenStatus
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import SeenTag, VerifiedRelease, Verifier
from pq_registry.crypto.sealing import require_match
from pq_registry.errors import ResponseInvalid, TagExpired
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.name import Namespace, Reference, RepositoryName, Tag
from pq_registry.format.tag import TagStatement


class VerifiedSource:
    """A registry, what to believe of it, and what was seen before."""

    def __init__(self, client: RegistryClient, verifier: Verifier, *, state_dir: Path, report: Report) -> None:
        """Nothing is asked yet; ``report`` gets the sentences about what could not be checked."""
        self.client = client
        self.verifier = verifier
        self._state_dir = state_dir
        self._report = report

    def repositories(self, namespaces: Iterable[Namespace]) -> list[RepositoryName]:
        """The repositories of these namespaces, or of all that it shows."""
        found: list[RepositoryName] = []
        for namespace in tuple(namespaces) or (None,):
            after = None
            while True:
                page = self.client.repos(namespace=namespace, after=after, limit=limits.PAGE_ITEMS)
                found += [item.name for item in page.items]
                if page.next is None or not page.items or len(found) > limits.LISTING_ITEMS:
                    break
                after = page.next
        return found

    def listing(self, repository: RepositoryName) -> tuple[list[Tag], list[Digest]]:
        """The tags of a repository, and its releases, oldest first; the source's word, good for knowing what to ask."""
        tags: list[Tag] = []
        releases: list[Digest] = []
        after = None
        while True:
            page = self.client.repository(repository, after=after, limit=limits.PAGE_ITEMS)
            tags = tags or [item.tag for item in page.tags]
            releases += [item.digest for item in page.releases]
            if page.next is None or not page.releases or len(releases) > limits.LISTING_ITEMS:
                return tags, releases[::-1]
            after = page.next

    def status(self, namespace: Namespace) -> SeenStatus | None:
        """The namespace's status, by which everything else of it is judged from then on; None if there is none.

        Raises:
            VerificationError: if it is refused, or was seen and is gone.
        """
        adopt_status(self.client, self.verifier, namespace, SeenStatuses(self._state_dir))
        adopted = self.verifier.adopted(namespace)
        self._ask_log(adopted is not None and adopted.receipt is not None)
        return adopted

    def key(self, namespace: Namespace, recipient: str, envelope: bytes) -> KeyStatement:
        """The key statement in ``envelope``, which the source has about ``recipient``.

        Raises:
            VerificationError, RecipientUncertified: a subclass of the step that refused.
        """
        receipt = fetch_receipt(self.client, self.verifier, envelope)
        statement = self.verifier.certificate(envelope, namespace, receipt=receipt)
        if statement.recipient != recipient:
            raise ResponseInvalid(
                "the source answered with another key statement", expected=recipient, found=statement.recipient
            )
        self._ask_log(receipt is not None)
        return statement

    def release(self, repository: RepositoryName, digest: Digest) -> VerifiedRelease:
        """A release, without its content.

        Raises:
            VerificationError: a subclass of the step that refused.
        """
        place = self.client.release(repository, digest)
        envelope, receipt = self.client.statement(digest)
        manifest = self.client.blob_bytes(place.manifest, limits.MANIFEST_BYTES)
        verified = self.verifier.release(
            envelope, manifest, expected_name=repository, expected_digest=digest, receipt=receipt
        )
        self._ask_log(verified.receipt is not None)
        return verified

    def tag(self, reference: Reference, envelope: bytes) -> TagStatement:
        """The tag statement in ``envelope``, which the source has as its newest.

        Raises:
            VerificationError: a subclass of the step that refused.
        """
        receipt = fetch_receipt(self.client, self.verifier, envelope)
        seen = SeenTags(self._state_dir)
        # Whether it has expired is judged after everything else that could refuse it.
        with contextlib.suppress(TagExpired):
            self.verifier.tag(envelope, reference, seen.get(reference), receipt=receipt)
        parsed = Envelope.parse(envelope)
        statement = TagStatement.parse(parsed.payload)
        seen.advance(reference, SeenTag(statement.sequence, parsed.payload_digest))
        self._ask_log(receipt is not None)
        return statement

    def grant(self, repository: RepositoryName, release: Digest, recipient: str, envelope: bytes) -> None:
        """See that ``envelope``, which the source has as the newest grant of a release to a recipient, is one.

        Raises:
            VerificationError: a subclass of the step that refused.
        """
        receipt = fetch_receipt(self.client, self.verifier, envelope)
        statement = self.verifier.grant(envelope, receipt=receipt)
        require_match(statement, release=release, repository=repository, recipient=recipient)
        SeenGrants(self._state_dir).accept(statement)
        self._ask_log(receipt is not None)

    def _ask_log(self, wanted: bool) -> None:
        """See that the log stands by the receipts accepted, before anything that rests on them is sent."""
        if wanted and self.verifier.wants_receipts:
            found = ask_log(self.client, self.verifier, Checkpoints(self._state_dir))
            if not found.current:
                self._report.note(found.note)
