# SPDX-License-Identifier: Apache-2.0
"""Foreign OMS signatures; tests/conformance checks the same against the real tool."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from pq_registry.errors import FormatError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.oms import ForeignStatement, parse_foreign_bundle
from tests.format_samples import documents, drop, each, put

A, B = "0a" * 32, "0b" * 32
STATEMENT: dict[str, Any] = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "m", "digest": {"sha256": hashlib.sha256(bytes.fromhex(B + A)).hexdigest()}}],
    "predicateType": "https://model_signing/signature/v1.0",
    "predicate": {
        # By path component, as the stock tool sorts: a/b before a.txt.
        "resources": [
            {"name": "a/b", "algorithm": "sha256", "digest": B},
            {"name": "a.txt", "algorithm": "sha256", "digest": A},
        ],
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": [".git", "model.sig"],
        },
    },
}


def written(value: Any, *changes) -> bytes:
    copied = json.loads(json.dumps(value))
    for change in changes:
        change(copied)
    return json.dumps(copied, indent=2).encode()


BUNDLE: dict[str, Any] = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {"publicKey": {"hint": "00" * 32}, "tlogEntries": []},
    "dsseEnvelope": {
        "payload": base64.b64encode(written(STATEMENT)).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": "AQ==", "keyid": ""}],
    },
}


def test_a_statement_in_the_tools_own_form_is_read() -> None:
    assert ForeignStatement.parse(written(STATEMENT)) == ForeignStatement(
        "m", (("a/b", Digest(B)), ("a.txt", Digest(A))), (".git", "model.sig"), allow_symlinks=False
    )


def test_ours_is_one_of_them() -> None:
    ours = ForeignStatement.parse(documents()[0])
    assert ours.resources[-1][0] == "pqreg.json"
    assert "model.pq.sig" in ours.ignore_paths


def test_ignore_paths_may_be_missing() -> None:
    parsed = ForeignStatement.parse(written(STATEMENT, drop("predicate", "serialization", "ignore_paths")))
    assert parsed.ignore_paths == ()


@each(
    put("predicate", "serialization", "method", value="shards"),
    put("predicate", "serialization", "shard_size", value=4.0),
    put("predicate", "serialization", "hash_type", value="blake3"),
    put("predicate", "resources", 0, "algorithm", value="blake2b"),
)
def test_other_methods_and_hashes_are_named(change) -> None:
    change_method = put("predicate", "serialization", "method", value="shards")
    changes = (change_method, change) if "shard_size" in str(change) else (change,)
    with pytest.raises(FormatError, match="not supported") as caught:
        ForeignStatement.parse(written(STATEMENT, *changes))
    assert "model_signing verify" in (caught.value.hint or "")


@each(
    put("predicateType", value="https://model_signing/Digests/v0.1"),
    put("subject", 0, "digest", "sha256", value=A),
    put("predicate", "resources", 0, "digest", value=A),
)
def test_other_kinds_and_roots_are_mismatches(change) -> None:
    with pytest.raises(StatementMismatch):
        ForeignStatement.parse(written(STATEMENT, change))


@each(
    put("_type", value="https://in-toto.io/Statement/v0.1"),
    put("subject", value=[]),
    put("predicate", "resources", 0, "digest", value=A.upper()),
    put("predicate", "resources", 0, "name", value="../a"),
    put("predicate", "resources", 0, "name", value="/etc/passwd"),
    put("predicate", "resources", 0, "name", value="a/./b"),
    put("predicate", "resources", 0, "name", value="a//b"),
    put("predicate", "resources", 0, "name", value="..\\a"),
    put("predicate", "resources", 0, "name", value="a\0b"),
    put("predicate", "resources", 0, "name", value=""),
    put("predicate", "resources", 0, "name", value="a.txt"),
    put("predicate", "serialization", "allow_symlinks", value="false"),
    put("predicate", "serialization", "ignore_paths", value=[1]),
    put("predicate", "more", value=1),
    drop("predicate", "serialization"),
)
def test_malformed_statements_are_refused(change) -> None:
    with pytest.raises(FormatError):
        ForeignStatement.parse(written(STATEMENT, change))


def test_a_duplicate_key_is_refused_although_the_tool_takes_the_last() -> None:
    with pytest.raises(FormatError):
        ForeignStatement.parse(written(STATEMENT).replace(b'"name": "m",', b'"name": "x", "name": "m",'))


def test_a_bundle_is_read() -> None:
    bundle = parse_foreign_bundle(written(BUNDLE))
    assert (bundle.payload, bundle.signature, bundle.hint) == (written(STATEMENT), b"\x01", "00" * 32)


@each(
    drop("verificationMaterial", "tlogEntries"),
    drop("verificationMaterial", "publicKey", "hint"),
    put("verificationMaterial", "publicKey", "hint", value=None),
    drop("dsseEnvelope", "signatures", 0, "keyid"),
)
def test_what_older_tools_left_out_may_be_left_out(change) -> None:
    assert parse_foreign_bundle(written(BUNDLE, change)).signature == b"\x01"


@each(
    put("mediaType", value="application/vnd.dev.sigstore.bundle.v0.4+json"),
    put("verificationMaterial", "tlogEntries", value=[{}]),
    put("dsseEnvelope", "payloadType", value="text/plain"),
    put("dsseEnvelope", "signatures", value=[]),
    put("dsseEnvelope", "signatures", value=[{"sig": "AQ=="}] * 2),
    put("dsseEnvelope", "payload", value="not base64"),
    put("messageSignature", value={}),
    drop("dsseEnvelope"),
)
def test_malformed_bundles_are_refused(change) -> None:
    with pytest.raises(FormatError):
        parse_foreign_bundle(written(BUNDLE, change))


def test_a_certificate_is_another_tools_business() -> None:
    changes = (drop("verificationMaterial", "publicKey"), put("verificationMaterial", "certificate", value={}))
    with pytest.raises(FormatError, match="not signed with a key"):
        parse_foreign_bundle(written(BUNDLE, *changes))
