# SPDX-License-Identifier: Apache-2.0
"""Giving a registry what it lacks, in an order that a crash cannot make wrong, and that a rerun continues.

* An identity is registered when something it signed is about to be sent, and only one that the trust file lists for the
  namespace, out of the trust file: what a source says about identities is of no interest.
* A release's blobs go up as in a push: what is there is not sent, an unfinished upload goes on. Each shard is compared
  with the signed manifest in the buffer that is sent, so a source cannot make the destination store anything else.
* A chain goes up from where the destination's ends, in requests that are each recorded wholly or not at all. A tag is
  never left at a statement whose target the destination does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from pq_registry import limits
from pq_registry.client.chains import Link
from pq_registry.client.loganswers import Logged
from pq_registry.client.progress import Progress
from pq_registry.client.source import ShardSource
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import VerifiedRelease
from pq_registry.client.upload import Blob, Sent, manifest_blob, upload_missing
from pq_registry.crypto.shards import check_shard
from pq_registry.errors import Conflict, NotFound, ResponseInvalid, ShardMismatch, SourceChanged, UntrustedSigner
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.trustfile import TrustFile


class Delivery:
    """A registry that gets things, and what is known of it. For one thread."""

    def __init__(self, client: RegistryClient, trust: TrustFile, *, connections: int, progress: Progress) -> None:
        """Nothing is sent yet.

        Args:
            client: the destination.
            trust: whose identities may be registered there.
            connections: parts in flight.
            progress: told of every byte sent.
        """
        self.client = client
        self._trust = trust
        self._connections = connections
        self._progress = progress
        self._registered: dict[str, set[str]] = {}

    def register(self, namespace: Namespace, signer: str) -> bool:
        """Make sure that the destination takes what ``signer`` signed for ``namespace``; whether it was done now.

        Raises:
            UntrustedSigner: if the destination does not know the identity and the trust file does not list it.
            AccessDenied: if the token may not register it.
        """
        known = self._registered.get(namespace.key)
        if known is None:
            known = self._registered[namespace.key] = {item.id for item in self.client.identities(namespace)}
        if signer in known:
            return False
        trusted = self._trust.namespaces.get(namespace.key)
        listed = () if trusted is None else trusted.identities
        public = next((entry.public_pem for entry in listed if entry.id == signer), None)
        if public is None:
            raise UntrustedSigner(
                f"the destination does not know identity {signer}, and the trust file does not list it",
                expected=f"an identity of {namespace} in the trust file",
                found=signer,
                hint="if it is a former identity of the publisher, keep it in the trust file with its not_after",
            )
        self.client.register_identity(namespace, public.encode("ascii"))
        known.add(signer)
        return True

    def releases(self, repository: RepositoryName) -> set[Digest]:
        """The releases the destination has."""
        found: set[Digest] = set()
        after = None
        while True:
            try:
                page = self.client.repository(repository, after=after, limit=limits.PAGE_ITEMS)
            except NotFound:
                return found
            found |= {item.digest for item in page.releases}
            if page.next is None or not page.releases or len(found) > limits.LISTING_ITEMS:
                return found
            after = page.next

    def release(self, verified: VerifiedRelease, source: ShardSource) -> Sent:
        """Send a verified release: its blobs, then the envelope that makes it visible.

        Raises:
            ContentError: if the source has other bytes than were signed.
            PqregError: what either registry refuses; the source is unusable then.
        """
        release = verified.release
        manifest = release.manifest
        self.register(manifest.name.namespace, manifest.signer)
        blobs = [manifest_blob(release.manifest_bytes), *(_blob(entry, source) for entry in manifest.files)]
        try:
            sent = upload_missing(
                self.client, manifest.name, blobs, connections=self._connections, progress=self._progress
            )
        except BaseException:
            source.abort()
            raise
        committed = self.client.post_release(manifest.name, release.envelope.encode())
        if committed.digest != release.digest:
            raise ResponseInvalid(
                "the destination committed another release than was sent", expected=release.digest,
                found=committed.digest,
            )  # fmt: skip
        return sent

    def chain(
        self,
        namespace: Namespace,
        links: Sequence[Link],
        signers: Sequence[str],
        send: Callable[[Sequence[bytes]], Logged],
        *,
        can_end: Callable[[Link], bool] = lambda _link: True,
    ) -> None:
        """Send statements that follow the destination's last one.

        Args:
            namespace: whose they are.
            links: oldest first.
            signers: who signed them.
            send: records some of them at once.
            can_end: whether the destination may be left at this statement.

        Raises:
            Conflict: if there is no place to end a request.
            PqregError: what the destination refuses.
        """
        for signer in dict.fromkeys(signers):
            self.register(namespace, signer)
        for batch in batches(links, can_end):
            send([link.envelope for link in batch])


def batches(links: Sequence[Link], can_end: Callable[[Link], bool]) -> Iterator[Sequence[Link]]:
    """Runs of statements that one request can take, each ending where the destination may be left.

    Raises:
        Conflict: if there is no such place.
    """
    start = 0
    while start < len(links):
        size = 0
        end = start
        for position in range(start, min(len(links), start + limits.HISTORY_STATEMENTS)):
            size += len(links[position].envelope) * 4 // 3 + limits.KIB
            if size > limits.HISTORY_BYTES and position > start:
                break
            if can_end(links[position]):
                end = position + 1
        if end == start:
            raise Conflict(
                "the history has no statement to stop at",
                expected=f"one in {limits.HISTORY_STATEMENTS} whose target the destination has",
                found=f"none from sequence {links[start].sequence} on",
            )
        yield links[start:end]
        start = end


def _blob(entry: FileEntry, source: ShardSource) -> Blob:
    return Blob(
        entry.sha256,
        entry.size,
        entry.shards,
        partial(_read_verified, entry, source),
        lambda how: SourceChanged(f"{entry.path}: {how}"),
        entry.slice_size,
    )


def _read_verified(entry: FileEntry, source: ShardSource, view: memoryview, offset: int) -> None:
    """Fill ``view`` with whole shards from ``offset``, each as signed; a wrong one is asked for again."""
    source.read_into(entry, offset, view)
    first = offset // entry.slice_size
    for start in range(0, len(view), entry.slice_size):
        index = first + start // entry.slice_size
        shard = view[start : start + entry.slice_size]
        for attempt in range(1, limits.ATTEMPTS + 1):
            try:
                check_shard(entry.shard_digest(index), shard, path=entry.path, index=index)
                break
            except ShardMismatch:
                if attempt == limits.ATTEMPTS:
                    raise
                source.read_into(entry, offset + start, shard)
