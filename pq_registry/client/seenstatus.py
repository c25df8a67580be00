# SPDX-License-Identifier: Apache-2.0
"""The newest status statement of each namespace this client has accepted, so that no registry can take it back.

One file per namespace, ``STATE/status/<sha256 of the namespace in lower case>.json``, canonical JSON::

    {"envelope": base64, "namespace": "acme", "receipt": base64 or null, "schema": "urn:pq-registry:seen-status:v1"}

Envelope and receipt are kept whole: whoever is offline later goes by them, after verifying them again. Kept by name
and not by URL, moved forward only, under a lock; a damaged file is an error and not a clean slate (``client.state``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pq_registry import limits
from pq_registry.client.state import locked, read_record
from pq_registry.client.status import SeenStatus
from pq_registry.durable import make_directory, write_file
from pq_registry.errors import FormatError, StatusEquivocation
from pq_registry.format.name import Namespace
from pq_registry.format.strict_json import Fields, encode_base64, encode_canonical, parse_canonical

SCHEMA = "urn:pq-registry:seen-status:v1"
_RECORD_BYTES = (limits.STATUS_ENVELOPE_BYTES + limits.TLOG_PROOF_BYTES) // 3 * 4 + limits.KIB


class SeenStatuses:
    """The record under ``state_dir``, which is made when there is something to record."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "status"

    def get(self, namespace: Namespace) -> SeenStatus | None:
        """The newest status of ``namespace`` accepted so far.

        Raises:
            FormatError: if the record is damaged.
            StorageError: if it cannot be read.
        """
        path = self._path(namespace)
        data = read_record(path, _RECORD_BYTES)
        if data is None:
            return None
        try:
            fields = Fields(parse_canonical(data, what="the record", limit=_RECORD_BYTES), "record")
            fields.literal("schema", SCHEMA)
            fields.literal("namespace", namespace.key)
            envelope = fields.base64("envelope", limit=limits.STATUS_ENVELOPE_BYTES)
            receipt = fields.optional_base64("receipt", limit=limits.TLOG_PROOF_BYTES)
            fields.done()
            return SeenStatus.of(envelope, receipt)
        except FormatError as error:
            raise FormatError(
                f"the record of the last status seen of {namespace} is damaged",
                expected=error.expected,
                found=error.found or error.message,
                hint=f"find out who changed {path}; deleting it allows an older statement to be accepted",
            ) from None

    def advance(self, namespace: Namespace, seen: SeenStatus) -> None:
        """Record an accepted statement. An older one than is recorded meanwhile changes nothing.

        Raises:
            StatusEquivocation: if another statement with the same sequence was recorded meanwhile.
            FormatError: if the record is damaged.
            StorageError: if it cannot be written.
        """
        make_directory(self._directory, 0o700)
        with locked(self._directory):
            known = self.get(namespace)
            if known is not None and known.statement.sequence == seen.statement.sequence:
                if known.payload != seen.payload:
                    raise StatusEquivocation(
                        f"two different statements of the status of {namespace} carry sequence "
                        f"{seen.statement.sequence}",
                        expected=known.payload,
                        found=seen.payload,
                    )
                if known.receipt is not None or seen.receipt is None:
                    return
            if known is None or known.statement.sequence <= seen.statement.sequence:
                document = {
                    "envelope": encode_base64(seen.envelope),
                    "namespace": namespace.key,
                    "receipt": None if seen.receipt is None else encode_base64(seen.receipt),
                    "schema": SCHEMA,
                }
                write_file(self._path(namespace), encode_canonical(document), mode=0o600)

    def _path(self, namespace: Namespace) -> Path:
        return self._directory / f"{hashlib.sha256(namespace.key.encode()).hexdigest()}.json"
