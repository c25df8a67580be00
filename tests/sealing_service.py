# SPDX-License-Identifier: Apache-2.0
"""Sealed releases, grants and key statements put into a real service: by its use cases, or over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pq_registry import limits
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.shards import shard_digests
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import utc_now
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.release import statement_of
from pq_registry.format.sealing import SLICE_BYTES
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.service.transfer import WantedPart
from tests.samples import publisher
from tests.sealing_samples import SECRET, Sealed
from tests.server_harness import ENVELOPE, Answer, Api, send_signed

CALLER = host_caller()
ACME = SECRET.namespace


def store(registry: Registry, content: bytes, slice_size: int, repository: RepositoryName = SECRET) -> None:
    """Upload one file."""
    digest = Digest.of(content)
    state, _ = registry.uploads.open(CALLER, repository, digest=digest, size=len(content), slice_size=slice_size)
    for number in range(-(-len(content) // state.part_size)):
        data = content[number * state.part_size : (number + 1) * state.part_size]
        if state.is_direct:
            [signed] = registry.uploads.sign(CALLER, repository, state.id, [WantedPart(number, Digest.of(data))])
            send_signed("PUT", signed.url, data, signed.headers)
            continue
        shards = shard_digests(data, slice_size)
        writer = registry.uploads.begin_part(
            CALLER, repository, state.id, number=number, length=len(data), shards=shards
        )
        assert writer is not None
        try:
            for start in range(0, len(data), slice_size):
                writer.write(data[start : start + slice_size])
            writer.finish()
        finally:
            writer.close()
    while registry.uploads.complete(CALLER, repository, state.id) != digest:
        pass  # it waits by itself


def commit(registry: Registry, sealed: Sealed, made: Manifest | None = None) -> Digest:
    """Upload and commit a sealed release, or its files under another manifest."""
    made = made or sealed.manifest
    for content in sealed.stored.values():
        store(registry, content, SLICE_BYTES, made.name)
    data = made.encode()
    store(registry, data, limits.SHARD_BYTES, made.name)
    envelope = sign_envelope(statement_of(made, data).encode(), publisher())
    digest, is_new = registry.publishing.commit(CALLER, made.name, envelope.encode())
    assert is_new
    return digest


def certificate(recipient: SecretRecipient, **fields: Any) -> KeyStatement:
    statement = KeyStatement(
        signer=publisher().identity.id,
        namespace=ACME,
        node="node1.example",
        kem=recipient.public.kem,
        public_key=recipient.public.public_key,
        issued=utc_now(),
        not_after=None,
    )
    return replace(statement, **fields)


def certify(registry: Registry, statement: KeyStatement, **where: Any) -> Digest:
    at = {"namespace": ACME, "recipient": statement.recipient, **where}
    body = sign_envelope(statement.encode(), publisher()).encode()
    return registry.keys.put(CALLER, at["namespace"], at["recipient"], body)[0]


# -- over HTTP ---------------------------------------------------------------------------------------------------------


def publish_sealed(api: Api, sealed: Sealed) -> Digest:
    """Everything a sealed push does before it grants."""
    name = sealed.manifest.name
    assert api.register(publisher(), str(name.namespace)).status in (200, 201)
    for content in sealed.stored.values():
        api.upload(content, name, slice_size=SLICE_BYTES)
    api.upload(sealed.manifest_bytes, name)
    answer = api.post_release(sealed.envelope(), name)
    assert answer.status in (200, 201), answer
    return Digest.parse(answer.json["digest"])


def put_grant(
    api: Api,
    statement: GrantStatement | Envelope,
    release: Digest,
    recipient: str,
    repository: RepositoryName = SECRET,
) -> Answer:
    """Send a grant statement to where ``release`` and ``recipient`` say."""
    envelope = statement if isinstance(statement, Envelope) else sign_envelope(statement.encode(), publisher())
    path = f"/v1/repos/{repository}/grants/{release.hex}/{recipient}"
    return api.request("PUT", path, envelope.encode(), ENVELOPE)


def put_key(api: Api, statement: KeyStatement | Envelope, recipient: str, namespace: str = "acme") -> Answer:
    """Send a key statement to where ``namespace`` and ``recipient`` say."""
    envelope = statement if isinstance(statement, Envelope) else sign_envelope(statement.encode(), publisher())
    return api.request("PUT", f"/v1/namespaces/{namespace}/keys/{recipient}", envelope.encode(), ENVELOPE)
