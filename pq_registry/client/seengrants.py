# SPDX-License-Identifier: Apache-2.0
"""The newest grant statement per release and recipient this client has accepted, so that no registry takes it back.

A node that saw a withdrawal refuses the grant before it; a publisher signs no sequence number twice. One file per
grant, ``STATE/grants/<sha256 of the grant>.json``, canonical JSON::

    {"grant": "ns/name@sha256:<release> <recipient id>", "payload": "sha256:...",
     "schema": "urn:pq-registry:seen-grant:v1", "sequence": 2}

with the repository in lower case. Kept by name and not by URL, moved forward only, under a lock; a damaged file is an
error and not a clean slate (``client.state``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NoReturn

from pq_registry.client.state import locked, read_newest
from pq_registry.durable import make_directory, write_file
from pq_registry.errors import GrantEquivocation, GrantRollback
from pq_registry.format.digest import Digest
from pq_registry.format.grant import GrantStatement
from pq_registry.format.name import RepositoryName
from pq_registry.format.strict_json import encode_canonical

SCHEMA = "urn:pq-registry:seen-grant:v1"

Newest = tuple[int, Digest]
"""Sequence and payload digest."""


class SeenGrants:
    """The record under ``state_dir``, which is made when there is something to record.

    One that is not ``recording`` compares and keeps nothing: for grants that come from a shelf, not from a registry.
    """

    def __init__(self, state_dir: Path, *, recording: bool = True) -> None:
        self._directory = state_dir / "grants"
        self._recording = recording

    def accept(self, statement: GrantStatement) -> None:
        """Take a statement whose signature and signer were verified, also one that withdraws, and remember it.

        Raises:
            GrantRollback: if it is older than the newest one seen of its release and recipient.
            GrantEquivocation: if it is another one of the same sequence.
            FormatError: if the record is damaged.
            StorageError: if it cannot be read or written.
        """
        label = _label(statement.repository, statement.release, statement.recipient)
        payload = Digest.of(statement.encode())
        if not self._recording:
            _check(statement, payload, self._get(label))
            return
        make_directory(self._directory, 0o700)
        with locked(self._directory):
            known = self._get(label)
            _check(statement, payload, known)
            if known is None or known[0] < statement.sequence:
                document = {
                    "grant": label,
                    "payload": str(payload),
                    "schema": SCHEMA,
                    "sequence": statement.sequence,
                }
                write_file(self._path(label), encode_canonical(document), mode=0o600)

    def require_none(self, repository: RepositoryName, release: Digest, recipient: str) -> None:
        """Take the answer that there never was a grant.

        Raises:
            GrantRollback: if one was seen.
            FormatError: if the record is damaged.
            StorageError: if it cannot be read.
        """
        known = self._get(_label(repository, release, recipient))
        if known is not None:
            _rolled_back(recipient, known[0], "no statement")

    def _get(self, label: str) -> Newest | None:
        return read_newest(self._path(label), schema=SCHEMA, field="grant", label=label, what="grant")

    def _path(self, label: str) -> Path:
        return self._directory / f"{hashlib.sha256(label.encode()).hexdigest()}.json"


def _label(repository: RepositoryName, release: Digest, recipient: str) -> str:
    return f"{repository.key}@{release} {recipient}"


def _check(statement: GrantStatement, payload: Digest, known: Newest | None) -> None:
    if known is None or statement.sequence > known[0]:
        return
    if statement.sequence < known[0]:
        _rolled_back(statement.recipient, known[0], f"sequence {statement.sequence}")
    if payload != known[1]:
        raise GrantEquivocation(
            f"two different statements about recipient {statement.recipient} carry sequence {statement.sequence}",
            expected=known[1],
            found=payload,
            hint="the publisher's key signed both: ask the publisher, and keep both statements as evidence",
        )


def _rolled_back(recipient: str, sequence: int, found: str) -> NoReturn:
    raise GrantRollback(
        f"the grant to recipient {recipient} was moved back to an older statement",
        expected=f"sequence {sequence} or higher",
        found=found,
        hint="the registry, a mirror or a copy beside the release is out of date: ask the registry's operator, or pull "
        "--sealed again",
    )
