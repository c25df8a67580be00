# SPDX-License-Identifier: Apache-2.0
"""Grant statements, key statements and recipient files as bytes: one form each."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.errors import FormatError, PqregError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.grant import GrantStatement
from pq_registry.format.keystatement import KeyStatement, parse_node
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.recipientfile import Kem, encode_file, kem_of, parse_file, recipient_id
from tests.format_samples import ALICE, BOB, NOW, YEAR, changed, drop, each, put
from tests.strategies import digests, ids, instants, namespaces, repositories

kems = st.sampled_from(list(Kem))


def grant(**fields: Any) -> GrantStatement:
    whole = GrantStatement(
        repository=RepositoryName.parse("acme/secret"),
        release=Digest("22" * 32),
        signer=ALICE,
        recipient=BOB,
        sequence=2,
        previous=Digest("11" * 32),
        wrapped=bytes(Kem.MLKEM1024_P384.wrapped_bytes),
        issued=NOW,
        expires=NOW + YEAR,
    )
    return replace(whole, **fields)


def key(**fields: Any) -> KeyStatement:
    whole = KeyStatement(
        signer=ALICE,
        namespace=Namespace("acme"),
        node="node1.example.org",
        kem=Kem.MLKEM768_X25519,
        public_key=bytes(Kem.MLKEM768_X25519.public_bytes),
        issued=NOW,
        not_after=NOW + YEAR,
    )
    return replace(whole, **fields)


def test_a_grant_has_the_form_specified() -> None:
    value = json.loads(grant().encode())
    assert value == {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "urn:pq-registry:grant:v1",
        "subject": [{"name": "acme/secret", "digest": {"sha256": "22" * 32}}],
        "predicate": {
            "signer": ALICE,
            "recipient": BOB,
            "sequence": 2,
            "previous": "sha256:" + "11" * 32,
            "wrapped": base64.b64encode(bytes(1713)).decode(),
            "issued": "2026-11-21T12:00:00Z",
            "expires": "2027-11-21T12:00:00Z",
        },
    }


@pytest.mark.parametrize(
    "made",
    [
        grant(),
        grant(expires=None),
        grant(sequence=1, previous=None),
        grant(wrapped=None, expires=None),
        grant(wrapped=bytes(Kem.MLKEM768_X25519.wrapped_bytes)),
    ],
)
def test_grants_come_back(made: GrantStatement) -> None:
    assert GrantStatement.parse(made.encode()) == made
    assert made.withdrawn is (made.wrapped is None)


@given(
    st.builds(
        grant,
        repository=repositories,
        release=digests,
        signer=ids,
        recipient=ids,
        sequence=st.integers(2, 2**53 - 1),
        previous=digests,
        wrapped=kems.flatmap(lambda kem: st.binary(min_size=kem.wrapped_bytes, max_size=kem.wrapped_bytes)),
        issued=instants,
        expires=st.none(),
    )
)
def test_any_grant_comes_back(made: GrantStatement) -> None:
    assert GrantStatement.parse(made.encode()) == made


@each(
    put("note", value=1),
    put("subject", 0, "name", value="acme"),
    put("subject", 0, "name", value="acme/secret:v1"),
    put("subject", 0, "digest", "sha256", value="sha256:" + "22" * 32),
    lambda document: document["subject"].append(document["subject"][0]),
    put("predicate", "note", value=1),
    put("predicate", "kem_id", value=81),
    put("predicate", "withdrawn", value=False),
    drop("predicate", "wrapped"),
    drop("predicate", "expires"),
    put("predicate", "wrapped", value=""),
    put("predicate", "wrapped", value="AAAA"),
    put("predicate", "wrapped", value=base64.b64encode(bytes(1712)).decode()),
    put("predicate", "wrapped", value=base64.b64encode(bytes(1714)).decode()),
    put("predicate", "wrapped", value=False),
    put("predicate", "recipient", value=BOB.upper()),
    put("predicate", "recipient", value=""),
    put("predicate", "sequence", value=0),
    put("predicate", "sequence", value=True),
    put("predicate", "sequence", value=1),
    put("predicate", "previous", value=None),
    put("predicate", "expires", value="2026-11-21T12:00:00Z"),
    put("predicate", "expires", value=""),
    put("predicate", "issued", value=None),
)
def test_other_grants_are_refused(change) -> None:
    with pytest.raises(FormatError):
        GrantStatement.parse(changed(grant().encode(), change))


@each(
    put("predicate", "sequence", value=1),
    put("predicate", "previous", value=None),
    put("predicate", "expires", value="2027-11-21T12:00:00Z"),
)
def test_a_withdrawal_has_something_to_withdraw_and_no_end(change) -> None:
    with pytest.raises(FormatError):
        GrantStatement.parse(changed(grant(wrapped=None, expires=None).encode(), change))
    with pytest.raises(FormatError):
        grant(wrapped=None, expires=None, sequence=1, previous=None)


def test_a_key_statement_has_the_form_specified() -> None:
    made = key()
    value = json.loads(made.encode())
    assert value["predicateType"] == "urn:pq-registry:key:v1"
    assert value["subject"] == [{"name": made.recipient, "digest": {"sha256": made.recipient}}]
    assert value["predicate"] == {
        "signer": ALICE,
        "namespace": "acme",
        "node": "node1.example.org",
        "recipient": made.recipient,
        "kem_id": 0x647A,
        "public_key": base64.b64encode(bytes(1216)).decode(),
        "issued": "2026-11-21T12:00:00Z",
        "not_after": "2027-11-21T12:00:00Z",
    }
    assert KeyStatement.parse(made.encode()) == made
    assert KeyStatement.parse(key(not_after=None).encode()).not_after is None


@given(
    kems.flatmap(
        lambda kem: st.builds(
            key,
            namespace=namespaces,
            signer=ids,
            kem=st.just(kem),
            public_key=st.binary(min_size=kem.public_bytes, max_size=kem.public_bytes),
            issued=instants,
            not_after=st.none(),
        )
    )
)
def test_any_key_statement_comes_back(made: KeyStatement) -> None:
    assert KeyStatement.parse(made.encode()) == made


@each(
    put("predicate", "note", value=1),
    put("predicate", "node", value=""),
    put("predicate", "node", value="node 1"),
    put("predicate", "node", value="-node"),
    put("predicate", "namespace", value="acme/x"),
    put("predicate", "kem_id", value=0x51),
    put("predicate", "kem_id", value=True),
    put("predicate", "kem_id", value="25722"),
    put("predicate", "kem_id", value=0x50),
    put("predicate", "public_key", value=""),
    put("predicate", "public_key", value=base64.b64encode(bytes(1217)).decode()),
    put("predicate", "not_after", value="2026-11-21T12:00:00Z"),
    drop("predicate", "recipient"),
    put("subject", 0, "name", value="acme"),
    put("subject", 0, "name", value=ALICE),
    put("subject", 0, "digest", "sha256", value=ALICE),
    put("predicate", "recipient", value=ALICE),
    put("predicate", "public_key", value=base64.b64encode(bytes(1215) + b"\x01").decode()),
)
def test_other_key_statements_are_refused(change) -> None:
    with pytest.raises((FormatError, StatementMismatch)):
        KeyStatement.parse(changed(key().encode(), change))


def test_node_names_have_an_end() -> None:
    assert parse_node("n" * 253) == "n" * 253
    for text in ("n" * 254, "", "a/b", "a\n", "ä"):
        with pytest.raises(FormatError):
            parse_node(text)


@pytest.mark.parametrize("kem", list(Kem))
def test_a_recipient_file_comes_back_and_has_one_form(kem: Kem) -> None:
    public = bytes(range(256)) * 7
    public = public[: kem.public_bytes]
    data = encode_file(kem, public)
    assert parse_file(data) == (kem, public)
    assert data.startswith(b"-----BEGIN PQREG RECIPIENT-----\n")
    assert all(len(line) <= 64 for line in data.splitlines())
    for other in (
        data + b"\n", b"\n" + data, data[:-1], data * 2, data.replace(b"\n", b"\r\n"), data.lower(), b"",
        data.replace(b"RECIPIENT", b"IDENTITY"), data[:40] + b" " + data[40:], encode_file(kem, public + b"0"),
        encode_file(kem, public[:-1]), data[:100] + b"\n" + data[100:], data + bytes(10_000),
    ):  # fmt: skip
        with pytest.raises(FormatError):
            parse_file(other)


def test_recipient_files_name_what_was_given_instead() -> None:
    for data, word in (
        (b"pqreg unseal key v1\n", "secret key file"),
        (b"pqreg secret key v1\n", "secret key file"),
        (b"-----BEGIN PUBLIC KEY-----\n", "signing identity"),
        (encode_file(Kem.MLKEM768_X25519, bytes(1216)).replace(b"\n", b"\r\n"), "line endings"),
    ):
        with pytest.raises(FormatError) as caught:
            parse_file(data)
        assert word in (caught.value.hint or "")


@pytest.mark.parametrize("kem_id", [0, 0x50, 0x42, True, "81", 0x10051, None])
def test_only_two_kems_exist(kem_id: Any) -> None:
    assert kem_of(0x51) is Kem.MLKEM1024_P384
    with pytest.raises(FormatError):
        kem_of(kem_id)


def test_ids_depend_on_the_kem_and_on_every_bit() -> None:
    seen = {recipient_id(kem, bytes(length)) for kem in Kem for length in (1215, 1216, 1217)}
    seen |= {recipient_id(Kem.MLKEM1024_P384, bytes(1215) + b"\x01")}
    assert len(seen) == 7


@given(st.binary(max_size=300))
def test_any_bytes_give_a_typed_refusal(data: bytes) -> None:
    for parse in (GrantStatement.parse, KeyStatement.parse, parse_file):
        with pytest.raises(PqregError):
            parse(data)


def test_statements_are_canonical() -> None:
    for made in (grant().encode(), key().encode()):
        assert rfc8785.dumps(json.loads(made)) == made
        with pytest.raises(FormatError):
            GrantStatement.parse(made + b" ")
        with pytest.raises(FormatError):
            KeyStatement.parse(b" " + made)
    with pytest.raises(FormatError):
        grant(issued=NOW + timedelta(microseconds=1))
