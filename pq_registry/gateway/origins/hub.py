# SPDX-License-Identifier: Apache-2.0
"""A Hub, Hugging Face's or another, whose repositories carry our evidence: as a mirror wrote them.

The Hub says which commit a revision is. At that commit ``pqreg.json`` and the evidence are fetched and verified; they
say which files there are, and every shard of them is verified when it is read. Other files of the repository are not
shown. A Hub has no signed tags and no statuses: that a tag leads to this release is the Hub's word, and revocations
are those this node has seen before (step 5 as for a directory). The release must be of the repository that was asked
for, whatever the Hub's repository is called.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from pq_registry import limits
from pq_registry.client.directory import Evidence
from pq_registry.client.keptstatus import adopt_kept_status
from pq_registry.client.origin import Origin
from pq_registry.client.places import Place, StorageOrigins
from pq_registry.client.progress import ignored
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.source import RemoteSource
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.client.unsealing import no_grant, unseal
from pq_registry.client.verified import VerifiedRelease
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.errors import NameSyntaxError, NotFound, ResponseInvalid, RevisionNotFound, at_step
from pq_registry.format.bundle import envelope_from_bundles
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.name import Namespace, Reference, RepositoryName
from pq_registry.format.statement import EC_BUNDLE_NAME, PQ_BUNDLE_NAME, TLOG_PROOF_NAME
from pq_registry.gateway.origins import Named, Wanted
from pq_registry.gateway.origins.directory import Grants
from pq_registry.gateway.served import Served, as_stored, in_the_clear
from pq_registry.service.hub.model import MAIN, Commit


class HubOrigin:
    """One Hub. ``organisation`` is whose repositories there are the mirrors, if they are not named as ours."""

    def __init__(
        self,
        client: RegistryClient,
        *,
        verifier: Callable[[], Verifier],
        state_dir: Path,
        organisation: Namespace | None = None,
        key: RecipientKey | None = None,
        grants: Grants = lambda _release, _recipient: None,
    ) -> None:
        """Ask by ``client``, whose URL is the Hub's endpoint and whose token, if it has one, is the Hub's."""
        self.label = str(client.origin)
        client.exchanger.storage = _NearbyOrigins(client.origin, client.exchanger.storage)
        self._client = client
        self._commits: dict[Digest, str] = {}
        self._sources: weakref.WeakSet[HubSource] = weakref.WeakSet()
        self._verifier = verifier
        self._state_dir = state_dir
        self._organisation = organisation
        self._key = key
        self._grants = grants

    def find(self, name: RepositoryName, wanted: Wanted) -> Served:
        """The release. Raises as ``Origin.find``."""
        there = self._there(name)
        commit = self._place(there, wanted)
        verifier = self._verifier()
        base = f"/{there}/resolve/{commit}/"
        with at_step(2):
            envelope = envelope_from_bundles(
                self._small(base + EC_BUNDLE_NAME, limits.ENVELOPE_BYTES),
                self._small(base + PQ_BUNDLE_NAME, limits.ENVELOPE_BYTES),
            ).encode()
        evidence = Evidence(
            envelope,
            self._small(base + MANIFEST_NAME, limits.MANIFEST_BYTES),
            self._receipt(base + TLOG_PROOF_NAME),
            None,
            None,
        )
        adopt_kept_status(verifier, evidence, expected=Reference(name, None), state_dir=self._state_dir)
        verified = verifier.release(
            evidence.envelope, evidence.manifest, expected_name=name, expected_digest=wanted.digest,
            receipt=evidence.receipt,
        )  # fmt: skip
        self._require_wanted(verified, wanted)
        while len(self._commits) >= limits.GATEWAY_RELEASES:
            self._commits.pop(next(iter(self._commits)), None)
        self._commits[verified.release.digest] = commit
        source = HubSource(self._client, base)
        self._sources.add(source)
        try:
            served = self._served(verified, verifier, source, proven=wanted.tag is None)
        except BaseException:
            source.close()
            raise
        weakref.finalize(served, source.close)
        return served

    def _served(self, verified: VerifiedRelease, verifier: Verifier, source: HubSource, *, proven: bool) -> Served:
        if verified.release.manifest.sealing is None or self._key is None:
            return as_stored(verified, source, remote=True, proven=proven)
        found = self._grants(verified.release, self._key.public.id)
        if found is None:
            raise no_grant(verified.release, self._key.public.id, "no registry to ask for one")
        unsealed = unseal(
            verified, found[0], key=self._key, source=source, verifier=verifier, receipt=found[1],
            seen=SeenGrants(self._state_dir), attempts=limits.ATTEMPTS,
        )  # fmt: skip
        return in_the_clear(verified, unsealed, source, remote=True, proven=proven)

    def repositories(self) -> Iterator[RepositoryName]:
        """None: which of a Hub's repositories carry our evidence is not known before they are asked for."""
        return iter(())

    def tags(self, name: RepositoryName) -> list[Named]:
        """``main``, as the Hub says."""
        return [Named(MAIN, Commit(self._commit(self._there(name), MAIN)))]

    def abort(self) -> None:
        """End every request."""
        self._client.abort()
        for source in list(self._sources):
            source.abort()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _there(self, name: RepositoryName) -> RepositoryName:
        return name if self._organisation is None else RepositoryName(self._organisation, name.name)

    def _place(self, there: RepositoryName, wanted: Wanted) -> str:
        """The commit on the Hub that may hold what is wanted."""
        if wanted.tag is not None:
            return self._commit(there, str(wanted))
        # A Hub has commits of its own: where it was found before; on a registry, the release's; else the present one.
        for release, place in list(self._commits.items()):
            if wanted.digest == release or wanted.commit == Commit.of_release(release):
                return place
        commit = wanted.commit if wanted.digest is None else Commit.of_release(wanted.digest)
        try:
            return self._commit(there, str(commit))
        except RevisionNotFound:
            return self._commit(there, MAIN)

    def _require_wanted(self, verified: VerifiedRelease, wanted: Wanted) -> None:
        """A commit that was asked for is pinned like a digest: an older release would be as well signed."""
        release = verified.release
        commits = [Commit.of_release(release.digest)]
        if release.manifest.sealing is not None:
            commits.append(Commit.of_release(release.manifest.sealing.inner_sha256))
        if wanted.commit is not None and wanted.commit not in commits:
            raise RevisionNotFound(
                f"{self.label} does not show {release.name} at {wanted}", expected=str(wanted),
                found=f"release {release.digest}, commit {commits[0]}",
                hint="the Hub's own commits are not signed: ask for a tag, or for a commit as the gateway names it",
            )  # fmt: skip

    def _commit(self, there: RepositoryName, revision: str) -> str:
        """The commit that a revision is, as the Hub says."""
        about = f"/api/models/{there}"
        try:
            answer = self._about(f"{about}/revision/{quote(revision, safe='')}")
        except NotFound:
            self._about(about)  # raises NotFound if there is no such repository either
            raise RevisionNotFound(f"{self.label} has no {there} at {revision}") from None
        try:
            return Commit(json.loads(answer)["sha"]).value
        except (ValueError, TypeError, KeyError, RecursionError, NameSyntaxError):
            raise ResponseInvalid(f"{self.label} does not say which commit {there} is at {revision}") from None

    def _about(self, path: str) -> bytes:
        return self._client.exchanger.request("GET", path, limit=limits.GATEWAY_MODEL_BYTES, plain=True).body

    def _small(self, path: str, limit: int) -> bytes:
        try:
            return self._client.exchanger.request("GET", path, limit=limit, follow=True, plain=True).body
        except NotFound:
            raise RevisionNotFound(
                f"{self.label} has no evidence of ours there", expected=path.rpartition("/")[2], found="no such file",
                hint="a repository is served by the gateway only if it mirrors a signed release",
            ) from None  # fmt: skip

    def _receipt(self, path: str) -> bytes | None:
        try:
            return self._small(path, limits.TLOG_PROOF_BYTES)
        except RevisionNotFound:
            return None  # step 4 says whether that is enough


class HubSource(RemoteSource):
    """The files of a repository at one commit."""

    def __init__(self, client: RegistryClient, base: str) -> None:
        """Read below ``base``: ``/{repository}/resolve/{commit}/``."""
        super().__init__(client)
        self._base = base

    def read_into(
        self, file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        """Fill ``view`` by one ranged request. Raises PqregError."""
        path = self._base + quote(file.path.text)
        self._reader().read_into(path, offset, view, size=file.size, arrived=arrived)


class _NearbyOrigins(StorageOrigins):
    """As before, and also a path on the Hub itself, which Hugging Face's answers for small files redirect to."""

    def __init__(self, hub: Origin, before: StorageOrigins) -> None:
        self._hub = hub
        self._before = before

    def place(self, url: str | None) -> Place:
        if url is not None and url.startswith("/") and not url.startswith("//") and url.isascii() and url.isprintable():
            return Place(self._hub, url)
        return self._before.place(url)
