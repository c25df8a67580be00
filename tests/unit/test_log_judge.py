# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints a policy accepts, and what time they attest."""

from __future__ import annotations

import dataclasses

import pytest

from pq_registry.errors import CheckpointInvalid, FormatError, QuorumNotMet
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.note import Note, NoteKeyType, SignatureLine
from pq_registry.log.judge import judge
from tests.logsamples import ORIGIN, TIME, MemoryLog, compose_policy, log_signers, resigned, signer, witness_signers

CHECKPOINT = Checkpoint(ORIGIN, 7, bytes(range(32)))


def note(*keys_and_times) -> bytes:
    """CHECKPOINT signed by the log at TIME, and by others at other times."""
    lines = [key.sign(CHECKPOINT, TIME) for key in log_signers()]
    lines += [key.sign(CHECKPOINT, time) for key, time in keys_and_times]
    return Note(CHECKPOINT.encode(), tuple(lines)).encode()


def cosigned(number: int, ed25519: int = TIME, mldsa: int = TIME) -> list:
    """Both keys of a witness, and when each signed."""
    return list(zip(witness_signers(number), (ed25519, mldsa), strict=True))


def test_the_log_alone():
    signed = note()
    judged = judge(signed, compose_policy())
    assert (judged.checkpoint, judged.note) == (CHECKPOINT, signed)
    assert (judged.attested, judged.log_time, judged.cosigners) == (None, TIME, frozenset())


def test_the_attested_time_is_the_largest_of_the_witnesses_and_never_the_log_s():
    signed = note(*cosigned(1, TIME - 10, TIME - 9), *cosigned(2, TIME - 3, TIME - 8))
    judged = judge(signed, compose_policy(witnesses=2))
    assert (judged.attested, judged.log_time) == (TIME - 3, TIME)
    assert judged.cosigners == {"witness1.example", "witness2.example"}


def test_a_quorum_of_one_of_two():
    judged = judge(note(*cosigned(2)), compose_policy(witnesses=2, quorum=1))
    assert judged.cosigners == {"witness2.example"}


@pytest.mark.parametrize(
    "lines",
    [[], cosigned(1), cosigned(1)[:1] + cosigned(2), cosigned(1)[1:] + cosigned(2), cosigned(3) + cosigned(1)],
    ids=["none", "one", "one without ML-DSA", "one without Ed25519", "a stranger"],
)
def test_too_few_cosignatures(lines):
    with pytest.raises(QuorumNotMet):
        judge(note(*lines), compose_policy(witnesses=2))


def test_the_log_s_own_post_quantum_line_is_part_of_every_quorum():
    signed = note(*cosigned(1))
    parsed = Note.parse(signed)
    mldsa = log_signers()[1].key
    without = [line for line in parsed.signatures if line.key_id != mldsa.key_id]
    with pytest.raises(QuorumNotMet):
        judge(Note(parsed.text, tuple(without)).encode(), compose_policy(witnesses=1))


def test_without_the_log_s_ed25519_line():
    parsed = Note.parse(note(*cosigned(1)))
    ed25519 = log_signers()[0].key
    without = [line for line in parsed.signatures if line.key_id != ed25519.key_id]
    with pytest.raises(CheckpointInvalid):
        judge(Note(parsed.text, tuple(without)).encode(), compose_policy(witnesses=1))


@pytest.mark.parametrize("position", range(6))
def test_a_known_key_with_a_wrong_signature_refuses_the_whole_note(position):
    """Also where the quorum, one of two, would be met without it."""
    parsed = Note.parse(note(*cosigned(1), *cosigned(2)))
    lines = list(parsed.signatures)
    wrong = bytearray(lines[position].signature)
    wrong[-1] ^= 1
    lines[position] = dataclasses.replace(lines[position], signature=bytes(wrong))
    with pytest.raises(CheckpointInvalid):
        judge(Note(parsed.text, tuple(lines)).encode(), compose_policy(witnesses=2, quorum=1))


def test_a_wrong_line_beside_a_right_one_of_the_same_key():
    parsed = Note.parse(note(*cosigned(1)))
    wrong = dataclasses.replace(parsed.signatures[2], signature=bytes(72))
    with pytest.raises(CheckpointInvalid):
        judge(Note(parsed.text, (*parsed.signatures, wrong)).encode(), compose_policy(witnesses=1))


def test_lines_of_unknown_keys_are_ignored_whatever_they_hold():
    unknown = SignatureLine("stranger.example", b"\1\2\3\4", b"nothing")
    same_name = SignatureLine(ORIGIN, b"\1\2\3\4", b"nothing")
    signed = resigned(note(*cosigned(1)), add=(unknown, same_name))
    assert judge(signed, compose_policy(witnesses=1)).cosigners == {"witness1.example"}


def test_a_known_id_under_another_name_is_unknown():
    line = dataclasses.replace(Note.parse(note(*cosigned(1))).signatures[2], name="other.example")
    with pytest.raises(QuorumNotMet):
        judge(resigned(note(*cosigned(1)), drop=["witness1.example"], add=(line,)), compose_policy(witnesses=1))


def test_the_time_is_signed():
    """A cosignature moved to another time is a wrong signature, of either type."""
    for number in (2, 3):
        parsed = Note.parse(note(*cosigned(1)))
        lines = list(parsed.signatures)
        lines[number] = dataclasses.replace(
            lines[number], signature=(TIME - 999).to_bytes(8) + lines[number].signature[8:]
        )
        with pytest.raises(CheckpointInvalid):
            judge(Note(parsed.text, tuple(lines)).encode(), compose_policy(witnesses=1))


def test_the_time_zero_attests_nothing():
    parsed = Note.parse(note(*cosigned(1)))
    lines = list(parsed.signatures)
    lines[3] = dataclasses.replace(lines[3], signature=bytes(8) + lines[3].signature[8:])
    with pytest.raises(CheckpointInvalid):
        judge(Note(parsed.text, tuple(lines)).encode(), compose_policy(witnesses=1))


def test_another_log_s_checkpoint():
    other = MemoryLog("other.example/log")
    with pytest.raises(CheckpointInvalid):
        judge(other.publish(), compose_policy())


def test_the_log_s_own_keys_over_another_origin():
    """Genuine lines of the right keys, over a text that claims to be another log's."""
    other = dataclasses.replace(CHECKPOINT, origin="other.example/log")
    lines = tuple(key.sign(other, TIME) for key in log_signers())
    with pytest.raises(CheckpointInvalid):
        judge(Note(other.encode(), lines).encode(), compose_policy())


def test_the_same_origin_under_other_keys():
    key = signer("stranger.example", NoteKeyType.ED25519)
    parsed = Note.parse(note())
    line = dataclasses.replace(key.sign(CHECKPOINT, TIME), name=ORIGIN)
    with pytest.raises(CheckpointInvalid):
        judge(Note(parsed.text, (line, parsed.signatures[1])).encode(), compose_policy())


@pytest.mark.parametrize(
    "text",
    [
        CHECKPOINT.encode() + b"an extension\n",
        CHECKPOINT.encode().replace(b"\n7\n", b"\n07\n"),
        CHECKPOINT.encode().replace(b"\n7\n", b"\n8\n"),
        CHECKPOINT.encode().replace(b"AAEC", b"AAED"),
        CHECKPOINT.encode().replace(ORIGIN.encode(), b"other.example/log"),
    ],
    ids=["extension", "size written otherwise", "other size", "other root", "other origin"],
)
def test_another_text_under_the_same_lines(text):
    parsed = Note.parse(note())
    with pytest.raises((CheckpointInvalid, FormatError)):
        judge(Note(text, parsed.signatures).encode(), compose_policy())


def test_junk():
    for data in (b"", b"\n\n", b"junk", note()[:-1], note() + b"\n", note()[1:]):
        with pytest.raises((FormatError, CheckpointInvalid)):
            judge(data, compose_policy())
