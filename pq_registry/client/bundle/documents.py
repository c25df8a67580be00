# SPDX-License-Identifier: Apache-2.0
"""What the documents of a bundle are worth: steps 0 to 6 of DESIGN §5 offline, by the reader's own trust file.

A bundle brings no trust and no news but what is signed:

* 5. The status in the bundle counts if it verifies; one this client has seen before counts if that is newer. Neither
  takes back what the other revokes.
* 2 to 6. The release, with its receipt where the trust file demands one.
* 1. Each tag passes steps 2 to 5, is not older than the newest statement of it this client has seen, and points at this
  release. What was accepted is remembered, so that an older bundle cannot move a tag back later.
* 4. What the receipts show of the log, and the checkpoint, must not contradict the one this client keeps. Whether the
  log goes on from there takes a registry, and that is said.

With ``expected`` the caller says what it must be; a tag in it must be among those of the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.directory import Evidence
from pq_registry.client.keptgrants import KeptGrant, counts
from pq_registry.client.keptstatus import adopt_kept_status
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.state import SeenTags
from pq_registry.client.status import SeenStatus
from pq_registry.client.trust import SeenTag, VerifiedRelease, Verifier, target_of
from pq_registry.errors import BundleMismatch, LogMisbehaved
from pq_registry.format.bundleindex import CHECKPOINT, ENVELOPE, MANIFEST, RECEIPT, Bundle
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Reference, Tag
from pq_registry.format.tag import TagStatement
from pq_registry.log.judge import signed_by_log
from pq_registry.log.misbehaviour import check_follows

Chain = tuple[tuple[bytes, bytes | None], ...]
"""Statements, oldest first, as exact envelopes with their receipts."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a bundle proved to hold. Each chain is what it carries of one, and ends in the one that was verified."""

    verified: VerifiedRelease
    tags: Mapping[Tag, TagStatement]
    grants: Mapping[str, KeptGrant]
    tag_chains: Mapping[Tag, Chain]
    grant_chains: Mapping[str, Chain]
    status_chain: Chain


def accept(
    bundle: Bundle,
    documents: Mapping[str, bytes],
    verifier: Verifier,
    *,
    expected: Reference | None,
    state_dir: Path,
) -> Accepted:
    """Judge the documents of a bundle.

    Args:
        bundle: its index, of which nothing is believed.
        documents: by role.
        verifier: what to believe.
        expected: the repository, and the tag and digest if it has them, that this must be.
        state_dir: where this client remembers what it has seen.

    Raises:
        VerificationError: a subclass of the step that refused.
        BundleMismatch: if the documents do not belong together, or lack the tag expected.
        FormatError: for malformed documents, with their step.
        StorageError: if what was seen cannot be read or recorded.
    """
    status = _chain(documents, "status")
    newest_status = status[-1] if status else (None, None)
    evidence = Evidence(documents[ENVELOPE], documents[MANIFEST], documents.get(RECEIPT), *newest_status)
    about = expected or Reference(bundle.name, None, bundle.release)
    adopt_kept_status(verifier, evidence, expected=about, state_dir=state_dir)
    verified = verifier.release(
        evidence.envelope,
        evidence.manifest,
        expected_name=about.repository,
        expected_digest=about.digest,
        receipt=evidence.receipt,
    )
    release = verified.release
    if (bundle.name, bundle.release) != (release.name, release.digest):
        raise BundleMismatch(
            "the bundle calls its release by another name",
            expected=f"{release.name}@{release.digest}", found=f"{bundle.name}@{bundle.release}",
        )  # fmt: skip
    tag_chains = {Tag(name): _chain(documents, f"tags/{name}") for name in _names(documents, "tags")}
    tags = {
        tag: _tag(Reference(release.name, tag), chain[-1], verified, verifier, SeenTags(state_dir))
        for tag, chain in tag_chains.items()
    }
    if expected is not None and expected.tag is not None and expected.digest is None and expected.tag not in tags:
        raise BundleMismatch(
            f"nothing in the bundle says that this is {expected}",
            expected=f"a statement of the tag {expected.tag}",
            found=", ".join(map(str, tags)) or "no tag",
            hint="export it by this tag (pqreg bundle export REF), or name the release by its digest",
        )
    checked = _with_log(verified, documents.get(CHECKPOINT), verifier, Checkpoints(state_dir))
    adopted = verifier.adopted(release.name.namespace)
    if adopted is None or adopted.envelope != evidence.status:
        status = ()  # it did not verify, or is older than the one that counts
    else:
        SeenStatuses(state_dir).advance(release.name.namespace, SeenStatus.of(adopted.envelope, adopted.receipt))
    grant_chains = {name: _chain(documents, f"grants/{name}") for name in _names(documents, "grants")}
    seen_grants = SeenGrants(state_dir, recording=False)
    grants = {
        recipient: chain[-1]
        for recipient, chain in grant_chains.items()
        if counts(release, recipient, chain[-1], verifier, seen_grants)
    }
    return Accepted(checked, tags, grants, tag_chains, grant_chains, status)


def _tag(
    reference: Reference, newest: tuple[bytes, bytes | None], verified: VerifiedRelease, verifier: Verifier,
    seen: SeenTags,
) -> TagStatement:  # fmt: skip
    envelope, receipt = newest
    statement = verifier.tag(envelope, reference, seen.get(reference), receipt=receipt)
    seen.advance(reference, SeenTag(statement.sequence, Envelope.parse(envelope).payload_digest))
    if (target := target_of(statement)) != verified.release.digest:
        raise BundleMismatch(
            f"{reference} points at another release than the one in the bundle",
            expected=target, found=verified.release.digest,
            hint="documents of two bundles were mixed; get another copy",
        )  # fmt: skip
    return statement


def _with_log(
    verified: VerifiedRelease, note: bytes | None, verifier: Verifier, checkpoints: Checkpoints
) -> VerifiedRelease:
    """The same, after what the bundle shows of the log was held against the checkpoint kept."""
    if verified.receipt is None:
        return verified
    for receipt in verifier.receipts:
        checkpoints.compare(receipt)
    log = verifier.trust.log
    shown = signed_by_log(note, log) if note is not None and isinstance(log, tuple) else None
    label = "log freshness: not checked, that takes a registry"
    if shown is not None and note is not None:
        known = checkpoints.get(shown.origin)
        if known is not None and known[0].size == shown.size:
            try:
                check_follows(known[0], shown)
            except LogMisbehaved as error:
                raise checkpoints.convicted(error, known[1], note) from None
        label = f"{label}; when the bundle was made its log had {shown.size} leaves"
    return replace(verified, notes=(*verified.notes, label))


def _names(documents: Mapping[str, bytes], kind: str) -> list[str]:
    """Of which there is a statement; a receipt alone is of no use."""
    return sorted(
        {role.split("/")[1] for role in documents if role.startswith(f"{kind}/") and role.endswith("/envelope")}
    )


def _chain(documents: Mapping[str, bytes], place: str) -> Chain:
    """The statements at a place, oldest first."""
    prefix = f"{place}/"
    numbers = sorted(
        int(rest.split("/")[0])
        for role in documents
        if role.startswith(prefix) and (rest := role.removeprefix(prefix)).count("/") == 1 and rest.endswith("envelope")
    )
    return tuple(
        (documents[f"{prefix}{number}/envelope"], documents.get(f"{prefix}{number}/receipt")) for number in numbers
    )
