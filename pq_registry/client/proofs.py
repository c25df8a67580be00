# SPDX-License-Identifier: Apache-2.0
"""Asking a registry for what steps 4 and 5 need: receipts, and the status of a namespace. Verified by others."""

from __future__ import annotations

from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.status import SeenStatus
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.errors import NotFound, at_step
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Namespace


def fetch_receipt(client: RegistryClient, verifier: Verifier, envelope_bytes: bytes) -> bytes | None:
    """The receipt of a statement the registry has just answered with; None if it has none, or none is wanted.

    Raises:
        FormatError: step 2, if the bytes are no envelope.
        TransportError: if the registry does not answer.
    """
    if not verifier.wants_receipts:
        return None
    with at_step(2):
        digest = Envelope.parse(envelope_bytes).payload_digest
    try:
        return client.statement(digest)[1]
    except NotFound:
        return None  # as good as a statement without one: step 4 refuses it


def adopt_status(client: RegistryClient, verifier: Verifier, namespace: Namespace, seen: SeenStatuses) -> None:
    """Let the verifier go by the registry's status of ``namespace``, if the trust file says who may revoke.

    Where the registry has none, step 5 decides. It must not be older than the newest one seen, and is recorded.

    Raises:
        StatusRollback: if the registry has none and this client has seen one, or has an older one.
        VerificationError: a subclass of the step that refused.
        FormatError: for malformed bytes, with their step.
        TransportError: if the registry does not answer.
        StorageError: if what was seen cannot be read or recorded.
    """
    if not verifier.wants_status(namespace):
        return
    known = seen.get(namespace)
    data = client.status_envelope(namespace)
    if data is None:
        if known is not None:
            raise known.withheld("no status statement")
        return
    receipt = fetch_receipt(client, verifier, data)
    verifier.status(data, namespace, known, receipt=receipt)
    seen.advance(namespace, SeenStatus.of(data, receipt))
