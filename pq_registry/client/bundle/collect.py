# SPDX-License-Identifier: Apache-2.0
"""What a bundle carries besides the files: gathered from a registry, and verified before it is packed.

The release passed steps 0 to 6 (``client.resolve``), with the namespace's status. Every tag that goes along passes
steps 2 to 5 and step 1, and must point at this release; every grant must be in force. With ``history`` the statements
before them go along, too, which a registry at the other end needs: it takes each chain from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pq_registry.client.chains import Chained, history
from pq_registry.client.keptgrants import grants_in_force
from pq_registry.client.proofs import fetch_receipt
from pq_registry.client.resolve import Resolved
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import SeenTag, Verifier, target_of
from pq_registry.errors import DigestMismatch
from pq_registry.format.bundleindex import CHECKPOINT, ENVELOPE, MANIFEST, RECEIPT
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.name import Reference, Tag
from pq_registry.format.status import StatusStatement
from pq_registry.format.tag import TagStatement


class Collection:
    """The documents of one bundle, by role."""

    def __init__(self, found: Resolved, client: RegistryClient, verifier: Verifier, seen: SeenTags) -> None:
        """The release, its receipt, the namespace's status, and the log's newest checkpoint.

        Raises:
            TransportError: if the registry does not answer.
        """
        release = found.verified.release
        self.documents: dict[str, bytes] = {
            ENVELOPE: release.envelope.encode(),
            MANIFEST: release.manifest_bytes,
        }
        self._release = release
        self._client = client
        self._verifier = verifier
        self._seen = seen
        self._status = found.verified.status
        if found.verified.receipt is not None:
            self.documents[RECEIPT] = found.verified.receipt.proof
            self.documents[CHECKPOINT] = client.log_file("checkpoint")
        if self._status is not None:
            self._add(f"status/{self._status.statement.sequence}", self._status.envelope, self._status.receipt)

    def add_tags(self, tags: Sequence[Tag], *, whole: bool) -> None:
        """Let tags go along; ``whole`` with all statements before.

        Raises:
            NotFound: if there is no such tag.
            DigestMismatch: if it points at another release.
            VerificationError: a subclass of the step that refused.
        """
        for tag in dict.fromkeys(tags):
            reference = Reference(self._release.name, tag)
            envelope = self._client.present_tag_envelope(reference.repository, tag)
            receipt = fetch_receipt(self._client, self._verifier, envelope)
            statement = self._verifier.tag(envelope, reference, self._seen.get(reference), receipt=receipt)
            self._seen.advance(reference, SeenTag(statement.sequence, Envelope.parse(envelope).payload_digest))
            if (target := target_of(statement)) != self._release.digest:
                raise DigestMismatch(
                    f"{reference} points at another release", expected=self._release.digest, found=target,
                    hint="a bundle holds one release, and the tags that lead to it",
                )  # fmt: skip
            self._add(f"tags/{tag}/{statement.sequence}", envelope, receipt)
            if whole:
                self._add_history(f"tags/{tag}", envelope, TagStatement.parse)

    def add_grants(self, seen: SeenGrants, *, whole: bool) -> int:
        """Let the grants in force go along; answers how many.

        Raises:
            TransportError: if the registry does not answer.
        """
        grants = grants_in_force(self._release, self._client, self._verifier, seen)
        for recipient, (envelope, receipt) in grants.items():
            statement = GrantStatement.parse(Envelope.parse(envelope).payload)
            self._add(f"grants/{recipient}/{statement.sequence}", envelope, receipt)
            if whole:
                self._add_history(f"grants/{recipient}", envelope, GrantStatement.parse)
        return len(grants)

    def add_status_history(self) -> None:
        """Let all statuses before the present one go along."""
        if self._status is not None:
            self._add_history("status", self._status.envelope, StatusStatement.parse)

    def _add(self, place: str, envelope: bytes, receipt: bytes | None) -> None:
        self.documents[f"{place}/envelope"] = envelope
        if receipt is not None:
            self.documents[f"{place}/receipt"] = receipt

    def _add_history(self, place: str, envelope: bytes, parse: Callable[[bytes], Chained]) -> None:
        for link in history(self._client, envelope, parse, what=f"{place} of {self._release.name}")[:-1]:
            self._add(f"{place}/{link.sequence}", link.envelope, None)
