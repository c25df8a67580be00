# SPDX-License-Identifier: Apache-2.0
"""The log of a service in a test: keys from fixed seeds, so that the same data can be opened again; no key file."""

from __future__ import annotations

from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.signers import LogSigners
from pq_registry.service.ledger import LogSetup, Witnesses
from tests.logsamples import ORIGIN, compose_policy, log_signers


def log_setup(origin: str = ORIGIN, *, policy: Policy | None = None, witnesses: Witnesses | None = None) -> LogSetup:
    """A log, by default without witnesses."""
    return LogSetup(
        signers=LogSigners(*log_signers(origin)), policy=policy or compose_policy(origin), witnesses=witnesses
    )
