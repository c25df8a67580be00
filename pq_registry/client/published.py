# SPDX-License-Identifier: Apache-2.0
"""Releases a publisher reads back before relying on them: to point a tag at one, or to reuse it for unchanged files.

What the registry answers is its account. A release counts as published only after its envelope verified under the
publisher's own identity (or, to point a tag at a colleague's release, under one that the trust file lists for the
namespace) and its documents agree with one another. A colleague's must have the receipt that the trust file demands.
"""

from __future__ import annotations

from collections.abc import Sequence

from pq_registry import limits
from pq_registry.client.attested import attest
from pq_registry.client.transport import RegistryClient
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.signing import failed_halves
from pq_registry.crypto.trustkeys import TrustStore
from pq_registry.errors import (
    DigestMismatch,
    FormatError,
    NameMismatch,
    NotFound,
    TrustMissing,
    UntrustedSigner,
    VerificationError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.manifest import MANIFEST_NAME, BaseRelease, FileEntry
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.release import Release, bind, content_digest
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.trustfile import TrustFile


def genuine_signers(
    envelope: Envelope, namespace: Namespace, *, own: PublicIdentity, trust: TrustFile | None
) -> frozenset[str]:
    """Ids of those who signed ``envelope`` and may sign for ``namespace``; nothing of the payload is parsed.

    Raises:
        SignatureInvalid: if only one half verifies.
        UntrustedSigner: if neither ``own`` nor a publisher of the trust file signed it.
        TrustMissing: if ``own`` did not sign it and there is no trust file to ask.
    """
    failures = failed_halves(envelope, own)
    if not failures:
        return frozenset({own.id})
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if trust is None:
        raise TrustMissing(
            "this was signed by another identity than yours, and no trust file says whether to believe it",
            hint=f"give a trust file that lists the publishers of {namespace}: --trust FILE, or set PQREG_TRUST",
        )
    kept = TrustStore.from_trust_file(trust).matching(envelope)
    listed = trust.namespaces.get(namespace.key)
    publishers = () if listed is None else listed.publishers
    return frozenset(
        pair.identity.id for pair in kept if pair.namespace.key == namespace.key and pair.identity.id in publishers
    )


def require_signer(signer: str, genuine: frozenset[str], namespace: Namespace) -> None:
    """Check that the signer a payload names is one of those who signed it.

    Raises:
        UntrustedSigner: if it is not.
    """
    if signer not in genuine:
        raise UntrustedSigner(
            f"the signature is genuine, but its signer may not sign for {namespace}",
            expected=f"a publisher of {namespace} in the trust file, as named in the statement",
            found=f"signer {signer}",
        )


def read_release(
    client: RegistryClient,
    repository: RepositoryName,
    digest: Digest,
    *,
    own: PublicIdentity,
    trust: TrustFile | None,
) -> Release:
    """A published release, verified as the module says.

    Raises:
        NotFound: if the repository has no such release.
        VerificationError, FormatError: if it is not what it should be.
    """
    view = client.release(repository, digest)
    envelope_bytes, receipt = client.statement(digest)
    envelope = Envelope.parse(envelope_bytes)
    if envelope.payload_digest != digest:
        raise DigestMismatch("the registry answered with another statement", expected=digest,
                             found=envelope.payload_digest)  # fmt: skip
    genuine = genuine_signers(envelope, repository.namespace, own=own, trust=trust)
    statement = ReleaseStatement.parse(envelope.payload)
    manifest_bytes = client.blob_bytes(view.manifest, limits.MANIFEST_BYTES)
    manifest = bind(statement, digest, manifest_bytes)
    if manifest.name.key != repository.key:
        raise NameMismatch(f"{MANIFEST_NAME} is of another repository", expected=repository, found=manifest.name)
    require_signer(manifest.signer, genuine, repository.namespace)
    if trust is not None and manifest.signer != own.id:
        name, signer = str(manifest.name), manifest.signer
        attest(envelope, kind=Kind.RELEASE, name=name, identity=signer, receipt=receipt, log=trust.log)
    return Release(
        name=manifest.name,
        digest=digest,
        statement=statement,
        manifest=manifest,
        manifest_bytes=manifest_bytes,
        envelope=envelope,
    )


def find_published(
    client: RegistryClient,
    repository: RepositoryName,
    files: Sequence[FileEntry],
    *,
    own: PublicIdentity,
    license: str | None,  # noqa: A002  the manifest's word for it
    lineage: tuple[BaseRelease, ...] | None,
) -> Release | None:
    """The newest release of ours that holds exactly ``files``.

    A license or lineage that is not None must be the release's, too. Candidates the registry offers and that do not
    verify are passed over: at worst a release is minted that was not needed.
    """
    offered = client.releases_with_content(repository, content_digest(files))
    for item in [item for item in offered if item.signer == own.id][: limits.REUSE_CANDIDATES]:
        try:
            release = read_release(client, repository, item.digest, own=own, trust=None)
        except (VerificationError, FormatError, NotFound):
            continue
        manifest = release.manifest
        if (
            manifest.files == tuple(files)
            and manifest.name == repository
            and license in (None, manifest.license)
            and lineage in (None, manifest.lineage)
        ):
            return release
    return None
