# SPDX-License-Identifier: Apache-2.0
"""Status statements for tests, and sending them."""

from __future__ import annotations

from typing import Any

from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from tests.samples import YEAR, publisher
from tests.sealing_service import ACME
from tests.server_harness import ENVELOPE, Answer, Api


def revocation(hex_digits: str = "ab" * 32, kind: RevocationKind = RevocationKind.IDENTITY) -> Revocation:
    """One entry, from now on."""
    return Revocation(kind, hex_digits, utc_now())


def status_statement(*revoked: Revocation, **fields: Any) -> StatusStatement:
    """A namespace's first status, issued now; ``fields`` change it."""
    now = utc_now()
    defaults = {
        "namespace": ACME, "signer": publisher().identity.id, "sequence": 1, "previous": None, "issued": now,
        "expires": now + YEAR, "revoked": tuple(sorted(revoked, key=lambda entry: entry.key)),
    }  # fmt: skip
    return StatusStatement(**{**defaults, **fields})


def put_status(api: Api, statement: StatusStatement | Envelope, namespace: str = "acme") -> Answer:
    """Send a status statement to where ``namespace`` says."""
    envelope = statement if isinstance(statement, Envelope) else sign_envelope(statement.encode(), publisher())
    return api.request("PUT", f"/v1/namespaces/{namespace}/status", envelope.encode(), ENVELOPE)
