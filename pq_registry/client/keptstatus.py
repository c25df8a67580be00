# SPDX-License-Identifier: Apache-2.0
"""The status of a namespace for those without a network: kept beside a release, or remembered by this client.

Both are verified again, and the newer one counts: what lies beside a release is as old as the pull that put it there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pq_registry.client.directory import Evidence
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.trust import Verifier
from pq_registry.errors import IdentityLapsed, LogError, StatementError, TrustMissing, UntrustedSigner
from pq_registry.format.name import Namespace, Reference

_NO_LONGER = (UntrustedSigner, StatementError, LogError, IdentityLapsed, TrustMissing)
"""What a trust file made since then may refuse in a status that was accepted once. Then it is as if there were none."""


def adopt_kept_status(
    verifier: Verifier, evidence: Evidence, *, expected: Reference | None, state_dir: Path | None
) -> None:
    """Let the verifier go by the status kept in a directory, or by the one this client has seen if that is newer.

    Raises:
        StatusExpired: if the newest has expired and the trust file demands a current one.
        StatusEquivocation: if the two are different statements of one sequence.
        VerificationError: if the one in the directory was altered, or lacks the receipt that is demanded.
        FormatError: if one is malformed.
        StorageError: if what was seen cannot be read.
    """
    if not any(trusted.revokers for trusted in verifier.trust.namespaces.values()):
        return
    if expected is not None:
        # First the one seen: one beside a release that is older than that is then passed over, and no error.
        _adopt_seen(verifier, expected.repository.namespace, state_dir)
    if evidence.status is not None:
        with contextlib.suppress(UntrustedSigner, IdentityLapsed, TrustMissing):
            statement = verifier.status(evidence.status, None, None, receipt=evidence.status_receipt)
            if expected is None:
                _adopt_seen(verifier, statement.namespace, state_dir)


def _adopt_seen(verifier: Verifier, namespace: Namespace, state_dir: Path | None) -> None:
    if state_dir is None or not verifier.wants_status(namespace):
        return
    seen = SeenStatuses(state_dir).get(namespace)
    if seen is not None:
        with contextlib.suppress(*_NO_LONGER):
            verifier.status(seen.envelope, namespace, None, receipt=seen.receipt)
