# SPDX-License-Identifier: Apache-2.0
"""Log policies: the text of C2SP tlog-policy, quorums, and the rules by which a policy loads here."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.note import NoteKeyType, VerifierKey
from pq_registry.format.tlogpolicy import LOG_PQ, LogPolicy, Policy
from tests.note_samples import ORIGIN, log_signers, note_signer, witness_signers
from tests.samples import NOW

LOG, LOG_MLDSA = (signer.key for signer in log_signers())
A_ED, A_PQ = (signer.key for signer in witness_signers("a.example"))
B_ED, B_PQ = (signer.key for signer in witness_signers("b.example"))
C_ED, C_PQ = (signer.key for signer in witness_signers("c.example"))
HEAD = f"log {LOG} https://log.example\nwitness log-pq {LOG_MLDSA}\n"
A = f"witness a-ed {A_ED}\nwitness a-pq {A_PQ} https://a.example\n"
B = f"witness b-ed {B_ED}\nwitness b-pq {B_PQ}\n"
PAIRS = HEAD + A + B + "group a all a-ed a-pq\ngroup b all b-ed b-pq\n"


def test_a_policy_is_read() -> None:
    policy = Policy.parse(PAIRS + "group w any a b\ngroup q all log-pq w\nquorum q\n")
    assert (policy.log, policy.log_pq, policy.origin, policy.log_url) == (LOG, LOG_MLDSA, ORIGIN, "https://log.example")
    assert set(policy.witnesses) == {LOG_PQ, "a-ed", "a-pq", "b-ed", "b-pq"}
    assert policy.witnesses["a-pq"].url == "https://a.example"
    assert policy.witnesses["b-pq"].url is None
    assert policy.attesting == {"a-ed", "a-pq", "b-ed", "b-pq"}


def test_quorums_are_counted_as_written() -> None:
    policy = Policy.parse(PAIRS + "group w any a b\ngroup q all log-pq w\nquorum q\n")
    names = sorted(policy.witnesses)
    for chosen in itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(len(names) + 1)):
        have = set(chosen)
        expected = LOG_PQ in have and ({"a-ed", "a-pq"} <= have or {"b-ed", "b-pq"} <= have)
        assert policy.satisfied(have) is expected, have
        assert policy.satisfied(have | {"stranger", "q", "w"}) is expected, have


def test_a_log_without_witnesses() -> None:
    policy = Policy.parse(HEAD + "quorum log-pq\n")
    assert policy.satisfied({LOG_PQ})
    assert not policy.satisfied(set())
    assert policy.attesting == frozenset()


def test_a_witness_outside_the_quorum_attests_nothing() -> None:
    assert Policy.parse(HEAD + A + "quorum log-pq\n").attesting == frozenset()


def test_white_space_comments_and_empty_lines_say_nothing() -> None:
    text = f"# ours\n\n \t \n\tlog\t{LOG}  \n  # more\nwitness  log-pq\t{LOG_MLDSA}\nquorum log-pq\n"
    assert Policy.parse(text).satisfied({LOG_PQ})


def test_names_are_octets() -> None:
    text = HEAD + f"witness K {A_PQ}\nwitness \u212a {B_PQ}\ngroup q all log-pq K \u212a\nquorum q\n"
    policy = Policy.parse(text)
    assert not policy.satisfied({LOG_PQ, "K"})
    assert policy.satisfied({LOG_PQ, "K", "\u212a"})


NO_POLICIES = [
    "",
    "\n",
    HEAD,
    HEAD + "quorum log-pq",
    HEAD + "quorum log-pq\r\n",
    HEAD + "quorum log-pq\x00\n",
    HEAD + "quorum\n",
    HEAD + "quorum log-pq log-pq\n",
    HEAD + "quorum log-pq\nquorum log-pq\n",
    HEAD + "quorum nobody\n",
    HEAD + "quorum none\n",
    HEAD + "Quorum log-pq\n",
    HEAD + "mirror log-pq\nquorum log-pq\n",
    "quorum log-pq\n" + HEAD,
    f"witness log-pq {LOG_MLDSA}\nquorum log-pq\n",
    f"log {LOG}\nquorum log-pq\n",
    f"log {LOG_MLDSA}\nwitness log-pq {LOG_MLDSA}\nquorum log-pq\n",
    f"log {A_ED}\nwitness log-pq {LOG_MLDSA}\nquorum log-pq\n",
    HEAD + f"log {note_signer('other.example', NoteKeyType.ED25519).key}\nquorum log-pq\n",
    HEAD + f"witness a {LOG}\ngroup q all log-pq a\nquorum q\n",
    HEAD + f"witness log-pq {A_PQ}\nquorum log-pq\n",
    HEAD + f"witness none {A_PQ}\nquorum log-pq\n",
    HEAD + f"witness a {A_PQ}\nwitness b {A_PQ}\ngroup q all log-pq a b\nquorum q\n",
    HEAD + f"witness a {str(A_PQ).replace('a.example', 'b.example')}\nquorum log-pq\n",
    HEAD + A + "group none all a-ed\nquorum log-pq\n",
    HEAD + A + "group log-pq all a-ed\nquorum log-pq\n",
    HEAD + A + "group q all log-pq\nquorum none\n",
    HEAD + A + "group g all g log-pq\nquorum g\n",
    HEAD + A + "group g all h log-pq\ngroup h all a-pq\nquorum g\n",
    HEAD + A + "group g all\nquorum log-pq\n",
    HEAD + A + "group g all a-pq a-pq log-pq\nquorum g\n",
    HEAD + A + "group g all a-pq log-pq\ngroup h all a-pq\nquorum g\n",
    HEAD + A + "group g ALL a-pq log-pq\nquorum g\n",
]


@pytest.mark.parametrize("text", NO_POLICIES, ids=range(len(NO_POLICIES)))
def test_other_texts_are_no_policy(text: str) -> None:
    with pytest.raises(FormatError):
        Policy.parse(text)


@pytest.mark.parametrize(
    "rule",
    [
        "quorum a-pq\n",
        "group q any log-pq a-pq\nquorum q\n",
        "group q all log-pq a-ed\nquorum q\n",
        "group q 2 log-pq a-ed a-pq\nquorum q\n",
        "group w any a-ed a-pq\ngroup q all log-pq w\nquorum q\n",
        "group w 1 a-ed a-pq\ngroup q all log-pq w\nquorum q\n",
    ],
)
def test_a_policy_that_ed25519_alone_could_meet_does_not_load(rule: str) -> None:
    assert Policy.parse(HEAD + A + "group q all log-pq a-ed a-pq\nquorum q\n")
    with pytest.raises(FormatError, match="log policy"):
        Policy.parse(HEAD + A + rule)


def test_the_logs_second_key_is_the_logs() -> None:
    other = note_signer("other.example", NoteKeyType.MLDSA44_COSIGNATURE).key
    classical = note_signer(ORIGIN, NoteKeyType.ED25519_COSIGNATURE).key
    for key in (other, classical):
        with pytest.raises(FormatError, match="post-quantum"):
            Policy.parse(f"log {LOG}\nwitness log-pq {key}\nquorum log-pq\n")


def test_the_log_is_not_its_own_witness() -> None:
    again = note_signer(ORIGIN, NoteKeyType.MLDSA44_COSIGNATURE, 1).key
    with pytest.raises(FormatError, match="is the log"):
        Policy.parse(HEAD + f"witness friend {again}\ngroup q all log-pq friend\nquorum q\n")


def test_a_composed_policy_is_what_it_says() -> None:
    witnesses = [("a", [A_ED, A_PQ], "https://a.example"), ("b", [B_PQ], None), ("c", [C_ED, C_PQ], None)]
    policy = Policy.compose(LOG, LOG_MLDSA, witnesses, 2, log_url="https://log.example")
    assert Policy.parse(policy.text) == policy
    assert policy.log_url == "https://log.example"
    assert policy.satisfied({LOG_PQ, "a-ed25519", "a-pq", "b"})
    assert not policy.satisfied({LOG_PQ, "a-ed25519", "a-pq", "c-pq"})
    assert not policy.satisfied({"a-ed25519", "a-pq", "b", "c-ed25519", "c-pq"})
    assert Policy.compose(LOG, LOG_MLDSA, [], 0).text == f"log {LOG}\nwitness log-pq {LOG_MLDSA}\nquorum log-pq\n"


def test_a_composed_policy_obeys_the_rules() -> None:
    with pytest.raises(FormatError, match="Ed25519 alone"):
        Policy.compose(LOG, LOG_MLDSA, [("a", [A_ED], None)], 1)
    with pytest.raises(FormatError, match="defined twice"):
        Policy.compose(LOG, LOG_MLDSA, [("a", [A_PQ], None), ("a", [B_PQ], None)], 1)
    with pytest.raises(FormatError):
        Policy.compose(LOG, LOG_MLDSA, [("a", [], None)], 1)
    with pytest.raises(FormatError):
        Policy.compose(LOG, LOG_MLDSA, [("a b", [A_PQ], None)], 1)
    with pytest.raises(FormatError):
        Policy.compose(LOG, LOG_MLDSA, [("a", [A_PQ], "https://a\nquorum a")], 1)


def many(count: int) -> str:
    keys = [
        VerifierKey(f"w{n}.example", NoteKeyType.MLDSA44_COSIGNATURE, n.to_bytes(1312, "big")) for n in range(count)
    ]
    names = " ".join(f"w{n}" for n in range(count))
    lines = "".join(f"witness w{n} {key}\n" for n, key in enumerate(keys))
    return HEAD + lines + f"group q all log-pq {names}\nquorum q\n"


@pytest.mark.parametrize(("change", "good"), [(-1, True), (0, True), (1, False)])
def test_the_number_of_names_is_bounded(change: int, good: bool) -> None:
    text = many(limits.POLICY_NAMES - 2 + change)  # log-pq and the group are names too
    if good:
        assert len(Policy.parse(text).attesting) == limits.POLICY_NAMES - 2 + change
    else:
        with pytest.raises(FormatError, match="too many"):
            Policy.parse(text)


@pytest.mark.parametrize("change", [-1, 0, 1])
def test_the_size_of_a_policy_is_bounded(change: int) -> None:
    tail = HEAD + "quorum log-pq\n"
    text = "#" * (limits.TLOG_POLICY_BYTES + change - len(tail) - 1) + "\n" + tail
    if change <= 0:
        assert Policy.parse(text).text == text
    else:
        with pytest.raises(FormatError):
            Policy.parse(text)


def test_windows_are_half_open_and_not_empty() -> None:
    policy = Policy.parse(HEAD + "quorum log-pq\n")
    end = NOW + timedelta(seconds=10)
    window = LogPolicy(policy, NOW, end)
    second = timedelta(seconds=1)
    assert [window.covers(t) for t in (NOW - second, NOW, end - second, end)] == [False, True, True, False]
    assert LogPolicy(policy).covers(NOW)
    with pytest.raises(FormatError):
        LogPolicy(policy, NOW, NOW)
    with pytest.raises(FormatError):
        LogPolicy(policy, NOW.replace(tzinfo=None), None)
