# SPDX-License-Identifier: Apache-2.0
"""From a reference to a verified release, asking a registry that is not trusted.

The registry supplies bytes; ``client.trust`` says which are believed. What it is asked for: the envelope of the tag's
statement (unless the reference names a digest), where the parts of the release are, the release's envelope and its
manifest, with the receipt of each statement where the trust file demands receipts, and first of all the namespace's
status where it names revokers. Steps of DESIGN §5: 0 happened when the verifier was made; here 1 to 6, in the order the
bytes arrive. At the end the log itself is asked whether it still stands by what it has shown (``client.consistency``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pq_registry import limits
from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.consistency import ask_log
from pq_registry.client.proofs import adopt_status, fetch_receipt
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import SeenTag, VerifiedRelease, Verifier, target_of
from pq_registry.errors import NotFound, ResponseInvalid
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Reference
from pq_registry.format.tag import TagStatement


@dataclass(frozen=True, slots=True)
class Resolved:
    """A release that passed steps 0 to 6, and the tag statement that led to it, if one did."""

    reference: Reference
    verified: VerifiedRelease
    tag: TagStatement | None


def resolve(reference: Reference, client: RegistryClient, verifier: Verifier, seen: SeenTags) -> Resolved:
    """Find and verify the release that ``reference`` means.

    Args:
        reference: with its digest, if it has one, taking precedence over its tag.
        client: the registry to ask.
        verifier: what to believe.
        seen: the tags seen before; advanced as soon as a statement is accepted. What was seen of statuses and logs is
            kept beside it.

    Raises:
        VerificationError: a subclass of the step that refused.
        LogMisbehaved: if the log contradicts what it showed before; the proof is kept.
        FormatError: for malformed bytes, with their step.
        TransportError: NotFound if there is no such tag or release, or another failure.
        StorageError: if what was seen cannot be recorded.
    """
    adopt_status(client, verifier, reference.repository.namespace, SeenStatuses(seen.state_dir))
    tag = None
    digest = reference.digest
    if digest is None:
        # 1. By a tag statement, which passes 2 to 5 first.
        tag = resolve_tag(reference, client, verifier, seen)
        digest = target_of(tag)
    place = client.release(reference.repository, digest)
    if place.digest != digest:
        raise ResponseInvalid("the registry describes another release", expected=digest, found=place.digest)
    envelope, receipt = client.statement(place.statement)
    manifest = client.blob_bytes(place.manifest, limits.MANIFEST_BYTES)
    # 2 to 6. That the statement and the manifest are those of ``digest`` is not the registry's word but checked here.
    verified = verifier.release(
        envelope, manifest, expected_name=reference.repository, expected_digest=digest, receipt=receipt
    )
    return Resolved(reference, _with_log(verified, client, verifier, seen), tag)


def _with_log(verified: VerifiedRelease, client: RegistryClient, verifier: Verifier, seen: SeenTags) -> VerifiedRelease:
    """The same, with what the log itself says now."""
    if verified.receipt is None:
        return verified
    found = ask_log(client, verifier, Checkpoints(seen.state_dir))
    unchecked = () if found.current else (found.note,)
    return replace(verified, notes=(*verified.notes, found.note), unchecked=(*verified.unchecked, *unchecked))


def resolve_tag(reference: Reference, client: RegistryClient, verifier: Verifier, seen: SeenTags) -> TagStatement:
    """Fetch and verify the statement of a tag.

    Raises:
        NotFound: if there is no such tag.
        VerificationError: a subclass of the step that refused.
    """
    assert reference.tag is not None
    try:
        envelope = client.present_tag_envelope(reference.repository, reference.tag)
    except NotFound as error:
        raise NotFound(
            f"there is no tag {reference.tag} in {reference.repository}: {error.message}",
            expected=error.expected,
            found=error.found,
            hint=error.hint or f"list what is there: pqreg ls {reference.repository}",
        ) from None
    receipt = fetch_receipt(client, verifier, envelope)
    statement = verifier.tag(envelope, reference, seen.get(reference), receipt=receipt)
    # Accepted, so remembered before anything else can fail: also a withdrawal must not be taken back.
    seen.advance(reference, SeenTag(statement.sequence, Envelope.parse(envelope).payload_digest))
    return statement
