# SPDX-License-Identifier: Apache-2.0
"""A5, threshold 0 (GHSA-fphv-w9fq-2525): a log policy that nobody need meet, or nobody can, does not load."""

from __future__ import annotations

from typing import Any

import pytest

from pq_registry.errors import FormatError
from pq_registry.format.tlogpolicy import Policy
from tests.note_samples import log_signers, witness_signers

LOG, LOG_PQ = (signer.key for signer in log_signers())
KEYS = [witness_signers(f"w{n}.example")[1].key for n in range(3)]
WITNESSES = [(f"w{n}", [key], None) for n, key in enumerate(KEYS)]
LINES = f"log {LOG}\nwitness log-pq {LOG_PQ}\n" + "".join(f"witness w{n} {key}\n" for n, key in enumerate(KEYS))


@pytest.mark.parametrize("count", ["1", "2", "3", "all", "any"])
def test_a5_possible_thresholds_load(count: str) -> None:
    assert Policy.parse(LINES + f"group w {count} w0 w1 w2\ngroup q all log-pq w\nquorum q\n")


@pytest.mark.parametrize(
    "count", ["0", "-1", "4", "00", "01", "+1", "1.0", "1_0", "true", "True", "٣", "99999999999", "none", "any,all"]
)
def test_a5_impossible_thresholds_do_not_load(count: str) -> None:
    with pytest.raises(FormatError, match="threshold"):
        Policy.parse(LINES + f"group w {count} w0 w1 w2\ngroup q all log-pq w\nquorum q\n")


@pytest.mark.parametrize("quorum", [0, -1, 4, True, False, None, "1", 1.0])
def test_a5_impossible_quorums_are_not_composed(quorum: Any) -> None:
    with pytest.raises(FormatError, match="quorum is impossible"):
        Policy.compose(LOG, LOG_PQ, WITNESSES, quorum)


def test_a5_no_quorum_without_the_log() -> None:
    with pytest.raises(FormatError):
        Policy.parse(LINES + "quorum none\n")
    with pytest.raises(FormatError):
        Policy.parse(LINES + "group w 3 w0 w1 w2\nquorum w\n")


ED = [witness_signers(f"w{n}.example")[0].key for n in range(3)]
BOTH = LINES + "".join(f"witness e{n} {key}\n" for n, key in enumerate(ED))


@pytest.mark.parametrize(
    "groups",
    [
        "group w 2 w0 e0 w1\n",
        "group a any e0 w1\ngroup w 2 w0 a w2\n",
        "group a all e0 w1\ngroup b all w0 w2\ngroup w any a b\n",
        "group a 2 w0 e0 w2\ngroup w all a w1\n",
    ],
)
def test_a5_two_keys_of_one_witness_are_not_two_witnesses(groups: str) -> None:
    with pytest.raises(FormatError, match="counts twice"):
        Policy.parse(f"{BOTH}{groups}group q all log-pq w\nquorum q\n")


@pytest.mark.parametrize(
    "groups",
    [
        "group w all w0 e0 w1\n",
        "group a all w0 e0\ngroup b all e1 w1\ngroup w 2 a b w2\n",
        "group a any w0 e0\ngroup w 2 a w1 w2\n",
        "group w 2 e0 w1 w2\n",  # its other key is not in the quorum
    ],
)
def test_a5_two_keys_of_one_witness_that_count_once(groups: str) -> None:
    assert Policy.parse(f"{BOTH}{groups}group q all log-pq w\nquorum q\n")


def test_a5_one_witness_under_two_names_is_not_composed() -> None:
    keys = [("a", [ED[0]], None), ("b", [KEYS[0]], None), ("c", [KEYS[1]], None)]
    with pytest.raises(FormatError, match="counts twice"):
        Policy.compose(LOG, LOG_PQ, keys, 2)
