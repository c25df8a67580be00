# SPDX-License-Identifier: Apache-2.0
"""A5: numbers in a trust file that switch a check off (GHSA-fphv-w9fq-2525: a threshold of 0)."""

from __future__ import annotations

import json

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.trustfile import TrustFile
from tests.format_samples import ALICE, identity, namespace_trust, trust_file

ENCODED = trust_file().encode().decode()
NUMBERS = {"version": 7, "grace_days": 14, "min_profile": 5}
NEVER = [
    "-1",
    "true",
    "false",
    "null",
    '"5"',
    "5.0",
    "5e0",
    "[5]",
    "{}",
    "NaN",
    "Infinity",
    "9007199254740992",
    "1e400",
]


def with_number(field: str, written: str) -> bytes:
    before = f'"{field}": {NUMBERS[field]}'
    assert ENCODED.count(before) == 1
    return ENCODED.replace(before, f'"{field}": {written}').encode()


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("written", NEVER)
def test_what_is_no_count_does_not_load(field: str, written: str) -> None:
    TrustFile.parse(with_number(field, str(NUMBERS[field])))
    with pytest.raises(FormatError):
        TrustFile.parse(with_number(field, written))


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("version", [1, limits.JSON_INTEGER], [0]),
        ("grace_days", [0, limits.GRACE_DAYS], [limits.GRACE_DAYS + 1, 10**9]),
        ("min_profile", [3, 5], [0, 1, 2, 4, 6, 44, 87]),
    ],
)
def test_bounds(field: str, good: list[int], bad: list[int]) -> None:
    for number in good:
        TrustFile.parse(with_number(field, str(number)))
    for number in bad:
        with pytest.raises(FormatError):
            TrustFile.parse(with_number(field, str(number)))


@pytest.mark.parametrize("value", [True, False, 3.0, "3", None], ids=repr)
def test_a_number_made_in_python_is_checked_too(value: object) -> None:
    with pytest.raises(FormatError):
        namespace_trust(min_profile=value)
    with pytest.raises(FormatError):
        trust_file(version=value)
    with pytest.raises(FormatError):
        trust_file(grace_days=value)


def test_a_namespace_without_identities_does_not_load() -> None:
    value = json.loads(ENCODED)
    value["namespaces"]["acme"].update(identities=[], publishers=[], revokers=[])
    with pytest.raises(FormatError):
        TrustFile.parse(json.dumps(value).encode())


@pytest.mark.parametrize("role", ["publishers", "revokers", "enrolment", "refreshers"])
def test_a_role_holds_each_identity_once_and_no_stranger(role: str) -> None:
    """What would be counted is counted by identity: the same one twice, or one without a key, is no second voice."""
    for ids in ([ALICE, ALICE], ["cc" * 32], [ALICE.upper()], [""], [0]):
        value = json.loads(ENCODED)
        value["namespaces"]["acme"][role] = ids
        with pytest.raises(FormatError):
            TrustFile.parse(json.dumps(value).encode())
    with pytest.raises(FormatError):
        namespace_trust(identities=(identity(), identity()), revokers=())
