# SPDX-License-Identifier: Apache-2.0
"""A plain directory as the destination of a sealed release that is unsealed on the way (layout: ``client.contents``).

It replaces what ``PlainDirectory`` replaces, in the same order, and may be updated from and to a plain or a sealed
release of the same repository. Plaintext is staged as plain files are: nobody but the owner may enter that directory.
The directory itself is the owner's alone, too, if the pull makes it: what is proprietary is not for every account of
the machine. One that is there keeps its mode, for operators who decided otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pq_registry.client.contents import INNER_PATH
from pq_registry.client.destination import PlainDirectory
from pq_registry.client.directory import write_evidence
from pq_registry.client.staging import HOUSE
from pq_registry.client.unsealing import Unsealed
from pq_registry.client.verified import VerifiedRelease
from pq_registry.durable import reported, write_file
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.release import Release
from pq_registry.format.statement import EC_BUNDLE_NAME


class UnsealedDirectory(PlainDirectory):
    """A directory that holds the files of this one sealed release."""

    mode = 0o700

    def __init__(self, path: Path, unsealed: Unsealed) -> None:
        super().__init__(path)
        self._unsealed = unsealed

    def _files(self, release: Release) -> Sequence[FileEntry]:  # noqa: ARG002
        return self._unsealed.inner.files

    def _documents(self, release: Release) -> Sequence[bytes]:
        return [release.manifest_bytes, self._unsealed.inner_bytes]

    def _write_evidence(self, verified: VerifiedRelease) -> None:
        tree = self._opened()
        with reported("remove", tree.path / MANIFEST_NAME):
            tree.unlink((MANIFEST_NAME,))  # of a release that was here before: it would decide what this directory is
        write_file(tree.path.joinpath(*INNER_PATH), self._unsealed.inner_bytes)
        write_evidence(tree.path / HOUSE, verified.release, verified.signer, receipt=verified.receipt)
        write_file(tree.path / EC_BUNDLE_NAME, self._unsealed.inner.oms)
