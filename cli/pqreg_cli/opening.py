# SPDX-License-Identifier: Apache-2.0
"""``pqreg verify --unseal``: a sealed release is opened in memory and checked against what its publisher says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pq_registry import limits
from pq_registry.errors import UsageError
from pqreg_cli.recipients import recipient_key
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.contents import Contents
    from pq_registry.client.progress import Progress
    from pq_registry.client.seengrants import SeenGrants
    from pq_registry.client.source import ShardSource
    from pq_registry.client.transport import RegistryClient
    from pq_registry.client.trust import VerifiedRelease, Verifier
    from pq_registry.crypto.recipient import RecipientKey
    from pq_registry.format.inner import Inner
    from pq_registry.format.release import Release


def unseal_directory(session: Session, path: Path, contents: Contents, verifier: Verifier, progress: Progress) -> Inner:
    """Open what a directory holds sealed, with the grant beside it or the registry's; answers its pqreg.inner.

    Raises:
        SealingError, ContentError: steps 7 and 8.
        UsageError: if the release is not sealed.
    """
    from pq_registry.client.directory import ReleaseDirectory
    from pq_registry.client.keptgrants import kept_grant, kept_receipt
    from pq_registry.client.proofs import fetch_receipt
    from pq_registry.client.source import DirectorySource
    from pq_registry.client.unsealing import fetch_grant, no_grant

    if contents.inner is not None:
        return contents.inner
    release = contents.verified.release
    key = _key(session, release)
    with ReleaseDirectory(path) as directory:
        grant, receipt = kept_grant(directory, key.public.id), kept_receipt(directory, key.public.id)
        seen = session.seen_grants(recording=grant is None)
        if grant is None and session.settings.get("registry") is None:
            raise no_grant(release, key.public.id, "none in .pqreg/grants, and no registry to ask")
        if grant is None:
            with session.client() as client:
                grant = fetch_grant(client, release, key.public.id)
                receipt = fetch_receipt(client, verifier, grant)
        with DirectorySource(directory) as source:
            return _check(key, contents.verified, (grant, receipt), seen, source, verifier, progress)


def unseal_remote(
    session: Session, client: RegistryClient, verified: VerifiedRelease, verifier: Verifier, progress: Progress
) -> Inner:
    """Fetch and open a sealed release, keeping nothing; answers its pqreg.inner.

    Raises:
        SealingError, ContentError: steps 7 and 8.
        TransportError: if the registry fails.
        UsageError: if the release is not sealed.
    """
    from pq_registry.client.proofs import fetch_receipt
    from pq_registry.client.source import RemoteSource
    from pq_registry.client.unsealing import fetch_grant

    key = _key(session, verified.release)
    grant = fetch_grant(client, verified.release, key.public.id)
    receipt = fetch_receipt(client, verifier, grant)
    with RemoteSource(client) as source:
        return _check(key, verified, (grant, receipt), session.seen_grants(), source, verifier, progress)


def _key(session: Session, release: Release) -> RecipientKey:
    """The configured recipient key."""
    from pq_registry.client.unsealing import no_key

    if release.manifest.sealing is None:
        raise UsageError(f"{release.name} is not sealed", hint="leave out --unseal")
    key = recipient_key(session)
    if key is None:
        raise no_key(release)
    return key


def _check(
    key: RecipientKey,
    verified: VerifiedRelease,
    granted: tuple[bytes, bytes | None],
    seen: SeenGrants,
    source: ShardSource,
    verifier: Verifier,
    progress: Progress,
) -> Inner:
    from pq_registry.client.crew import cores
    from pq_registry.client.unsealing import unseal
    from pq_registry.client.verify import check_content

    attempts = limits.ATTEMPTS
    grant, receipt = granted
    with unseal(
        verified, grant, key=key, source=source, verifier=verifier, receipt=receipt, seen=seen, attempts=attempts
    ) as unsealed:
        check_content(
            unsealed.source(source, attempts=attempts), unsealed.inner.files, progress=progress, workers=cores(),
            full=True,
        )  # fmt: skip
        return unsealed.inner
