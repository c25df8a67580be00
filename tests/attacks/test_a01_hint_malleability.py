# SPDX-License-Identifier: Apache-2.0
"""A1, hint malleability (CVE-2026-24850): a signature whose hint is encoded in any other way than the one is refused.

A signature ends in the hint (FIPS 204, algorithms 20 and 21): omega bytes of positions, ascending within each
polynomial and zero after the last, then k bytes of cumulative counts. A decoder that accepts a repeated position
(``<=`` for ``<``), another order, or bytes after the last position lets anybody make further valid signatures of one.
So the attacks here keep the hint's *meaning*: ``tolerant`` decodes the original and the altered hint to the same set,
and the encoding is the only reason to refuse. It is tried on the verifier of every provider that is installed and
through the whole envelope.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pq_registry.crypto.signing import sign_envelope, verify_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.errors import SignatureInvalid
from pq_registry.format.dsse import Envelope
from pqreg_keys import custody
from tests.oqs_site import providers

OMEGA = {Profile.LEVEL_3: 55, Profile.LEVEL_5: 75}
POLYNOMIALS = {Profile.LEVEL_3: 6, Profile.LEVEL_5: 8}
SIGNERS = {profile: custody.generate(profile) for profile in Profile}
MESSAGE = b"a statement"
PROVIDERS = providers()

Hint = list[list[int]]
Attack = Callable[[bytearray, int, int], bytearray | None]


def hint_of(section: bytes | bytearray, omega: int, k: int) -> Hint:
    """The positions of each polynomial, as written."""
    ends = list(section[omega : omega + k])
    return [list(section[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def tolerant(section: bytes | bytearray, omega: int, k: int) -> list[set[int]]:
    """What a decoder without the checks of algorithm 21 makes of it."""
    return [set(positions) for positions in hint_of(section, omega, k)]


def written(hint: Hint, omega: int) -> bytearray:
    flat = [position for positions in hint for position in positions]
    ends = [sum(len(positions) for positions in hint[: i + 1]) for i in range(len(hint))]
    return bytearray(flat + [0] * (omega - len(flat)) + ends)


def repeated_position(section: bytearray, omega: int, k: int) -> bytearray | None:
    hint = hint_of(section, omega, k)
    longest = max(hint, key=len)
    if not longest or sum(map(len, hint)) == omega:
        return None
    longest.insert(1, longest[0])
    return written(hint, omega)


def repeated_last_position(section: bytearray, omega: int, k: int) -> bytearray | None:
    hint = hint_of(section, omega, k)
    longest = max(hint, key=len)
    if not longest or sum(map(len, hint)) == omega:
        return None
    longest.append(longest[-1])
    return written(hint, omega)


def swapped_positions(section: bytearray, omega: int, k: int) -> bytearray | None:
    hint = hint_of(section, omega, k)
    longest = max(hint, key=len)
    if len(longest) < 2:
        return None
    longest[0], longest[1] = longest[1], longest[0]
    return written(hint, omega)


def descending_positions(section: bytearray, omega: int, k: int) -> bytearray | None:
    hint = [list(reversed(positions)) for positions in hint_of(section, omega, k)]
    return written(hint, omega) if any(len(positions) > 1 for positions in hint) else None


def nonzero_first_padding(section: bytearray, omega: int, k: int) -> bytearray | None:
    used = section[omega + k - 1]
    if used == omega:
        return None
    section[used] = 1
    return section


def nonzero_last_padding(section: bytearray, omega: int, k: int) -> bytearray | None:
    if section[omega + k - 1] == omega:
        return None
    section[omega - 1] = 255
    return section


SAME_MEANING: list[Attack] = [
    repeated_position,
    repeated_last_position,
    swapped_positions,
    descending_positions,
    nonzero_first_padding,
    nonzero_last_padding,
]


def split(profile: Profile, signature: bytes) -> tuple[bytes, bytearray]:
    size = OMEGA[profile] + POLYNOMIALS[profile]
    return signature[:-size], bytearray(signature[-size:])


def attacked(profile: Profile, attack: Attack) -> tuple[bytes, bytes]:
    """A genuine signature that offers room for ``attack``, and the altered one."""
    for _ in range(200):
        genuine = SIGNERS[profile].sign(MESSAGE)[1]
        rest, section = split(profile, genuine)
        altered = attack(bytearray(section), OMEGA[profile], POLYNOMIALS[profile])
        if altered is not None:
            return genuine, rest + bytes(altered)
    raise AssertionError("no signature with room for this attack")


def accepted(profile: Profile, signature: bytes) -> bool:
    """What every installed provider answers; they must agree."""
    answers: set[bool] = set()
    for provider in PROVIDERS:
        try:
            answers.add(provider.verify_mldsa(profile, SIGNERS[profile].identity.pq_spki, MESSAGE, signature))
        except SignatureInvalid:
            answers.add(False)
    (answer,) = answers
    return answer


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("attack", SAME_MEANING, ids=lambda attack: attack.__name__)
def test_a1_another_encoding_of_the_same_hint_is_refused(profile: Profile, attack: Attack) -> None:
    genuine, altered = attacked(profile, attack)
    sections = [split(profile, signature)[1] for signature in (genuine, altered)]
    assert sections[0] != sections[1]
    meanings = [tolerant(section, OMEGA[profile], POLYNOMIALS[profile]) for section in sections]
    assert meanings[0] == meanings[1], "the attack must keep the meaning, or it shows nothing"
    assert accepted(profile, genuine)
    assert not accepted(profile, altered)


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("index", [0, -1])
@pytest.mark.parametrize("excess", [1, 100, None])
def test_a1_counts_above_omega_are_refused(profile: Profile, index: int, excess: int | None) -> None:
    genuine = SIGNERS[profile].sign(MESSAGE)[1]
    rest, section = split(profile, genuine)
    counts = range(OMEGA[profile], OMEGA[profile] + POLYNOMIALS[profile])
    section[counts[index]] = 255 if excess is None else OMEGA[profile] + excess
    assert not accepted(profile, rest + bytes(section))


@pytest.mark.parametrize("profile", list(Profile))
def test_a1_counts_that_fall_are_refused(profile: Profile) -> None:
    genuine = SIGNERS[profile].sign(MESSAGE)[1]
    rest, section = split(profile, genuine)
    omega = OMEGA[profile]
    section[omega] = section[omega + POLYNOMIALS[profile] - 1] + 1
    assert not accepted(profile, rest + bytes(section))


@pytest.mark.parametrize("profile", list(Profile))
def test_a1_every_bit_of_the_hint_counts(profile: Profile) -> None:
    genuine = SIGNERS[profile].sign(MESSAGE)[1]
    rest, section = split(profile, genuine)
    for position in range(len(section)):
        altered = bytearray(section)
        altered[position] ^= 1
        assert not accepted(profile, rest + bytes(altered)), position


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("change", [-1, 1, 32, -4000])
def test_a1_other_lengths_are_refused(profile: Profile, change: int) -> None:
    genuine = SIGNERS[profile].sign(MESSAGE)[1]
    altered = genuine[:change] if change < 0 else genuine + bytes(change)
    assert not accepted(profile, altered)


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("attack", SAME_MEANING, ids=lambda attack: attack.__name__)
def test_a1_the_envelope_falls_with_its_post_quantum_half(profile: Profile, attack: Attack) -> None:
    signer = SIGNERS[profile]
    for _ in range(200):
        envelope = sign_envelope(b"{}", signer)
        rest, section = split(profile, envelope.pq_signature)
        altered = attack(section, OMEGA[profile], POLYNOMIALS[profile])
        if altered is not None:
            break
    else:
        raise AssertionError("no signature with room for this attack")
    verify_envelope(envelope, signer.identity)
    with pytest.raises(SignatureInvalid, match="the post-quantum half"):
        verify_envelope(Envelope(b"{}", envelope.ec_signature, rest + bytes(altered)), signer.identity)
