# SPDX-License-Identifier: Apache-2.0
"""A registry: tags by their signed statements, status, receipts and the log's consistency, as a pull does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pq_registry import limits
from pq_registry.client.proofs import fetch_receipt
from pq_registry.client.resolve import Resolved, resolve
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.client.unsealing import fetch_grant, unseal
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.errors import FormatError, NotFound, RevisionNotFound
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import Reference, RepositoryName
from pq_registry.gateway.origins import Named, Wanted
from pq_registry.gateway.served import Served, as_stored, in_the_clear
from pq_registry.service.hub.model import Commit


class RegistryOrigin:
    """A registry, asked with the node's own token. Its verifier is online: nothing lapsed is let pass."""

    def __init__(
        self,
        client: RegistryClient,
        *,
        verifier: Callable[[], Verifier],
        state_dir: Path,
        key: RecipientKey | None = None,
    ) -> None:
        self.label = str(client.origin)
        self._client = client
        self._source = RemoteSource(client)
        self._verifier = verifier
        self._state_dir = state_dir
        self._key = key

    def find(self, name: RepositoryName, wanted: Wanted) -> Served:
        """The release. Raises as ``Origin.find``."""
        digest = wanted.digest if wanted.commit is None else self._by_commit(name, wanted.commit)
        verifier = self._verifier()
        reference = Reference(name, wanted.tag, digest)
        try:
            resolved = resolve(reference, self._client, verifier, SeenTags(self._state_dir))
        except NotFound as error:
            self._client.repository(name, limit=1)  # raises NotFound if there is no such repository either
            raise RevisionNotFound(error.message, expected=error.expected, found=error.found, hint=error.hint) from None
        if resolved.verified.release.manifest.sealing is None or self._key is None:
            return as_stored(resolved.verified, self._source, remote=True, proven=True)
        return self._opened(resolved, verifier, self._key)

    def _opened(self, resolved: Resolved, verifier: Verifier, key: RecipientKey) -> Served:
        """7. With the grant the registry has for this node; without one the release is refused, not shown sealed."""
        release = resolved.verified.release
        grant = fetch_grant(self._client, release, key.public.id)
        receipt = fetch_receipt(self._client, verifier, grant)
        unsealed = unseal(
            resolved.verified, grant, key=key, source=self._source, verifier=verifier, receipt=receipt,
            seen=SeenGrants(self._state_dir), attempts=limits.ATTEMPTS,
        )  # fmt: skip
        return in_the_clear(resolved.verified, unsealed, self._source, remote=True, proven=True)

    def repositories(self) -> Iterator[RepositoryName]:
        """What the registry lists."""
        after: str | None = None
        for _ in range(limits.GATEWAY_LISTING // limits.PAGE_ITEMS):
            page = self._client.repos(after=after, limit=limits.PAGE_ITEMS)
            yield from (item.name for item in page.items if item.releases)
            after = page.next
            if after is None:
                return

    def tags(self, name: RepositoryName) -> list[Named]:
        """What the registry lists; what a tag leads to is verified when it is asked for."""
        found = self._client.repository(name, limit=1).tags
        return [Named(str(item.tag), Commit.of_release(item.target)) for item in found if item.target is not None]

    def abort(self) -> None:
        """End every request."""
        self._client.abort()
        self._source.abort()

    def close(self) -> None:
        """Close the connections."""
        self._source.close()
        self._client.close()

    def _by_commit(self, name: RepositoryName, commit: Commit) -> Digest:
        """The release a commit is of: by its digest, or by that of the plaintext it holds sealed."""
        candidates: list[Digest] = []
        after: str | None = None
        while True:
            page = self._client.repository(name, after=after)
            for item in page.releases:
                if Commit.of_release(item.digest) == commit:
                    return item.digest
                candidates.append(item.digest)
            after = page.next
            if after is None:
                break
        if self._key is not None:
            for digest in candidates[: limits.GATEWAY_COMMIT_CANDIDATES]:
                if self._plaintext(name, digest) == commit:
                    return digest
        raise RevisionNotFound(f"{name} has no release with the commit {commit}", hint=f"list them: pqreg ls {name}")

    def _plaintext(self, name: RepositoryName, digest: Digest) -> Commit | None:
        """The commit of what a release holds sealed, as its manifest says; nothing is verified yet."""
        place = self._client.release(name, digest)
        try:
            sealing = Manifest.parse(self._client.blob_bytes(place.manifest, limits.MANIFEST_BYTES)).sealing
        except FormatError:
            return None
        return None if sealing is None else Commit.of_release(sealing.inner_sha256)
