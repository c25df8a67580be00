# SPDX-License-Identifier: Apache-2.0
"""What a page hands to the browser's checks besides what it displays: the witnesses' keys, and where an envelope is."""

from __future__ import annotations

from pq_registry.format.digest import Digest
from pq_registry.format.tlogpolicy import LOG_PQ, PolicyWitness
from pq_registry.service.registry import Registry


def witnesses_of(registry: Registry) -> list[PolicyWitness]:
    """The independent witnesses of the service's own policy; one that signs with two keys stands twice."""
    return [item for name, item in registry.ledger.policy.witnesses.items() if name != LOG_PQ]


def envelope_path(statement: Digest) -> str:
    """Where a statement's exact envelope is for pages."""
    return f"/audit/envelopes/{statement.hex}"
