# SPDX-License-Identifier: Apache-2.0
"""Directories on this machine: releases as pull, a bundle or ``hf download`` left them, sealed or not.

A directory proves which release it holds and not by which tag it came here. Its release answers to its commit, its
digest, and to ``main`` where it is the only one of its repository; no other tag is known here.

Directories are looked through when something is asked for; what they hold is verified each time it is opened, and
every shard when it is read.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pq_registry import limits
from pq_registry.client.contents import INNER_PATH, Contents, read_contents
from pq_registry.client.directory import ReleaseDirectory
from pq_registry.client.keptgrants import KeptGrant, kept_grant, kept_receipt
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.source import DirectorySource
from pq_registry.client.staging import HOUSE
from pq_registry.client.trust import Verifier
from pq_registry.client.unsealing import Unsealed, no_grant, unseal
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.errors import NotFound, PqregError, RevisionNotFound, SettingError
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import MANIFEST_NAME, Manifest
from pq_registry.format.name import Reference, RepositoryName
from pq_registry.format.release import Release
from pq_registry.format.statement import EC_BUNDLE_NAME, PQ_BUNDLE_NAME
from pq_registry.gateway.origins import Named, Wanted
from pq_registry.gateway.served import Served, as_stored, in_the_clear, unsealed_on_disk
from pq_registry.service.hub.model import MAIN, Commit

Grants = Callable[[Release, str], KeptGrant | None]
"""Asks elsewhere for the grant of a release to a recipient."""


class DirectoryOrigin:
    """Release directories at and below ``roots``; ``grants`` is asked where none lies beside a sealed release."""

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        verifier: Callable[[], Verifier],
        state_dir: Path,
        key: RecipientKey | None = None,
        grants: Grants = lambda _release, _recipient: None,
    ) -> None:
        """Raises SettingError if one of ``roots`` is no directory."""
        for root in roots:
            if not root.is_dir():
                raise SettingError(
                    f"{root} is no directory", expected="a directory that holds releases", hint="--from DIR"
                )
        self.label = ", ".join(map(str, roots))
        self._roots = tuple(root.absolute() for root in roots)
        self._verifier = verifier
        self._state_dir = state_dir
        self._key = key
        self._grants = grants

    def find(self, name: RepositoryName, wanted: Wanted) -> Served:
        """The release. Raises as ``Origin.find``."""
        places = [(path, stated) for path, stated in self._releases() if stated.name.key == name.key]
        if not places:
            raise NotFound(f"no directory holds a release of {name}", expected=f"one below {self.label}")
        if wanted.tag is not None:
            if str(wanted.tag) != MAIN or len(places) > 1:
                raise RevisionNotFound(
                    f"a directory does not prove which release of {name} is {wanted.tag}",
                    expected=f"a commit or a digest, or {MAIN} where there is one release only",
                    found=f"{len(places)} releases of {name}",
                )
            return self._open(places[0][0], name, wanted)
        for path, stated in places:
            if self._may_hold(path, stated, wanted):
                return self._open(path, name, wanted)
        raise RevisionNotFound(f"no directory holds {name} at {wanted}", expected=f"one below {self.label}")

    def _open(self, path: Path, name: RepositoryName, wanted: Wanted) -> Served:
        verifier = self._verifier()
        with ReleaseDirectory(path) as directory:
            # 2 to 6.
            contents = read_contents(
                directory, verifier, expected=Reference(name, None, wanted.digest), state_dir=self._state_dir
            )
            source = DirectorySource(path)
            try:
                served = self._served(directory, contents, verifier, source, proven=wanted.tag is None)
            except BaseException:
                source.close()
                raise
        # Not kept for the next time: what lies there may have been replaced by then.
        weakref.finalize(served, source.close)
        return served

    def _served(
        self,
        directory: ReleaseDirectory,
        contents: Contents,
        verifier: Verifier,
        source: DirectorySource,
        *,
        proven: bool,
    ) -> Served:
        if contents.inner is not None:
            return unsealed_on_disk(contents.verified, contents.inner, source, proven=proven)
        if not contents.sealed or self._key is None:
            return as_stored(contents.verified, source, remote=False, proven=proven)
        unsealed = self._unsealed(directory, contents, verifier, self._key, source)
        return in_the_clear(contents.verified, unsealed, source, remote=False, proven=proven)

    def _unsealed(
        self,
        directory: ReleaseDirectory,
        contents: Contents,
        verifier: Verifier,
        key: RecipientKey,
        source: DirectorySource,
    ) -> Unsealed:
        """7. With the grant beside the release, or the one that is found elsewhere."""
        release, recipient = contents.verified.release, key.public.id
        grant, receipt = kept_grant(directory, recipient), kept_receipt(directory, recipient)
        seen = SeenGrants(self._state_dir, recording=grant is None)
        if grant is None:
            found = self._grants(release, recipient)
            if found is None:
                raise no_grant(release, recipient, "none in .pqreg/grants, and no registry to ask")
            grant, receipt = found
        return unseal(contents.verified, grant, key=key, source=source, verifier=verifier, receipt=receipt, seen=seen)

    def repositories(self) -> Iterator[RepositoryName]:
        """What the directories say they hold."""
        yield from {stated.name.key: stated.name for _, stated in self._releases()}.values()

    def tags(self, name: RepositoryName) -> list[Named]:
        """``main``, where there is one release only."""
        places = [path for path, stated in self._releases() if stated.name.key == name.key]
        if not places:
            raise NotFound(f"no directory holds a release of {name}")
        return [Named(MAIN, self._open(places[0], name, Wanted()).commit)] if len(places) == 1 else []

    def abort(self) -> None:
        """Reads of a file end by themselves."""

    def close(self) -> None:
        """Nothing stays open but what is still read."""

    def _releases(self) -> Iterator[tuple[Path, Manifest]]:
        """Directories that may hold a release, and the manifest there, of which nothing is verified."""
        left = limits.GATEWAY_DIRECTORIES
        waiting = [(root, 0) for root in reversed(self._roots)]
        while waiting and left:
            path, depth = waiting.pop()
            left -= 1
            manifest = _manifest(path)
            if manifest is not None:
                yield path, manifest
            elif depth < limits.GATEWAY_DEPTH:
                waiting += [(below, depth + 1) for below in _below(path)]

    def _may_hold(self, path: Path, manifest: Manifest, wanted: Wanted) -> bool:
        """Whether the release there may be the one; what it is, is verified afterwards."""
        if manifest.sealing is not None and wanted.commit == Commit.of_release(manifest.sealing.inner_sha256):
            return True
        try:
            with ReleaseDirectory(path) as directory:
                folder = () if directory.small((PQ_BUNDLE_NAME,), 0) is not None else (HOUSE,)
                release = Envelope.parse(directory.evidence(folder).envelope).payload_digest
        except PqregError:
            return False
        return wanted.digest == release or wanted.commit == Commit.of_release(release)


def _below(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as items:
            found = [
                item.name for item in items if item.is_dir(follow_symlinks=False) and not item.name.startswith(".")
            ]
    except OSError:
        return []
    return [path / name for name in sorted(found, reverse=True)]


def _manifest(path: Path) -> Manifest | None:
    """The manifest in a directory, if it looks like a release's; nothing of it is verified."""
    try:
        with ReleaseDirectory(path) as directory:
            for folder in ((), (HOUSE,)):
                if directory.small((*folder, EC_BUNDLE_NAME), 0) is None:
                    continue
                data = directory.small((*folder, MANIFEST_NAME), limits.MANIFEST_BYTES)
                if data is not None and (not folder or directory.small(INNER_PATH, 0) is not None):
                    return Manifest.parse(data)
    except PqregError:
        return None
    return None
