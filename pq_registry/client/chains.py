# SPDX-License-Identifier: Apache-2.0
"""A chain of statements followed backwards, from one that was verified.

The newest statement of a tag, a grant or a status passes the verification. It names the digest of the payload before
it, so that payload is what its signer continued, whoever signed it and whether or not that identity may still sign:
history is proven by what followed it. Nothing is believed *because* of a predecessor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pq_registry import limits
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import ChainDiverged, DigestMismatch, FormatError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope


class Chained(Protocol):
    """A statement that names the one before it."""

    @property
    def sequence(self) -> int:
        """Its number, from 1."""
        ...

    @property
    def previous(self) -> Digest | None:
        """The payload digest of the one before; None of the first."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """One statement of a chain: its exact envelope, the digest of its payload, and its number."""

    envelope: bytes
    payload: Digest
    sequence: int


def history(
    client: RegistryClient,
    newest: bytes,
    parse: Callable[[bytes], Chained],
    *,
    after: Digest | None = None,
    what: str,
) -> tuple[Link, ...]:
    """The statements of a chain up to ``newest``, oldest first.

    Args:
        client: the registry that has them.
        newest: the exact envelope of a statement that was verified.
        parse: reads a payload.
        after: the payload of a statement at which to stop, which is left out; None for the whole chain.
        what: names the chain in messages.

    Raises:
        ChainDiverged: if ``after`` is not in the chain.
        DigestMismatch, StatementMismatch: if the registry answers with something else than the statement before.
        FormatError: if that is malformed.
        TransportError: if the registry does not answer.
    """
    found: list[Link] = []
    data = newest
    wanted: Digest | None = None
    size = 0
    while True:
        envelope = Envelope.parse(data)
        if wanted is not None and envelope.payload_digest != wanted:
            raise DigestMismatch(f"the registry answered with another statement of {what}", expected=wanted,
                                 found=envelope.payload_digest)  # fmt: skip
        if envelope.payload_digest == after:
            return tuple(reversed(found))
        statement = parse(envelope.payload)
        if found and statement.sequence != found[-1].sequence - 1:
            raise StatementMismatch(
                f"the statements of {what} are no chain",
                expected=f"sequence {found[-1].sequence - 1}",
                found=f"sequence {statement.sequence}",
                hint="tell the registry's operator: pqreg fsck finds what is damaged",
            )
        found.append(Link(data, envelope.payload_digest, statement.sequence))
        if statement.previous is None:
            if after is not None:
                raise ChainDiverged(
                    f"the registries have different histories of {what}",
                    expected=f"a history that continues {after}",
                    found=f"{len(found)} statements without it",
                    hint="somebody signed for both registries; ask the publisher which history is the right one",
                )
            return tuple(reversed(found))
        size += len(data)
        if len(found) >= limits.CHAIN_STATEMENTS or size > limits.CHAIN_BYTES:
            raise FormatError(
                f"the history of {what} does not end",
                expected=f"at most {limits.CHAIN_STATEMENTS} statements of {limits.CHAIN_BYTES} bytes in all",
                found="more",
            )
        wanted = statement.previous
        data = client.statement(wanted)[0]
