# SPDX-License-Identifier: Apache-2.0
"""C1 and C5 for evidence bundles: JSON two parsers read differently, and paths that lead elsewhere, are refused."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError, SignatureInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.evidence import (
    EvidenceFile,
    EvidenceFinding,
    EvidenceIndex,
    EvidenceSignature,
    EvidenceStatement,
    check_path,
)
from pq_registry.format.leaf import Kind
from pq_registry.format.strict_json import encode_canonical
from tests.attacks.test_c01_json_differentials import DIFFERENTIALS
from tests.samples import NOW

HEX = "ab" * 32


def index() -> EvidenceIndex:
    return EvidenceIndex(
        auditor=HEX,
        created=NOW,
        registry="https://models.example",
        log="log.example",
        scope="everything in the log",
        trust=Digest(HEX),
        software=(("openssl", "4"), ("pq-registry", "1")),
        statements=(
            EvidenceStatement(index=0, kind=Kind.TAG, name="a/b", identity=HEX, payload=Digest(HEX), time=NOW,
                              attested=NOW + timedelta(seconds=1)),
            EvidenceStatement(index=7, kind=Kind.KEY, name="a", identity=HEX, payload=Digest(HEX), time=NOW,
                              attested=None),
        ),
        findings=(
            EvidenceFinding(code="unknown-key", message="m", noticed=NOW),
            EvidenceFinding(code="unknown-key", message="m", noticed=NOW, name="a/b", index=0, statement=Digest(HEX),
                            expected="e", found="f"),
        ),
        files=(EvidenceFile("checkpoint.note", Digest(HEX), 0), EvidenceFile(f"statements/{HEX}.json", Digest(HEX), 1)),
    )  # fmt: skip


def signature() -> EvidenceSignature:
    return EvidenceSignature(index().encode(), b"ec", b"pq")


def test_round_trips() -> None:
    assert EvidenceIndex.parse(index().encode()) == index()
    assert EvidenceSignature.parse(signature().encode()) == signature()


@pytest.mark.parametrize("data", DIFFERENTIALS.values(), ids=DIFFERENTIALS.keys())
def test_what_parsers_disagree_about_is_one_error(data: bytes) -> None:
    for parse in (EvidenceIndex.parse, EvidenceSignature.parse):
        with pytest.raises(FormatError):
            parse(data)


@pytest.mark.parametrize("data", DIFFERENTIALS.values(), ids=DIFFERENTIALS.keys())
def test_also_deep_inside(data: bytes) -> None:
    for parse, document in ((EvidenceIndex.parse, index().encode()), (EvidenceSignature.parse, signature().encode())):
        with pytest.raises(FormatError):
            parse(b'{"a":' + data + b"," + document[1:])


@pytest.mark.parametrize("change", [b" ", b"\n"])
def test_white_space(change: bytes) -> None:
    with pytest.raises(FormatError):
        EvidenceIndex.parse(index().encode() + change)


FIELDS = sorted(json.loads(index().encode()))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, True, 1, "", "x", [], [1], {}, {"a": 1}], ids=repr)
def test_fields_of_another_kind(field: str, value: Any) -> None:
    document = json.loads(index().encode())
    good = {"scope": "x", "log": "x", "registry": "x", "software": {}, "statements": [], "findings": [], "files": []}
    if field in good and repr(good[field]) == repr(value):
        return
    document[field] = value
    with pytest.raises(FormatError):
        EvidenceIndex.parse(encode_canonical(document))
    del document[field]
    with pytest.raises(FormatError, match="missing"):
        EvidenceIndex.parse(encode_canonical(document))


@pytest.mark.parametrize("name", ["statements", "files"])
def test_unsorted_and_double_entries(name: str) -> None:
    document = json.loads(index().encode())
    for order in ([1, 0], [0, 0]):
        bent = {**document, name: [document[name][number] for number in order]}
        with pytest.raises(FormatError):
            EvidenceIndex.parse(encode_canonical(bent))


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "/etc/passwd", "../trust.json", "statements", "statements/", f"statements/../{HEX}.json",
        f"statements/{HEX}", f"statements/{HEX.upper()}.json", f"statements/{HEX[:-1]}.json",
        f"./statements/{HEX}.json",
        f"statements\\{HEX}.json", f"statements/{HEX}.json\n", f"statements/{HEX}.json/x", f"other/{HEX}.json",
        f"statements/sub/{HEX}.json", "evidence.json", "evidence.json.sig", "TRUST.JSON", "trust.json\0",
        f"statements/{HEX[:-1]}٣.json", f"misbehaviour/{HEX}.json", f"misbehaviour/{HEX}.fork", f"forks/{HEX}.note",
    ],
    ids=repr,
)  # fmt: skip
def test_c5_paths_that_are_none(path: str) -> None:
    with pytest.raises(FormatError):
        check_path(path)


def test_signatures_one_or_three_or_empty() -> None:
    document = json.loads(signature().encode())
    halves = document["signatures"]
    for bent in ([], halves[:1], halves * 2, [halves[0], {"keyid": "", "sig": ""}]):
        with pytest.raises(SignatureInvalid):
            EvidenceSignature.parse(encode_canonical({**document, "signatures": bent}))
    for entry in ({"keyid": "x", "sig": "eA=="}, {"sig": "eA=="}, {"keyid": "", "sig": "eA==", "alg": "none"}):
        with pytest.raises(FormatError):
            EvidenceSignature.parse(encode_canonical({**document, "signatures": [halves[0], entry]}))
    for kind in ("application/vnd.in-toto+json", "application/vnd.pq-registry.trust+json"):
        with pytest.raises(FormatError):
            EvidenceSignature.parse(encode_canonical({**document, "payloadType": kind}))


def test_c9_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = index().encode()
    for name, most in (("EVIDENCE_STATEMENTS", 2), ("EVIDENCE_FILES", 2), ("EVIDENCE_FINDINGS", 2),
                       ("EVIDENCE_INDEX_BYTES", len(data))):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(limits, name, most)
            assert EvidenceIndex.parse(data) == index()
            patch.setattr(limits, name, most - 1)
            with pytest.raises(FormatError):
                EvidenceIndex.parse(data)
