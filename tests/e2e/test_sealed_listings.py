# SPDX-License-Identifier: Apache-2.0
"""The client gathers grants and certificates from a real service, page by page, and none is lost on the way."""

from __future__ import annotations

import pytest

from pq_registry import limits
from pq_registry.client.transport import RegistryClient
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import Conflict, ResponseInvalid, SequenceUsed
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.recipientfile import Kem
from pq_registry.format.sealing import SLICE_BYTES
from tests.samples import publisher
from tests.sealing_samples import SECRET, seal
from tests.sealing_service import certificate, publish_sealed, put_grant, put_key
from tests.server_harness import RunningRegistry


def test_every_page_is_fetched(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = seal({"a.json": b"{}"})
    publish_sealed(registry, sealed)
    nodes = sorted((SecretRecipient.generate(Kem.MLKEM768_X25519) for _ in range(5)), key=lambda node: node.public.id)
    for node in nodes:
        put_grant(registry, sealed.grant(node, issued=utc_now(), expires=None), sealed.release, node.public.id)
        put_key(registry, certificate(node), node.public.id)
    monkeypatch.setattr(limits, "PAGE_ITEMS", 2)
    client = RegistryClient(registry.url, registry.admin_token)
    try:
        grants = client.grants(SECRET)
        assert [(item.release, item.recipient) for item in grants] == [
            (sealed.release, node.public.id) for node in nodes
        ]
        assert client.grants(SECRET, release=sealed.release, recipient=nodes[3].public.id) == (grants[3],)
        assert client.grants(SECRET, release=Digest("0" * 64)) == ()
        assert [item.recipient for item in client.certificates(SECRET.namespace)] == [node.public.id for node in nodes]
        monkeypatch.setattr(limits, "LISTING_ITEMS", 3)
        with pytest.raises(ResponseInvalid, match="does not end"):
            client.grants(SECRET)
    finally:
        client.close()


def test_what_the_client_sends_comes_back(registry: RunningRegistry) -> None:
    sealed = seal({"a.json": b"{}"})
    publish_sealed(registry, sealed)
    node = SecretRecipient.generate(Kem.MLKEM768_X25519)
    recipient = node.public.id
    client = RegistryClient(registry.url, registry.admin_token)
    try:
        assert client.grant_envelope(SECRET, sealed.release, recipient) is None
        first = sign_envelope(sealed.grant(node, issued=utc_now(), expires=None).encode(), publisher()).encode()
        other = sign_envelope(sealed.grant(node, issued=utc_now(), expires=None).encode(), publisher()).encode()
        client.put_grant(SECRET, sealed.release, recipient, first)
        client.put_grant(SECRET, sealed.release, recipient, first)
        with pytest.raises(SequenceUsed):
            client.put_grant(SECRET, sealed.release, recipient, other)
        assert client.grant_envelope(SECRET, sealed.release, recipient) == first
        plain = registry.publish(repository=SECRET)
        statement = sealed.grant(node, release=plain, issued=utc_now(), expires=None)
        with pytest.raises(Conflict, match="not sealed"):
            client.put_grant(SECRET, plain, recipient, sign_envelope(statement.encode(), publisher()).encode())
        stored = [Digest.of(content) for content in sealed.stored.values()]
        assert client.missing(SECRET, stored, SLICE_BYTES) == frozenset()
    finally:
        client.close()
