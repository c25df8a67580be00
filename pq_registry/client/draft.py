# SPDX-License-Identifier: Apache-2.0
"""From hashed files to a plan: the manifest and the statement of a new release."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from pq_registry.client.plan import Plan
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.release import statement_of


def draft(
    files: Sequence[FileEntry],
    *,
    repository: RepositoryName,
    signer: str,
    now: datetime,
    license: str | None,  # noqa: A002  the manifest's word for it
    lineage: tuple[BaseRelease, ...],
) -> Plan:
    """Decide a new release of ``files``, with a release id nobody used before.

    Raises:
        FormatError: if the license or the lineage is malformed, or the files cannot be a release.
    """
    manifest = Manifest(
        name=repository,
        signer=signer,
        release_id=secrets.token_hex(16),
        created=now,
        files=tuple(files),
        lineage=lineage,
        license=license,
    )
    manifest_bytes = manifest.encode()
    return Plan.of(manifest_bytes, statement_of(manifest, manifest_bytes).encode())
