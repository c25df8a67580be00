# SPDX-License-Identifier: Apache-2.0
"""G1: a published release never changes. What moves is the tag, by a signed statement that names its predecessor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.tagging import move_tag
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import NotFound, PqregError, SequenceUsed
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import RepositoryName
from tests import samples
from tests.publishing import Registry, make_model, publisher_at, push_as, running_registry, tag_of

REPOSITORY = RepositoryName.parse("acme/immutable")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def everything(registry: Registry, digest: Digest) -> tuple[bytes, ...]:
    """Envelope, manifest and files of a release, as the registry serves them."""
    with registry.client() as client:
        view = client.release(REPOSITORY, digest)
        manifest = client.blob_bytes(view.manifest, 10**8)
        files = [client.blob_bytes(entry.sha256, 10**8) for entry in Manifest.parse(manifest).files]
        return client.statement(digest)[0], manifest, *files


def test_g1_a_release_stays_what_it_was_whatever_is_pushed_tagged_and_withdrawn(
    registry: Registry, tmp_path: Path
) -> None:
    publisher = publisher_at(registry, tmp_path)
    model = make_model(tmp_path / "model", "g1")
    first = push_as(publisher, model, "acme/immutable:v1").release
    before = everything(registry, first)
    for number in range(3):
        (model / "config.json").write_text(f'{{"number": {number}}}')
        push_as(publisher, model, "acme/immutable:v1")
    (model / "config.json").unlink()
    push_as(publisher, model, "acme/immutable:v1")
    repository, tag = tag_of("acme/immutable:v1")
    move_tag(publisher, repository, tag, None, lifetime=timedelta(days=1))
    assert everything(registry, first) == before
    chain = registry.tag_chain("acme/immutable:v1")
    assert [statement.sequence for statement in chain] == [1, 2, 3, 4, 5, 6]
    assert chain[0].target == first
    assert len(registry.releases("acme/immutable")) == 5


def test_g1_the_same_statement_signed_again_does_not_replace_the_first_envelope(
    registry: Registry, tmp_path: Path
) -> None:
    """Signatures are randomised, so a second envelope differs; the registry keeps and serves the first."""
    publisher = publisher_at(registry, tmp_path)
    release = push_as(publisher, make_model(tmp_path / "model", "again"), "acme/immutable:again").release
    with registry.client() as client:
        first = client.statement(release)[0]
        second = sign_envelope(Envelope.parse(first).payload, samples.publisher("alice")).encode()
        assert second != first
        assert client.post_release(REPOSITORY, second).digest == release
        assert client.statement(release)[0] == first
        tag = client.tag_envelope(*tag_of("acme/immutable:again"))
        assert tag is not None
        client.put_tag(
            *tag_of("acme/immutable:again"), sign_envelope(Envelope.parse(tag).payload, publisher.signer).encode()
        )
        assert client.tag_envelope(*tag_of("acme/immutable:again")) == tag


def test_g1_a_tag_moves_only_by_the_next_statement(registry: Registry, tmp_path: Path) -> None:
    publisher = publisher_at(registry, tmp_path)
    release = push_as(publisher, make_model(tmp_path / "model", "chain"), "acme/immutable:chain").release
    (last,) = registry.tag_chain("acme/immutable:chain")
    with registry.client() as client:
        envelope = client.tag_envelope(*tag_of("acme/immutable:chain"))
        assert envelope is not None
        payload = Envelope.parse(envelope).payload_digest
        following = replace(last, sequence=2, previous=payload, issued=last.issued + timedelta(seconds=1))
        wrong = {
            "the first again": replace(last, issued=last.issued + timedelta(seconds=1)),
            "one too far": replace(following, sequence=3),
            "another predecessor": replace(following, previous=release),
            "a release that is not there": replace(following, target=Digest("ab" * 32)),
        }
        for what, statement in wrong.items():
            with pytest.raises(PqregError) as caught:
                client.put_tag(
                    *tag_of("acme/immutable:chain"), sign_envelope(statement.encode(), publisher.signer).encode()
                )
            if what != "a release that is not there":
                assert isinstance(caught.value, SequenceUsed), what
        assert client.tag_envelope(*tag_of("acme/immutable:chain")) == envelope


def test_g1_there_is_no_route_that_removes_or_overwrites_a_release(registry: Registry, tmp_path: Path) -> None:
    release = push_as(
        publisher_at(registry, tmp_path), make_model(tmp_path / "model", "routes"), "acme/immutable:r"
    ).release
    paths = (
        f"/v1/repos/acme/immutable/releases/{release.hex}", f"/v1/statements/{release.hex}",
        f"/v1/blobs/sha256/{release.hex}", "/v1/repos/acme/immutable", "/v1/repos/acme/immutable/tags/r",
    )  # fmt: skip
    with registry.client() as client:
        for path in paths:
            for method in ("DELETE", "PATCH", "POST", *(() if path.endswith("tags/r") else ("PUT",))):
                with pytest.raises(PqregError) as caught:
                    client.exchanger.request(method, path, limit=10**6, body=b"{}")
                assert isinstance(caught.value, NotFound) or "405" in str(caught.value) or "404" in str(caught.value)
        assert client.release(REPOSITORY, release).digest == release
