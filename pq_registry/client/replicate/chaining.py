# SPDX-License-Identifier: Apache-2.0
"""Continuing the destination's end of a chain with what the source has behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pq_registry.client.chains import Chained, Link, history
from pq_registry.client.loganswers import Logged
from pq_registry.client.replicate.deliver import Delivery
from pq_registry.client.replicate.report import Action, Report
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import ChainDiverged, NotFound
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Namespace


class Signed(Chained, Protocol):
    """A statement that also says who signed it."""

    @property
    def signer(self) -> str:
        """The id of the identity."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain whose newest statement was verified, and where the destination is in it.

    ``there`` is the destination's newest envelope, unverified: it says where to begin and nothing else.
    """

    kind: str
    subject: str
    namespace: Namespace
    source: RegistryClient
    newest: bytes
    there: bytes | None
    parse: Callable[[bytes], Signed]
    post: Callable[[Sequence[bytes]], Logged]
    can_end: Callable[[Link], bool] = lambda _link: True


class ChainSender:
    """Sends chains, and reports it."""

    def __init__(self, delivery: Delivery, report: Report, *, dry_run: bool) -> None:
        self._delivery = delivery
        self._report = report
        self._dry_run = dry_run

    def send(self, chain: Chain) -> None:
        """Send what the destination lacks of a chain.

        Raises:
            ChainDiverged: if the destination has another history.
            PqregError: what either registry refuses.
        """
        newest = Envelope.parse(chain.newest).payload_digest
        end = None if chain.there is None else Envelope.parse(chain.there).payload_digest
        if end == newest:
            self._report.present += 1
            return
        what = f"the {chain.kind} {chain.subject}"
        try:
            links = history(chain.source, chain.newest, chain.parse, after=end, what=what)
        except ChainDiverged:
            if not self._is_ahead(chain):
                raise
            self._report.note(f"{what}: the destination is ahead of the source, and is left as it is")
            self._report.present += 1
            return
        if not self._dry_run:
            signers = [chain.parse(Envelope.parse(link.envelope).payload).signer for link in links]
            self._delivery.chain(chain.namespace, links, signers, chain.post, can_end=chain.can_end)
        action = Action.WOULD_SEND if self._dry_run else Action.SENT
        self._report.add(chain.kind, chain.subject, action, count=len(links))

    def _is_ahead(self, chain: Chain) -> bool:
        """Whether the destination recorded the source's newest statement before its own."""
        try:
            self._delivery.client.statement(Envelope.parse(chain.newest).payload_digest)
        except NotFound:
            return False
        return True
