# SPDX-License-Identifier: Apache-2.0
"""Statement and manifest of a release say the same, or there is no release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pq_registry.errors import FileSetMismatch, FormatError, ManifestMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import bind, content_digest, statement_of
from pq_registry.format.statement import ReleaseStatement, Resource
from tests.format_samples import ALICE, BOB, changed, documents, file_entry, manifest, put

PAYLOAD, MANIFEST = documents()
STATEMENT = ReleaseStatement.parse(PAYLOAD)
DIGEST = Digest.of(PAYLOAD)


def with_resources(**changes: Digest | None) -> ReleaseStatement:
    """The statement with some resources set to another digest, or removed (None)."""
    resources = {entry.path.text: entry.digest for entry in STATEMENT.resources}
    for name, digest in changes.items():
        path = name.replace("__", ".")
        if digest is None:
            del resources[path]
        else:
            resources[path] = digest
    return replace(
        STATEMENT, resources=tuple(Resource(ReleasePath(path), resources[path]) for path in sorted(resources))
    )


def test_what_belongs_together_is_bound() -> None:
    assert bind(STATEMENT, DIGEST, MANIFEST) == manifest()
    assert statement_of(manifest(), MANIFEST) == STATEMENT


OTHER_BYTES = [MANIFEST + b"\n", MANIFEST[:-1], b"", changed(MANIFEST, put("signer", value=BOB))]


@pytest.mark.parametrize("data", OTHER_BYTES, ids=["longer", "cut", "empty", "changed"])
def test_other_bytes_are_not_even_parsed(data: bytes) -> None:
    with pytest.raises(ManifestMismatch) as caught:
        bind(STATEMENT, DIGEST, data)
    assert caught.value.step == 3
    assert str(DIGEST) in caught.value.message


def test_a_release_without_a_manifest() -> None:
    with pytest.raises(ManifestMismatch, match=r"no pqreg\.json") as caught:
        bind(with_resources(pqreg__json=None), DIGEST, MANIFEST)
    assert "--oms-key" in (caught.value.hint or "")


def test_signed_bytes_that_are_no_manifest() -> None:
    with pytest.raises(FormatError):
        bind(with_resources(pqreg__json=Digest.of(b"{}")), DIGEST, b"{}")


def test_another_model() -> None:
    data = manifest(name=RepositoryName.parse("acme/other")).encode()
    with pytest.raises(ManifestMismatch, match="different models"):
        bind(with_resources(pqreg__json=Digest.of(data)), DIGEST, data)


def test_the_namespace_is_the_manifests_alone() -> None:
    data = manifest(name=RepositoryName.parse("rival/minilm")).encode()
    assert bind(with_resources(pqreg__json=Digest.of(data)), DIGEST, data).name.namespace.value == "rival"


@pytest.mark.parametrize("changes", [{"config__json": None}, {"added": Digest("00" * 32)}], ids=["missing", "added"])
def test_other_files(changes: dict[str, Digest | None]) -> None:
    with pytest.raises(FileSetMismatch) as caught:
        bind(with_resources(**changes), DIGEST, MANIFEST)
    assert caught.value.step == 6
    assert next(iter(changes)).replace("__", ".") in (caught.value.found or "")


def test_another_digest_of_one_file() -> None:
    with pytest.raises(ManifestMismatch, match=r"disagree about config\.json"):
        bind(with_resources(config__json=Digest("00" * 32)), DIGEST, MANIFEST)


def test_content_is_names_and_digests() -> None:
    files = manifest().files
    assert content_digest(files) == content_digest(reversed(files))
    assert content_digest(files) == content_digest(manifest(signer=BOB, license=None).files)
    assert content_digest(files) != content_digest(files[1:])
    assert content_digest((file_entry("a", b"x"),)) != content_digest((file_entry("b", b"x"),))
    assert content_digest((file_entry("a", b"x"),)) != content_digest((file_entry("a", b"y"),))
    assert ALICE not in str(content_digest(files))
