# SPDX-License-Identifier: Apache-2.0
"""What passed the verification, for everything that comes after it."""

from __future__ import annotations

from dataclasses import dataclass

from pq_registry.client.status import SeenStatus
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.format.release import Release
from pq_registry.log.receipt import Receipt


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release that passed steps 0 to 6.

    ``notes`` are sentences about what the log attests, what is known of revocations and what was let pass unchecked;
    every command shows them. ``unchecked`` are those of the last kind. ``receipt`` and ``status`` are what steps 4 and
    5 relied on, if anything.
    """

    release: Release
    signer: PublicIdentity
    notes: tuple[str, ...]
    unchecked: tuple[str, ...] = ()
    receipt: Receipt | None = None
    status: SeenStatus | None = None
