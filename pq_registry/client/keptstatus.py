# SPDX-License-Identifier: Apache-2.0
"""The status of a namespace for those without a network: kept beside a release, or remembered by this client.

Both are verified again, and the newer one counts: what lies beside a release is as old as the pull that put it there.
If that is the one in the directory, it must follow from the one remembered as a registry's would (``client.status``):
whoever hands out a directory takes back no revocation that this client knows of.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pq_registry.client.directory import Evidence
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.trust import Verifier
from pq_registry.errors import (
    IdentityLapsed,
    LogError,
    StatementError,
    StatusExpired,
    TrustMissing,
    UntrustedSigner,
)
from pq_registry.format.name import Namespace, Reference

_NO_LONGER = (UntrustedSigner, StatementError, LogError, IdentityLapsed, TrustMissing)
"""What a trust file made since then may refuse in a status that was accepted once. Then it is as if there were none."""


def adopt_kept_status(
    verifier: Verifier, evidence: Evidence, *, expected: Reference | None, state_dir: Path | None
) -> None:
    """Let the verifier go by the status kept in a directory, or by the one this client has seen if that is newer.

    One that has expired is refused only where it turns out to be the newest and a current one is demanded: by step 5 of
    whatever is verified next.

    Raises:
        StatusRollback: if the one in the directory takes back a revocation of the one seen.
        StatusEquivocation: if the two are different statements of one sequence.
        VerificationError: if the one in the directory was altered, or lacks the receipt that is demanded.
        FormatError: if one is malformed.
        StorageError: if what was seen cannot be read.
    """
    if not any(trusted.revokers for trusted in verifier.trust.namespaces.values()):
        return
    # First what was seen. Of which namespace the release is has not been proved yet where the caller does not know.
    known = [trusted.namespace for trusted in verifier.trust.namespaces.values()]
    for namespace in known if expected is None else [expected.repository.namespace]:
        _adopt_seen(verifier, namespace, state_dir)
    if evidence.status is not None:
        with contextlib.suppress(UntrustedSigner, IdentityLapsed, TrustMissing, StatusExpired):
            verifier.status(evidence.status, None, None, receipt=evidence.status_receipt)


def _adopt_seen(verifier: Verifier, namespace: Namespace, state_dir: Path | None) -> None:
    if state_dir is None or not verifier.wants_status(namespace):
        return
    seen = SeenStatuses(state_dir).get(namespace)
    if seen is not None:
        with contextlib.suppress(*_NO_LONGER, StatusExpired):
            verifier.status(seen.envelope, namespace, None, receipt=seen.receipt)
