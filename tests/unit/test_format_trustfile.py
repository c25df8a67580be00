# SPDX-License-Identifier: Apache-2.0
"""Trust files: understood completely or not believed at all."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace
from pq_registry.format.trustfile import TrustFile
from tests.format_samples import ALICE, BOB, NOW, changed, drop, each, identity, namespace_trust, put, trust_file

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/spec/trust.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ENCODED = trust_file().encode()
ACME = ("namespaces", "acme")


def test_a_trust_file_comes_back() -> None:
    assert TrustFile.parse(ENCODED) == trust_file()
    assert TrustFile.parse(ENCODED).encode() == ENCODED


def test_it_is_written_for_people() -> None:
    text = ENCODED.decode()
    assert text.endswith("}\n")
    assert '\n  "version": 7,\n' in text
    assert list(json.loads(text)) == list(SCHEMA["properties"])


def test_it_need_not_be_canonical() -> None:
    value = json.loads(ENCODED)
    assert TrustFile.parse(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()) == trust_file()


def test_the_spelling_of_a_namespace_is_kept() -> None:
    spelled = trust_file(namespaces={"acme": namespace_trust(namespace=Namespace("ACME"))})
    parsed = TrustFile.parse(spelled.encode())
    assert parsed == spelled
    assert str(parsed.namespaces["acme"].namespace) == "ACME"


def test_the_schema_accepts_what_we_write() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(json.loads(ENCODED))


@each(
    drop("schema"),
    drop("version"),
    drop("grace_days"),
    drop("offline_status"),
    drop("log"),
    drop("namespaces"),
    drop(*ACME, "min_profile"),
    drop(*ACME, "identities"),
    drop(*ACME, "pinned"),
    drop(*ACME, "publishers"),
    drop(*ACME, "revokers"),
    drop(*ACME, "identities", 0, "not_before"),
    put("note", value=""),
    put(*ACME, "note", value=""),
    put(*ACME, "identities", 0, "note", value=""),
    put("schema", value="urn:pq-registry:trust:v2"),
    put("log", value=None),
    put("log", value="c2sp"),
    put("offline_status", value="ignore"),
    put("created", value="2026-11-21"),
    put("expires", value=None),
    put("namespaces", value=[]),
    put(*ACME, value=[]),
    put("namespaces", "ac me", value={}),
    put("namespaces", "", value={}),
    put("namespaces", "a--b", value={}),
    put(*ACME, "identities", value=[]),
    put(*ACME, "identities", 0, "id", value="a1"),
    put(*ACME, "identities", 0, "public", value=""),
    put(*ACME, "identities", 0, "public", value="x" * (limits.IDENTITY_FILE_BYTES + 1)),
    put(*ACME, "identities", 0, "not_after", value=0),
    put(*ACME, "pinned", value=["22" * 32]),
    put(*ACME, "pinned", value=["sha256:" + "22" * 32] * 2),
    put(*ACME, "revokers", value=["bob"]),
    put(*ACME, "revokers", value=[BOB, BOB]),
    put(*ACME, "publishers", value=None),
)
def test_parser_and_schema_refuse_the_same_shapes(change) -> None:
    data = changed(ENCODED, change)
    assert not VALIDATOR.is_valid(json.loads(data))
    with pytest.raises(FormatError):
        TrustFile.parse(data)


@each(
    put("expires", value="2026-11-21T12:00:00Z"),
    put("expires", value="2026-02-30T12:00:00Z"),
    put(*ACME, "identities", 0, "not_after", value="2026-11-21T12:00:00Z"),
    put(*ACME, "identities", 1, "id", value=ALICE),
    put(*ACME, "revokers", value=["cc" * 32]),
    put(*ACME, "enrolment", value=["cc" * 32]),
    put(*ACME, "refreshers", value=["cc" * 32]),
    put(*ACME, "publishers", value=["cc" * 32]),
    lambda document: document["namespaces"].update(ACME=document["namespaces"]["acme"]),
)
def test_what_no_schema_can_say_the_parser_does(change) -> None:
    with pytest.raises(FormatError):
        TrustFile.parse(changed(ENCODED, change))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 0},
        {"version": True},
        {"grace_days": limits.GRACE_DAYS + 1},
        {"grace_days": False},
        {"expires": NOW},
        {"created": NOW.replace(tzinfo=None)},
        {"namespaces": {"ACME": namespace_trust()}},
        {"namespaces": {"other": namespace_trust()}},
    ],
    ids=["zero", "bool", "grace", "bool-grace", "expiry", "naive", "case", "other"],
)
def test_a_value_that_could_not_be_read_back_is_not_made(fields) -> None:
    with pytest.raises(FormatError):
        trust_file(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"min_profile": 4},
        {"min_profile": True},
        {"identities": ()},
        {"identities": (identity(), identity()), "revokers": ()},
        {"revokers": (BOB, BOB)},
        {"publishers": ("cc" * 32,)},
    ],
    ids=["profile", "bool", "none", "twice", "revoker-twice", "unknown"],
)
def test_a_namespace_that_makes_no_sense_is_not_made(fields) -> None:
    with pytest.raises(FormatError):
        namespace_trust(**fields)


def test_an_empty_window_is_not_made() -> None:
    with pytest.raises(FormatError):
        identity(not_before=NOW, not_after=NOW)
    identity(not_before=NOW, not_after=NOW + timedelta(seconds=1))


def test_the_namespaces_do_not_change_under_the_file() -> None:
    mine = {"acme": namespace_trust()}
    trust = trust_file(namespaces=mine)
    mine.clear()
    assert trust.namespaces["acme"].pinned == {Digest("22" * 32), Digest("33" * 32)}
    with pytest.raises(TypeError):
        trust.namespaces["evil"] = namespace_trust()  # type: ignore[index]


def test_a_file_that_trusts_nobody_is_a_trust_file() -> None:
    nobody = trust_file(namespaces={})
    assert TrustFile.parse(nobody.encode()) == nobody
