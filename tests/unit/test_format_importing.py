# SPDX-License-Identifier: Apache-2.0
"""The import statement: what is written is read back, what contradicts itself is refused, and the schema agrees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pq_registry import limits
from pq_registry.errors import FormatError, PqregError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.importing import (
    IMPORT_NAME,
    SIGNATURE_NAME,
    ConvertedFile,
    ImportStatement,
    LeftOut,
    Source,
    SourceFile,
    SourceSignature,
    Verified,
)
from pq_registry.format.path import ReleasePath
from pq_registry.format.strict_json import encode_canonical
from tests.samples import file_entry

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/spec/import.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = Source("https://huggingface.co", "org/model", "v1", COMMIT)
CONTENT = {"config.json": b"{}", "model.safetensors.md": b"x" * 100}
SIGNED = b"a bundle"


def taken(path: str, **fields: Any) -> SourceFile:
    data = CONTENT[path]
    stated: dict[str, Any] = {"git_sha1": "0" * 40} if path == "config.json" else {"sha256": Digest.of(data)}
    return SourceFile(path=ReleasePath(path), size=len(data), **{**stated, "found": Digest.of(data), **fields})


SIGNATURE = SourceSignature(
    path=ReleasePath("model.sig"), sha256=Digest.of(SIGNED), kept=ReleasePath(SIGNATURE_NAME), verified=Verified.KEY,
    details=(("key", "0" * 64),),
)  # fmt: skip
STATEMENT = ImportStatement(
    SOURCE,
    (
        SourceFile(path=ReleasePath(".gitattributes"), size=1, git_sha1="1" * 40, left_out=LeftOut.IGNORED),
        taken("config.json"),
        taken("model.safetensors.md"),
        SourceFile(path=ReleasePath("model.sig"), size=8, git_sha1="2" * 40, left_out=LeftOut.EVIDENCE),
    ),
    SIGNATURE,
)


WEIGHTS = b"weights" * 10
PICKLE = b"a pickle."
MADE = ConvertedFile(
    path=ReleasePath("weights.md"), size=len(WEIGHTS), sha256=Digest.of(WEIGHTS), tool="0.1.0",
    torch="2.13.0+cpu",
)  # fmt: skip
CONVERTED = replace(
    STATEMENT,
    files=(
        *STATEMENT.files,
        SourceFile(
            path=ReleasePath("pytorch_model.bin"), size=9, sha256=Digest.of(PICKLE), found=Digest.of(PICKLE),
            converted=MADE,
        ),
    ),
)  # fmt: skip


def entries(more: dict[str, bytes] | None = None) -> list:
    files = {**CONTENT, IMPORT_NAME: STATEMENT.encode(), SIGNATURE_NAME: SIGNED, **(more or {})}
    return [file_entry(path, data) for path, data in sorted(files.items())]


def fits_schema(data: bytes) -> bool:
    return VALIDATOR.is_valid(json.loads(data))


VERIFIED = [
    None,
    (Verified.KEY, (("key", "0" * 64),)),
    (Verified.CERTIFICATE, (("authority", "0" * 64), ("certificate", "1" * 64), ("subject", "CN=Acme"))),
    (Verified.SIGSTORE, (("identity", "a@b.example"), ("issuer", "https://c.example"))),
    (Verified.RELEASE, (("name", "acme/x"), ("release", f"sha256:{'0' * 64}"), ("signer", "1" * 64))),
]


@pytest.mark.parametrize("verified", VERIFIED, ids=lambda item: str(item and item[0]))
def test_what_is_written_is_read_back(verified) -> None:
    kind, details = verified or (None, ())
    statement = replace(STATEMENT, signature=replace(SIGNATURE, verified=kind, details=details))
    data = statement.encode()
    assert ImportStatement.parse(data) == statement
    assert fits_schema(data)
    bare = replace(STATEMENT, signature=None)
    assert ImportStatement.parse(bare.encode()) == bare
    assert fits_schema(bare.encode())


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_conversion_is_written_and_read_back() -> None:
    data = CONVERTED.encode()
    assert ImportStatement.parse(data) == CONVERTED
    assert fits_schema(data)
    assert json.loads(data)["predicate"]["converted"] == [
        {
            "into": {"path": "weights.md", "sha256": Digest.of(WEIGHTS).hex, "size": 70},
            "path": "pytorch_model.bin", "sha256": Digest.of(PICKLE).hex, "size": 9,
            "stated": {"sha256": Digest.of(PICKLE).hex},
            "tools": {"pq-registry": "0.1.0", "torch": "2.13.0+cpu"},
        }
    ]  # fmt: skip
    assert "converted" not in json.loads(STATEMENT.encode())["predicate"]
    index = replace(MADE, path=ReleasePath("model.safetensors.index.json"), torch=None)
    only = replace(STATEMENT, files=(replace(CONVERTED.files[-1], converted=index),))
    assert ImportStatement.parse(only.encode()) == only
    assert fits_schema(only.encode())


def test_a_conversion_describes_what_was_made() -> None:
    made = {IMPORT_NAME: CONVERTED.encode(), "weights.md": WEIGHTS}
    assert CONVERTED.describes(entries(made))
    assert not CONVERTED.describes(entries({**made, "weights.md": b"others"}))
    assert not CONVERTED.describes(entries({**made, "pytorch_model.bin": PICKLE}))
    assert not CONVERTED.describes(entries())


CONVERSIONS = {
    "none of them": lambda value: value["predicate"].update(converted=[]),
    "a version that is none": lambda value: value["predicate"]["converted"][0]["tools"].update(torch="2 or 3"),
    "another tool": lambda value: value["predicate"]["converted"][0]["tools"].update(numpy="2.0"),
    "no tool": lambda value: value["predicate"]["converted"][0]["tools"].pop("pq-registry"),
    "into nothing": lambda value: value["predicate"]["converted"][0].pop("into"),
    "into more": lambda value: value["predicate"]["converted"][0]["into"].update(mode=7),
    "a reason": lambda value: value["predicate"]["converted"][0].update(reason="excluded"),
    "a file that was not": lambda value: value["predicate"]["files"][0].update(
        into=value["predicate"]["converted"][0]["into"]
    ),
}


@pytest.mark.parametrize("change", CONVERSIONS.values(), ids=CONVERSIONS)
def test_parser_and_schema_refuse_the_same_conversions(change) -> None:
    value = json.loads(CONVERTED.encode())
    change(value)
    data = encode_canonical(value)
    assert not fits_schema(data)
    with pytest.raises(FormatError):
        ImportStatement.parse(data)


@pytest.mark.parametrize("into", ["config.json", "CONFIG.json", "config.json/x", "../x"])
def test_a_conversion_takes_no_place_of_another_file(into) -> None:
    value = json.loads(CONVERTED.encode())
    value["predicate"]["converted"][0]["into"]["path"] = into
    with pytest.raises(FormatError):
        ImportStatement.parse(encode_canonical(value))
    with pytest.raises(FormatError):
        replace(CONVERTED.files[-1], found=None, left_out=LeftOut.EXCLUDED)


def edited(change) -> bytes:
    value = json.loads(STATEMENT.encode())
    change(value)
    return encode_canonical(value)


SHAPES = {
    "another field": lambda value: value.update(more=1),
    "another kind": lambda value: value.update(predicateType="urn:pq-registry:tag:v1"),
    "a field of the predicate": lambda value: value["predicate"].update(time="2026-11-22T00:00:00Z"),
    "no source": lambda value: value["predicate"].pop("source"),
    "an endpoint that is none": lambda value: value["predicate"]["source"].update(endpoint="file:///etc"),
    "a password": lambda value: value["predicate"]["source"].update(endpoint="https://a:b@host.example"),
    "a repository that is none": lambda value: value["predicate"]["source"].update(repository="a/b/c"),
    "a short commit": lambda value: value["predicate"]["source"].update(commit="0" * 39),
    "an unknown reason": lambda value: value["predicate"]["left_out"][0].update(reason="boring"),
    "no digest": lambda value: value["predicate"]["files"][0].update(stated={}),
    "two digests": lambda value: value["predicate"]["files"][1]["stated"].update(gitSha1="0" * 40),
    "a digest in capitals": lambda value: value["predicate"]["files"][0].update(sha256="A" * 64),
    "a negative size": lambda value: value["predicate"]["files"][0].update(size=-1),
    "an unknown way": lambda value: value["predicate"]["signature"].update(verified={"by": "trust me"}),
    "details of another way": lambda value: value["predicate"]["signature"]["verified"].update(issuer="x"),
    "details that are lacking": lambda value: value["predicate"]["signature"]["verified"].pop("key"),
    "no files": lambda value: value["predicate"].update(files={}),
    "two subjects": lambda value: value["subject"].append(value["subject"][0]),
}


@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES)
def test_parser_and_schema_refuse_the_same_shapes(change) -> None:
    data = edited(change)
    assert not fits_schema(data)
    with pytest.raises((FormatError, StatementMismatch)):
        ImportStatement.parse(data)


RULES = {
    "another subject": lambda value: value["subject"][0].update(name="hf://org/other"),
    "another commit": lambda value: value["subject"][0]["digest"].update(gitCommit="f" * 40),
    "out of order": lambda value: value["predicate"]["files"].reverse(),
    "twice": lambda value: value["predicate"]["files"].append(value["predicate"]["files"][0]),
    "other bytes": lambda value: value["predicate"]["files"][1].update(sha256="0" * 64),
    "a path that climbs": lambda value: value["predicate"]["files"][0].update(path="../config.json"),
    "dots in the revision": lambda value: value["predicate"]["source"].update(revision="a..b"),
}


@pytest.mark.parametrize("change", RULES.values(), ids=RULES)
def test_what_no_schema_can_say_the_parser_does(change) -> None:
    with pytest.raises(FormatError):
        ImportStatement.parse(edited(change))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff", STATEMENT.encode() + b" ", b" " + STATEMENT.encode()], ids=range(7)
)
def test_any_other_bytes_are_refused(data) -> None:
    with pytest.raises(PqregError):
        ImportStatement.parse(data)


def test_it_is_read_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = STATEMENT.encode()
    monkeypatch.setattr(limits, "IMPORT_BYTES", len(data))
    ImportStatement.parse(data)
    monkeypatch.setattr(limits, "IMPORT_BYTES", len(data) - 1)
    with pytest.raises(FormatError, match="too large"):
        ImportStatement.parse(data)


def test_it_describes_exactly_its_release() -> None:
    assert STATEMENT.describes(entries())
    assert not STATEMENT.describes(entries({"config.json": b"{ }"}))
    assert not STATEMENT.describes(entries({"more.txt": b""}))
    assert not STATEMENT.describes(entries({SIGNATURE_NAME: b"another bundle"}))
    for missing in (*CONTENT, IMPORT_NAME, SIGNATURE_NAME):
        assert not STATEMENT.describes([entry for entry in entries() if entry.path.text != missing])


@pytest.mark.parametrize(
    "fields",
    [
        {"sha256": None}, {"git_sha1": "0" * 40}, {"found": None}, {"left_out": LeftOut.EXCLUDED}, {"size": -1},
        {"found": Digest.of(b"other")},
    ],
    ids=str,
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(fields) -> None:
    with pytest.raises(FormatError):
        replace(taken("model.safetensors.md"), **fields)
