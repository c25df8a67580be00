# SPDX-License-Identifier: Apache-2.0
"""Sealing a release anew: the same files under a content key that nobody has yet.

It is what can be done after a grant was withdrawn: the old key is out and stays out, and with it the old release. The
new release is granted to those whose grants of the old one are in force and whose keys are certified, until the same
time, and to those named; who is left out is said. Files come from a directory, or from the old release, which is
unsealed in memory while it is read: once to hash and seal, once more to send. Nothing is written to disk but the plan.

A reseal that was cut off is taken up by running it again, unless it would now be granted to others: the key in its plan
may have been granted already, so a plan is good for the same old release and the same recipients only. The plan of a
push is never taken up, though it may be of the same files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client.grants import in_force, named_release, own_recipient, read_grant
from pq_registry.client.plaintext import DirectoryPlaintext, Plaintext, ReleasePlaintext
from pq_registry.client.progress import Progress
from pq_registry.client.push import PushOptions
from pq_registry.client.scan import SourceDirectory
from pq_registry.client.screen import screen
from pq_registry.client.sealedpush import SealedPushResult, To, publish_sealed
from pq_registry.client.source import RemoteSource
from pq_registry.client.status import Subject
from pq_registry.client.tagging import Publisher
from pq_registry.client.unsealing import no_grant, unseal_with
from pq_registry.client.vouched import certified, demanded_level, refuse_revoked
from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.errors import RecipientUncertified, Revoked, SignatureError, TrustMissing, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference
from pq_registry.format.release import Release


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A recipient, and why nobody but the publisher can say that it still is to have access."""

    recipient: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResealResult:
    """What was made of the release ``before``; ``left_out`` are recipients it is granted to and the new one is not."""

    before: Digest
    sealed: SealedPushResult
    left_out: tuple[LeftOut, ...]


def reseal(
    reference: Reference,
    *,
    publisher: Publisher,
    recipients: Sequence[PublicRecipient] = (),
    directory: Path | None = None,
    options: PushOptions | None = None,
    progress: Progress | None = None,
) -> ResealResult:
    """Make a new release of a sealed one, under a new content key, and point the tag at it.

    Args:
        reference: the tag; with a digest, that release and not the tag's is the old one.
        publisher: who publishes; the old release must be granted to its own recipient.
        recipients: to whom to grant it, beside those it stays granted to.
        directory: where to take the files from, if not from the old release.
        options: as for a push; license and lineage default to the old release's.
        progress: told of every byte.

    Raises:
        UsageError: if no tag is named, or the release is not sealed.
        GrantMissing: if the publisher cannot open the old release.
        PqregError: what a sealed push raises.
    """
    if reference.tag is None:
        raise UsageError("which tag is to point at the new release?", expected="namespace/name:tag", found=reference)
    options = options or PushOptions()
    old = named_release(publisher, reference)
    own = own_recipient(publisher)
    state = read_grant(publisher, old, own.public.id)
    if state is None:
        raise no_grant(old, own.public.id, "none for your own identity")
    kept, left_out = _kept(publisher, old, {own.public.id, *(one.id for one in recipients)})
    to = [*((one, None) for one in recipients), *kept]
    with contextlib.ExitStack() as stack:
        stored = stack.enter_context(RemoteSource(publisher.client))
        unsealed = stack.enter_context(
            unseal_with(old, state.statement, key=own, source=stored, now=publisher.now, attempts=limits.ATTEMPTS)
        )
        options = replace(
            options,
            license=unsealed.inner.license if options.license is None else options.license,
            lineage=unsealed.inner.lineage if options.lineage is None else options.lineage,
        )
        if directory is None:
            plaintext: Plaintext = ReleasePlaintext(unsealed, unsealed.source(stored, attempts=limits.ATTEMPTS))
        else:
            source = stack.enter_context(SourceDirectory(directory))
            scan = source.scan()
            screen(source, scan, allow_unsafe=options.allow_unsafe)
            plaintext = DirectoryPlaintext(source, scan)
        sealed = publish_sealed(
            plaintext,
            Reference(reference.repository, reference.tag),
            publisher=publisher,
            to=to,
            options=options,
            progress=progress,
            anew=_purpose(old.digest, to),
        )
    return ResealResult(before=old.digest, sealed=sealed, left_out=left_out)


def _purpose(old: Digest, to: To) -> str:
    """What a plan of this reseal is for, and for no other."""
    recipients = "".join(sorted({one.id for one, _expires in to}))
    return f"reseal of {old} for {Digest.of(recipients.encode())}"


def _kept(
    publisher: Publisher, old: Release, named: set[str]
) -> tuple[list[tuple[PublicRecipient, datetime | None]], tuple[LeftOut, ...]]:
    """Recipients whose grants are in force, with their ends: those whose keys are certified, and the others."""
    kept: list[tuple[PublicRecipient, datetime | None]] = []
    left_out: list[LeftOut] = []
    listed = {item.recipient for item in publisher.client.grants(old.name, release=old.digest)}
    for recipient in sorted(listed - named):
        try:
            state = read_grant(publisher, old, recipient)
            if state is None or not in_force(state.statement, publisher.now):
                continue
            # The old release may be revoked, that is what this is for; a grant that readers refuse is not carried on.
            subject = Subject(signer=state.statement.signer, time=None, recipient=recipient, grant=state.payload)
            refuse_revoked(publisher, old.name.namespace, subject)
            statement = certified(publisher, old.name.namespace, recipient)
        except Revoked:
            left_out.append(LeftOut(recipient, "its key, its grant or who signed that is revoked"))
        except RecipientUncertified:
            left_out.append(LeftOut(recipient, "its key is not certified"))
        except (SignatureError, TrustMissing):  # e.g. of a colleague who has left
            left_out.append(LeftOut(recipient, "its grant is signed by nobody known to sign for this namespace"))
        else:
            if statement.kem.level < demanded_level(publisher, old.name.namespace):
                left_out.append(LeftOut(recipient, "its key is of a lower profile than the namespace demands"))
            else:
                kept.append((PublicRecipient(statement.kem, statement.public_key), state.statement.expires))
    return kept, tuple(left_out)
