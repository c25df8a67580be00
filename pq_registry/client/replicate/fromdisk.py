# SPDX-License-Identifier: Apache-2.0
"""The release of a bundle, into the registry of a site without a network.

It was verified when it was imported; here it goes up as in a replication, in the same order: the status before the
release, then tags and grants. A registry takes a chain from where its own ends, so a bundle for one carries the whole
history (``pqreg bundle export --with-history``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pq_registry.client.bundle.documents import Accepted
from pq_registry.client.bundle.documents import Chain as Documents
from pq_registry.client.chains import Link
from pq_registry.client.loganswers import Logged
from pq_registry.client.progress import Progress
from pq_registry.client.replicate.chaining import Signed
from pq_registry.client.replicate.deliver import Delivery
from pq_registry.client.source import DirectorySource
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import ChainDiverged, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.name import Namespace
from pq_registry.format.status import StatusStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile


def deliver_bundle(
    client: RegistryClient,
    accepted: Accepted,
    path: Path,
    *,
    trust: TrustFile,
    connections: int,
    progress: Progress,
) -> None:
    """Publish what a bundle brought to ``path``.

    Args:
        client: the registry.
        accepted: what was verified.
        path: the release directory.
        trust: whose identities may be registered there.
        connections: parts in flight.
        progress: told of every byte sent.

    Raises:
        ChainDiverged: if the registry lacks statements before those of the bundle, or has others.
        PqregError: what the registry refuses.
    """
    release = accepted.verified.release
    name, namespace = release.name, release.name.namespace
    delivery = Delivery(client, trust, connections=connections, progress=progress)
    # Where each chain goes on is found before anything is sent.
    statuses = _Chain(
        f"the status of {namespace}", accepted.status_chain, StatusStatement.parse, client.status_envelope(namespace)
    )
    tags = {
        tag: _Chain(f"the tag {name}:{tag}", chain, TagStatement.parse, client.tag_envelope(name, tag))
        for tag, chain in accepted.tag_chains.items()
    }
    grants = {
        recipient: _Chain(
            f"the grant for {recipient}",
            accepted.grant_chains[recipient],
            GrantStatement.parse,
            client.grant_envelope(name, release.digest, recipient),
        )
        for recipient in accepted.grants
    }
    for chain in (statuses, *tags.values(), *grants.values()):
        chain.find_start(client)
    statuses.send(delivery, namespace, partial(client.add_status_history, namespace))
    if release.digest not in delivery.releases(name):
        with DirectorySource(path) as source:
            delivery.release(accepted.verified, source)
    for tag, chain in tags.items():
        # What a tag pointed at before need not be here, so nothing but its last statement is a place to stop.
        chain.send(delivery, namespace, partial(client.add_tag_history, name, tag), stops=False)
    for recipient, chain in grants.items():
        chain.send(delivery, namespace, partial(client.add_grant_history, name, release.digest, recipient))


class _Chain:
    """What a bundle carries of one chain; the last statement was verified, its hash chain proves the others."""

    def __init__(self, what: str, documents: Documents, parse: Callable[[bytes], Signed], there: bytes | None) -> None:
        self._what = what
        self._parse = parse
        self._there = there
        self._links: list[Link] = []
        self._signers: list[str] = []
        before: Digest | None = None
        for envelope, _receipt in documents:
            parsed = Envelope.parse(envelope)
            statement = parse(parsed.payload)
            if self._links and (statement.previous, statement.sequence) != (before, self._links[-1].sequence + 1):
                self._links, self._signers = [], []  # what does not lead to the last one is of no use
            before = parsed.payload_digest
            self._links.append(Link(envelope, parsed.payload_digest, statement.sequence))
            self._signers.append(statement.signer)

    def find_start(self, client: RegistryClient) -> None:
        """Drop what the registry has.

        Raises:
            ChainDiverged: if it cannot go on with what is left.
        """
        if not self._links:
            return
        last = None if self._there is None else Envelope.parse(self._there)
        end = None if last is None else last.payload_digest
        known = [link.payload for link in self._links]
        if end in known:
            start = known.index(end) + 1
        elif self._parse(Envelope.parse(self._links[0].envelope).payload).previous == end:
            start = 0
        elif last is not None and _has(client, self._links[-1]):
            start = len(known)  # the registry is ahead
        else:
            raise ChainDiverged(
                f"the registry cannot continue its history of {self._what} with what the bundle holds",
                expected=f"statements that follow {end or 'none'}",
                found=f"statements from sequence {self._links[0].sequence} on",
                hint="export it again with --with-history; if that is so, somebody signed for both registries",
            )
        self._links, self._signers = self._links[start:], self._signers[start:]

    def send(
        self,
        delivery: Delivery,
        namespace: Namespace,
        post: Callable[[Sequence[bytes]], Logged],
        *,
        stops: bool = True,
    ) -> None:
        """Send what is left; ``stops`` is whether the registry may be left at any of them, not at the last only."""
        links = self._links
        delivery.chain(namespace, links, self._signers, post, can_end=lambda link: stops or link is links[-1])


def _has(client: RegistryClient, link: Link) -> bool:
    try:
        client.statement(link.payload)
    except NotFound:
        return False
    return True
