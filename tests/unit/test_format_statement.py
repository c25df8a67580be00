# SPDX-License-Identifier: Apache-2.0
"""Release statements: exactly one form of what OMS allows."""

from __future__ import annotations

import hashlib
import json

import pytest

from pq_registry.errors import FormatError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.path import ReleasePath
from pq_registry.format.statement import (
    IGNORE_PATHS,
    RELEASE_PREDICATE,
    TAG_PREDICATE,
    ReleaseStatement,
    Resource,
    is_ignored,
    oms_root,
    predicate_type,
)
from tests.format_samples import changed, documents, drop, each, put, tag_statement

PAYLOAD, MANIFEST = documents()


def resource(path: str, byte: int = 0) -> Resource:
    return Resource(ReleasePath(path), Digest(f"{byte:02x}" * 32))


def rooted(change) -> bytes:
    """The payload after a change of its resources, with the root that they then have."""

    def whole(document) -> None:
        change(document)
        digests = b"".join(bytes.fromhex(entry["digest"]) for entry in document["predicate"]["resources"])
        document["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()

    return changed(PAYLOAD, whole)


def test_the_form_is_the_one_specified() -> None:
    statement = ReleaseStatement("minilm", (resource("a", 1), resource("b", 2)))
    root = hashlib.sha256(b"\x01" * 32 + b"\x02" * 32).hexdigest()
    assert statement.encode().decode() == (
        '{"_type":"https://in-toto.io/Statement/v1","predicate":{"resources":'
        f'[{{"algorithm":"sha256","digest":"{"01" * 32}","name":"a"}},'
        f'{{"algorithm":"sha256","digest":"{"02" * 32}","name":"b"}}],'
        '"serialization":{"allow_symlinks":false,"hash_type":"sha256","ignore_paths":[".cache/huggingface",".git",'
        '".gitattributes",".github",".gitignore",".pqreg","model.pq.sig","model.sig","model.tlog-proof"],'
        '"method":"files"}},"predicateType":"https://model_signing/signature/v1.0","subject":[{"digest":{"sha256":'
        f'"{root}"}},"name":"minilm"}}]}}'
    )


def test_a_statement_comes_back() -> None:
    parsed = ReleaseStatement.parse(PAYLOAD)
    assert parsed.encode() == PAYLOAD
    assert parsed.model_name == "minilm"
    assert [entry.path.text for entry in parsed.resources][-1] == "pqreg.json"
    assert parsed.resources[-1].digest == Digest.of(MANIFEST)


def test_the_root_is_over_raw_digests_in_order() -> None:
    pair = (resource("a", 1), resource("b", 2))
    assert oms_root(pair) == Digest.of(b"\x01" * 32 + b"\x02" * 32)
    assert oms_root(reversed(pair)) != oms_root(pair)


def test_order_is_by_code_point_of_the_whole_name() -> None:
    # Sorting by path component would put a/b first.
    ReleaseStatement("x", (resource("a.txt"), resource("a/b")))
    with pytest.raises(FormatError):
        ReleaseStatement("x", (resource("a/b"), resource("a.txt")))


@each(
    put("predicate", "resources", 0, "digest", value="00" * 32),
    put("subject", 0, "digest", "sha256", value="00" * 32),
    put("predicateType", value=TAG_PREDICATE),
    put("predicateType", value="https://model_signing/Digests/v0.1"),
    put("predicateType", value=RELEASE_PREDICATE + "/"),
)
def test_a_wrong_root_or_kind_is_a_mismatch(change) -> None:
    with pytest.raises(StatementMismatch) as caught:
        ReleaseStatement.parse(changed(PAYLOAD, change))
    assert caught.value.step == 3


@each(
    put("_type", value="https://in-toto.io/Statement/v0.1"),
    put("subject", value=[]),
    put("subject", value=[{"name": "minilm", "digest": {"sha256": "00" * 32}}] * 2),
    put("subject", 0, "digest", "sha512", value="00" * 64),
    put("subject", 0, "name", value="mini/lm"),
    put("subject", 0, "name", value="mini\nlm"),
    put("subject", 0, "uri", value="https://example.com"),
    put("predicate", "serialization", "method", value="shards"),
    put("predicate", "serialization", "hash_type", value="blake3"),
    put("predicate", "serialization", "allow_symlinks", value=True),
    put("predicate", "serialization", "allow_symlinks", value=0),
    put("predicate", "serialization", "allow_symlinks", value=None),
    put("predicate", "serialization", "shard_size", value=1),
    put("predicate", "serialization", "ignore_paths", value=[*IGNORE_PATHS, "weights"]),
    put("predicate", "serialization", "ignore_paths", value=list(IGNORE_PATHS[:-1])),
    put("predicate", "serialization", "ignore_paths", value=list(reversed(IGNORE_PATHS))),
    drop("predicate", "serialization", "ignore_paths"),
    put("predicate", "annotations", value={}),
    put("predicate", "resources", 0, "algorithm", value="sha512"),
    put("predicate", "resources", 0, "annotations", value={}),
    put("predicate", "resources", 0, "name", value="../config.json"),
    put("predicate", "resources", value=[]),
    put("note", value="hello"),
)
def test_another_form_is_refused(change) -> None:
    with pytest.raises(FormatError):
        ReleaseStatement.parse(changed(PAYLOAD, change))


@each(
    lambda document: document["predicate"]["resources"].reverse(),
    lambda document: document["predicate"]["resources"].insert(0, document["predicate"]["resources"][0]),
    put("predicate", "resources", 0, "name", value=".git/config"),
    put("predicate", "resources", 0, "name", value=".Git/config"),
)
def test_a_root_that_fits_does_not_excuse_the_resources(change) -> None:
    with pytest.raises(FormatError):
        ReleaseStatement.parse(rooted(change))


@pytest.mark.parametrize(
    "path", ["model.sig", "MODEL.SIG", "Model.pq.sig/x", ".cache/huggingface/x", ".pqreg", ".GIT/x"]
)
def test_what_verifiers_skip_cannot_be_signed(path: str) -> None:
    assert is_ignored(path)
    with pytest.raises(FormatError, match="skip"):
        ReleaseStatement("x", (resource(path),))


@pytest.mark.parametrize("path", ["model.sig.txt", "sub/model.sig", ".gitx", ".cache/other", "x.pqreg"])
def test_names_that_only_look_like_it_can(path: str) -> None:
    assert not is_ignored(path)
    ReleaseStatement("x", (resource(path),))


def test_ignore_paths_are_sorted_and_include_the_evidence() -> None:
    assert list(IGNORE_PATHS) == sorted(IGNORE_PATHS)
    assert {"model.sig", "model.pq.sig", "model.tlog-proof"} < set(IGNORE_PATHS)


def test_the_kind_of_any_statement_can_be_asked() -> None:
    assert predicate_type(PAYLOAD) == RELEASE_PREDICATE
    assert predicate_type(tag_statement().encode()) == TAG_PREDICATE
    assert predicate_type(json.dumps(json.loads(PAYLOAD), indent=2).encode()) == RELEASE_PREDICATE
    for other in (b"{}", b"[]", b"", changed(PAYLOAD, put("predicateType", value=1))):
        with pytest.raises(FormatError):
            predicate_type(other)
