# SPDX-License-Identifier: Apache-2.0
"""Leaves, status statements and receipts: round trips, strictness, limits."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import rfc8785
from hypothesis import given

from pq_registry import limits
from pq_registry.errors import FormatError, PqregError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.name import Namespace
from pq_registry.format.note import Note, SignatureLine
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.tlogproof import TlogProof
from tests import note_samples as samples
from tests.samples import NOW

ID, OTHER = "ab" * 32, "cd" * 32
ENVELOPE = Envelope(b"payload", b"ec", b"pq")
LEAF = Leaf.of(ENVELOPE, kind=Kind.RELEASE, name="Acme/MiniLM", identity=ID, time=1_795_000_000)
NOTE = Note(b"o\n1\nx\n", (SignatureLine("o", b"\0\0\0\1", b"sig"),)).encode()
HASH = b"\x07" * 32


def status(**fields: Any) -> StatusStatement:
    given_fields: dict[str, Any] = {
        "namespace": Namespace("Acme"), "signer": ID, "sequence": 1, "previous": None,
        "revoked": (Revocation(RevocationKind.IDENTITY, OTHER, NOW),),
        "issued": NOW, "expires": NOW + timedelta(days=30),
    }  # fmt: skip
    return StatusStatement(**given_fields | fields)


def changed(payload: bytes, change: Any) -> bytes:
    value = json.loads(payload)
    change(value)
    return rfc8785.dumps(value)


@given(samples.leaves())
def test_leaves_round_trip(leaf: Leaf) -> None:
    assert Leaf.parse(leaf.encode()) == leaf
    assert Leaf.parse(leaf.encode()).encode() == leaf.encode()
    assert set(json.loads(leaf.encode())) == set("iknpstv")


def test_a_leaf_is_what_the_design_says() -> None:
    assert json.loads(LEAF.encode()) == {
        "i": ID,
        "k": "release",
        "n": "Acme/MiniLM",
        "p": Digest.of(b"payload").hex,
        "s": [Digest.of(b"ec").hex, Digest.of(b"pq").hex],
        "t": 1_795_000_000,
        "v": 1,
    }


OTHER_LEAVES = [
    lambda value: value.update(v=2),
    lambda value: value.update(v=True),
    lambda value: value.update(k="Release"),
    lambda value: value.update(k="status"),
    lambda value: value.update(n="acme"),
    lambda value: value.update(n="acme/a/b"),
    lambda value: value.update(i=ID.upper()),
    lambda value: value.update(p="sha256:" + ID),
    lambda value: value.update(s=[ID]),
    lambda value: value.update(s=[ID, ID, ID]),
    lambda value: value.update(s=[ID, 1]),
    lambda value: value.update(s=[ID, "x"]),
    lambda value: value.update(t=-1),
    lambda value: value.update(t="1"),
    lambda value: value.update(x=1),
    lambda value: value.pop("s"),
]


@pytest.mark.parametrize("change", OTHER_LEAVES, ids=range(len(OTHER_LEAVES)))
def test_other_leaves_are_refused(change: Any) -> None:
    with pytest.raises(FormatError):
        Leaf.parse(changed(LEAF.encode(), change))


def test_a_leaf_of_another_spelling_is_refused() -> None:
    with pytest.raises(FormatError):
        Leaf.parse(LEAF.encode().replace(b":", b": ", 1))
    with pytest.raises(FormatError):
        Leaf.parse(LEAF.encode() + b"\n")


@pytest.mark.parametrize("kind", list(Kind))
def test_leaves_name_a_repository_or_a_namespace_by_kind(kind: Kind) -> None:
    right, wrong = ("acme", "acme/x") if kind.of_namespace else ("acme/x", "acme")
    assert replace(LEAF, kind=kind, name=right).name == right
    with pytest.raises(FormatError):
        replace(LEAF, kind=kind, name=wrong)


@given(samples.status_statements())
def test_status_statements_round_trip(statement: StatusStatement) -> None:
    payload = statement.encode()
    assert StatusStatement.parse(payload) == statement
    assert StatusStatement.parse(payload).encode() == payload == rfc8785.dumps(json.loads(payload))
    assert statement.extends(statement)


def test_a_status_statement_in_json() -> None:
    value = json.loads(status().encode())
    assert value["predicateType"] == "urn:pq-registry:status:v1"
    assert value["subject"] == [{"digest": {"sha256": Digest.of(b"acme").hex}, "name": "Acme"}]
    assert value["predicate"]["revoked"] == [{"from": "2026-11-21T12:00:00Z", "identity": OTHER}]


def revocation(value: Any) -> Any:
    return value["predicate"]["revoked"][0]


OTHER_STATEMENTS = [
    lambda value: revocation(value).pop("from"),
    lambda value: revocation(value).pop("identity"),
    lambda value: revocation(value).update(release="sha256:" + ID),
    lambda value: revocation(value).update({"from": None}),
    lambda value: revocation(value).update(identity=OTHER.upper()),
    lambda value: value["predicate"]["revoked"].append(revocation(value)),
    lambda value: value["predicate"]["revoked"].append({"from": "2026-11-21T12:00:00Z", "identity": ID}),
    lambda value: value["predicate"].update(sequence=0),
    lambda value: value["predicate"].update(sequence=True),
    lambda value: value["predicate"].update(previous="sha256:" + ID),
    lambda value: value["predicate"].update(expires=value["predicate"]["issued"]),
    lambda value: value["predicate"].update(extra=1),
    lambda value: value["subject"][0].update(name="Other"),
    lambda value: value["subject"][0].update(name="Acme/x"),
    lambda value: value.update(predicateType="urn:pq-registry:tag:v1"),
]


@pytest.mark.parametrize("change", OTHER_STATEMENTS, ids=range(len(OTHER_STATEMENTS)))
def test_other_status_statements_are_refused(change: Any) -> None:
    with pytest.raises((FormatError, StatementMismatch)):
        StatusStatement.parse(changed(status().encode(), change))


def test_a_status_statement_is_none_of_another_kind() -> None:
    with pytest.raises(StatementMismatch):
        TagStatement.parse(status().encode())


@pytest.mark.parametrize("kind", list(RevocationKind))
def test_what_is_revoked_is_written_by_kind(kind: RevocationKind) -> None:
    is_id = kind in {RevocationKind.IDENTITY, RevocationKind.RECIPIENT}
    right, wrong = (ID, "sha256:" + ID) if is_id else ("sha256:" + ID, ID)
    assert Revocation(kind, right, NOW).key == (kind.value, right)
    with pytest.raises(PqregError):
        Revocation(kind, wrong, NOW)


def test_a_list_grows_and_takes_nothing_back() -> None:
    earlier, later = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
    first = status()
    entry = first.revoked[0]
    more = Revocation(RevocationKind.RELEASE, "sha256:" + ID, NOW)
    for revoked, good in (
        ((entry,), True),
        ((entry, more), True),
        ((replace(entry, since=earlier),), True),
        ((replace(entry, since=later),), False),
        ((more,), False),
        ((), False),
    ):
        assert status(revoked=revoked).extends(first) is good
    assert not status(namespace=Namespace("other")).extends(first)
    assert status(namespace=Namespace("ACME")).extends(first)


@pytest.mark.parametrize(("change", "good"), [(-1, True), (0, True), (1, False)])
def test_the_number_of_revocations_is_bounded(monkeypatch: Any, change: int, good: bool) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS", 5)
    entries = tuple(Revocation(RevocationKind.RELEASE, f"sha256:{n:064x}", NOW) for n in range(5 + change))
    if good:
        assert StatusStatement.parse(status(revoked=entries).encode()).revoked == entries
    else:
        with pytest.raises(FormatError):
            status(revoked=entries)


def test_the_longest_list_fits_its_limits() -> None:
    entries = tuple(Revocation(RevocationKind.RECIPIENT, f"{n:064x}", NOW) for n in range(limits.REVOCATIONS))
    payload = status(revoked=entries).encode()
    assert StatusStatement.parse(payload).revoked == entries
    assert len(Envelope(payload, bytes(120), bytes(4627)).encode()) < limits.STATUS_ENVELOPE_BYTES


@given(samples.proofs)
def test_receipts_round_trip(proof: TlogProof) -> None:
    assert TlogProof.parse(proof.encode()) == proof
    assert TlogProof.parse(proof.encode()).encode() == proof.encode()


def test_a_receipt_is_what_the_specification_shows() -> None:
    proof = TlogProof(73894, (HASH,), NOTE, b"leaf")
    assert proof.encode() == (
        b"c2sp.org/tlog-proof@v1\nextra bGVhZg==\nindex 73894\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n\n" + NOTE
    )


GOOD = TlogProof(5, (HASH, HASH), NOTE, b"leaf").encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD.replace(b"@v1", b"@v2"),
        b"\n" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"index 5", b"index 05"),
        GOOD.replace(b"index 5", b"index -5"),
        GOOD.replace(b"index 5", b"index +5"),
        GOOD.replace(b"index 5", b"index 5 "),
        GOOD.replace(b"index 5", b"index"),
        GOOD.replace(b"index 5\n", b""),
        GOOD.replace(b"index 5", b"index 9223372036854775807"),
        GOOD.replace(b"extra bGVhZg==\nindex 5", b"index 5\nextra bGVhZg=="),
        GOOD.replace(b"extra bGVhZg==", b"extra bGVhZg==\nextra bGVhZg=="),
        GOOD.replace(b"extra bGVhZg==", b"extra "),
        GOOD.replace(b"extra bGVhZg==", b"extra bGVhZh=="),
        GOOD.replace(b"extra bGVhZg==", b"Extra bGVhZg=="),
        GOOD.replace(b"BwcHBw", b"BwcHB", 1),
        GOOD.replace(b"BwcHBwc=\n", b"BwcHBwcH\n", 1),
        GOOD.replace(NOTE, b""),
        GOOD.replace(NOTE, b"not a note\n"),
        GOOD + b"\n",
        GOOD[:-1],
        GOOD.replace(b"index", "ｉndex".encode()),
    ],
)
def test_other_bytes_are_no_receipt(data: bytes) -> None:
    with pytest.raises(FormatError):
        TlogProof.parse(data)


@pytest.mark.parametrize(("count", "good"), [(62, True), (63, True), (64, False)])
def test_the_length_of_a_proof_is_bounded(count: int, good: bool) -> None:
    data = b"c2sp.org/tlog-proof@v1\nindex 5\n"
    data += (GOOD.split(b"\n")[3] + b"\n") * count + b"\n" + NOTE
    if good:
        assert len(TlogProof.parse(data).hashes) == count
    else:
        with pytest.raises(FormatError):
            TlogProof.parse(data)


@pytest.mark.parametrize("change", [-1, 0, 1])
def test_the_size_of_a_receipts_leaf_is_bounded(change: int) -> None:
    extra = bytes(limits.LOG_ENTRY_BYTES + change)
    if change <= 0:
        assert TlogProof.parse(TlogProof(0, (), NOTE, extra).encode()).extra == extra
    else:
        with pytest.raises(FormatError):
            TlogProof(0, (), NOTE, extra)
