# SPDX-License-Identifier: Apache-2.0
"""The trust file's field ``log``: exempt, or policies that are understood completely."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jsonschema
import pytest

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.trustfile import TrustFile
from tests.format_samples import NOW, trust_file
from tests.logsamples import MemoryLog, compose_policy
from tests.unit.test_format_trustfile import VALIDATOR

POLICY = compose_policy(witnesses=2, quorum=1)
ENTRY: dict[str, Any] = {"policy": POLICY.text, "not_before": None, "not_after": None}
LOGGED = trust_file(log=(LogPolicy(POLICY, None, NOW), LogPolicy(compose_policy("second.example"), NOW, None)))


def document(log: Any) -> bytes:
    return json.dumps({**json.loads(trust_file().encode()), "log": log}).encode()


def test_policies_come_back_with_their_windows() -> None:
    assert TrustFile.parse(LOGGED.encode()) == LOGGED
    assert TrustFile.parse(LOGGED.encode()).encode() == LOGGED.encode()
    VALIDATOR.validate(json.loads(LOGGED.encode()))


def test_one_policy_is_a_list_of_one() -> None:
    assert TrustFile.parse(document([ENTRY])).log == (LogPolicy(POLICY),)


BROKEN: dict[str, Any] = {
    "null": None,
    "another word": "required",
    "empty": [],
    "no list": ENTRY,
    "text": [POLICY.text],
    "a field more": [{**ENTRY, "url": "https://log.example"}],
    "a field less": [{"policy": POLICY.text, "not_before": None}],
    "no policy": [{**ENTRY, "policy": ""}],
    "a policy of Ed25519 alone": [{**ENTRY, "policy": POLICY.text.replace("quorum log-and-witnesses", "quorum w1")}],
    "quorum none": [{**ENTRY, "policy": POLICY.text.replace("quorum log-and-witnesses", "quorum none")}],
    "a threshold of 0": [{**ENTRY, "policy": POLICY.text.replace("group witnesses 1", "group witnesses 0")}],
    "a threshold above the members": [
        {**ENTRY, "policy": POLICY.text.replace("group witnesses 1", "group witnesses 3")}
    ],
    "an empty window": [{**ENTRY, "not_before": "2027-01-01T00:00:00Z", "not_after": "2027-01-01T00:00:00Z"}],
    "a number for a time": [{**ENTRY, "not_after": 1795262400}],
    "twice": [ENTRY, ENTRY],
    "too many": [{**ENTRY, "not_after": f"20{year}-01-01T00:00:00Z"} for year in range(30, 31 + limits.LOG_POLICIES)],
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_not_understood_is_not_believed(what: str) -> None:
    with pytest.raises(FormatError):
        TrustFile.parse(document(BROKEN[what]))


def test_the_schema_refuses_what_a_schema_can() -> None:
    for what in (
        "null",
        "another word",
        "empty",
        "no list",
        "text",
        "a field more",
        "a field less",
        "twice",
        "too many",
    ):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(json.loads(document(BROKEN[what])))


@pytest.mark.parametrize("log", [(), "other", [LogPolicy(POLICY)]])
def test_values_are_held_to_the_same(log: Any) -> None:
    with pytest.raises(FormatError):
        replace(trust_file(), log=log)


def test_as_many_as_allowed() -> None:
    ends = [NOW + timedelta(days=day) for day in range(1, limits.LOG_POLICIES + 1)]
    trust = trust_file(log=tuple(LogPolicy(POLICY, None, end) for end in ends))
    assert len(TrustFile.parse(trust.encode()).log) == limits.LOG_POLICIES


def test_samples_make_policies_of_both_kinds() -> None:
    assert MemoryLog().policy().attesting == frozenset()
    assert len(POLICY.attesting) == 4  # two keys each
