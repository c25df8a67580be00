# SPDX-License-Identifier: Apache-2.0
"""The release of a bundle, into the registry of a site without a network.

It was verified when it was imported; here it goes up as in a replication, in the same order: the status before the
release, then tags and grants. A registry takes a chain from where its own ends, so a bundle for one carries the whole
history (``pqreg bundle export --with-history``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def chain(
        what: str,
        documents: Documents,
        there: bytes | None,
        parse: Callable[[bytes], Signed],
        post: Callable[[Sequence[bytes]], Logged],
    ) -> None:
        _send(delivery, namespace, what, documents, there, parse, post)

    if accepted.status_chain:
        chain(
            f"the status of {namespace}", accepted.status_chain, client.status_envelope(namespace),
            StatusStatement.parse, lambda some: client.add_status_history(namespace, some),
        )  # fmt: skip
    if release.digest not in delivery.releases(name):
        with DirectorySource(path) as source:
            delivery.release(accepted.verified, source)
    for tag, documents in accepted.tag_chains.items():
        chain(
            f"the tag {name}:{tag}", documents, client.tag_envelope(name, tag),
            TagStatement.parse, lambda some, tag=tag: client.add_tag_history(name, tag, some),  # type: ignore[misc]
        )  # fmt: skip
    for recipient in accepted.grants:
        chain(
            f"the grant for {recipient}", accepted.grant_chains[recipient],
            client.grant_envelope(name, release.digest, recipient), GrantStatement.parse,
            lambda some, to=recipient: client.add_grant_history(  # type: ignore[misc]
                name, release.digest, to, some
            ),
        )  # fmt: skip


def _send(
    delivery: Delivery,
    namespace: Namespace,
    what: str,
    documents: Documents,
    there: bytes | None,
    parse: Callable[[bytes], Signed],
    post: Callable[[Sequence[bytes]], Logged],
) -> None:
    links: list[Link] = []
    signers: list[str] = []
    previous = None
    for envelope, _receipt in documents:
        parsed = Envelope.parse(envelope)
        statement = parse(parsed.payload)
        if links and (statement.previous, statement.sequence) != (previous, links[-1].sequence + 1):
            links, signers = [], []  # what is no chain is of no use
        previous = parsed.payload_digest
        links.append(Link(envelope, parsed.payload_digest, statement.sequence))
        signers.append(statement.signer)
    last = None if there is None else Envelope.parse(there)
    end = None if last is None else last.payload_digest
    if last is not None and parse(last.payload).sequence > links[-1].sequence and _has(delivery, links[-1]):
        return  # the registry is ahead
    known = [link.payload for link in links]
    if end in known:
        start = known.index(end) + 1
    elif parse(Envelope.parse(links[0].envelope).payload).previous == end:
        start = 0
    else:
        raise ChainDiverged(
            f"the registry cannot continue its history of {what} with what the bundle holds",
            expected=f"statements that follow {end or 'none'}",
            found=f"statements from sequence {links[0].sequence} on",
            hint="export it again with --with-history; if that is so, somebody signed for both registries",
        )
    # What a tag pointed at before need not be here, so nothing but its last statement is a place to stop.
    delivery.chain(
        namespace, links[start:], signers[start:], post,
        can_end=lambda link: not what.startswith("the tag") or link is links[-1],
    )  # fmt: skip


def _has(delivery: Delivery, link: Link) -> bool:
    try:
        delivery.client.statement(link.payload)
    except NotFound:
        return False
    return True
