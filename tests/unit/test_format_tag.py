# SPDX-License-Identifier: Apache-2.0
"""Tag statements: a hash chain whose subject and predicate agree."""

from __future__ import annotations

from datetime import datetime

import pytest

from pq_registry.errors import FormatError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.statement import RELEASE_PREDICATE
from pq_registry.format.tag import TagStatement
from tests.format_samples import NOW, changed, documents, drop, each, put, tag_statement

FIRST = tag_statement(sequence=1, previous=None)
MOVED = tag_statement()
WITHDRAWN = tag_statement(target=None)


def test_the_form_is_the_one_specified() -> None:
    assert MOVED.encode().decode() == (
        '{"_type":"https://in-toto.io/Statement/v1","predicate":{"expires":"2027-11-21T12:00:00Z",'
        '"issued":"2026-11-21T12:00:00Z",'
        f'"previous":"sha256:{"11" * 32}","sequence":2,"signer":"{"a1" * 32}","target":"sha256:{"22" * 32}"}},'
        '"predicateType":"urn:pq-registry:tag:v1",'
        f'"subject":[{{"digest":{{"sha256":"{"22" * 32}"}},"name":"acme/minilm:v1"}}]}}'
    )


@pytest.mark.parametrize("statement", [FIRST, MOVED, WITHDRAWN], ids=["first", "moved", "withdrawn"])
def test_a_statement_comes_back(statement: TagStatement) -> None:
    assert TagStatement.parse(statement.encode()) == statement


def test_the_subject_of_a_withdrawn_tag_is_the_statement_before() -> None:
    assert WITHDRAWN.subject == WITHDRAWN.previous
    assert MOVED.subject == MOVED.target


@each(
    put("subject", 0, "digest", "sha256", value="11" * 32),
    put("predicate", "target", value="sha256:" + "33" * 32),
    put("predicate", "target", value=None),
    put("predicateType", value=RELEASE_PREDICATE),
    put("predicateType", value="urn:pq-registry:status:v1"),
)
def test_disagreement_and_other_kinds_are_mismatches(change) -> None:
    with pytest.raises(StatementMismatch):
        TagStatement.parse(changed(MOVED.encode(), change))


@each(
    put("predicate", "sequence", value=0),
    put("predicate", "sequence", value=1),
    put("predicate", "sequence", value=True),
    put("predicate", "sequence", value="2"),
    put("predicate", "previous", value=None),
    put("predicate", "previous", value="11" * 32),
    put("predicate", "signer", value="A1" * 32),
    put("predicate", "expires", value="2026-11-21T12:00:00Z"),
    put("predicate", "expires", value="2026-11-21T11:59:59Z"),
    put("predicate", "issued", value=None),
    put("predicate", "note", value=""),
    put("subject", 0, "name", value="acme/minilm"),
    put("subject", 0, "name", value="acme/minilm:"),
    put("subject", 0, "name", value="minilm:v1"),
    put("subject", 0, "name", value="acme/minilm:v1:v2"),
    put("subject", 0, "name", value="acme/minilm:v1@sha256:" + "22" * 32),
    put("subject", 0, "name", value="acme/minilm:" + "22" * 32),
    drop("predicate", "target"),
    drop("predicate", "previous"),
    drop("predicate", "signer"),
)
def test_another_form_is_refused(change) -> None:
    with pytest.raises(FormatError):
        TagStatement.parse(changed(MOVED.encode(), change))


def test_a_release_statement_is_no_tag() -> None:
    with pytest.raises(FormatError):  # it is longer than any tag statement, or of another kind
        TagStatement.parse(documents()[0] + b" " * 20000)
    with pytest.raises(StatementMismatch):
        TagStatement.parse(documents()[0])


@pytest.mark.parametrize(
    "fields",
    [
        {"sequence": 0},
        {"sequence": True, "previous": None},
        {"sequence": 1},
        {"previous": None},
        {"sequence": 1, "previous": None, "target": None},
        {"expires": NOW},
        {"issued": datetime(2026, 11, 21)},
        {"signer": "alice"},
    ],
    ids=str,
)
def test_a_value_that_could_not_be_read_back_is_not_made(fields) -> None:
    with pytest.raises(FormatError):
        tag_statement(**fields)


def test_one_statement_names_the_next_ones_previous() -> None:
    following = tag_statement(sequence=2, previous=Digest.of(FIRST.encode()))
    assert TagStatement.parse(following.encode()).previous == Digest.of(FIRST.encode())
