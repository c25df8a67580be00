# SPDX-License-Identifier: Apache-2.0
"""The two profiles and everything that is fixed by them (DESIGN §3).

The algorithm belongs to the key, never to the message: nothing in an envelope names one, so nothing in an envelope can
change one. A profile is recognised by the first bytes of its two SPKI blocks, which are DER constants, because curve
and parameter set fix every length in them. An SPKI with a compressed point, another curve or another parameter set
begins differently and is not of any profile.

=========  ======================  ===========
profile    EC half                 PQ half
=========  ======================  ===========
level 5    ECDSA P-384 / SHA-384   ML-DSA-87
level 3    ECDSA P-256 / SHA-256   ML-DSA-65
=========  ======================  ===========
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

from pq_registry.errors import FormatError

Half = Literal["ec", "pq"]
"""The two signing halves of an identity."""
HALVES: Final[tuple[Half, Half]] = ("ec", "pq")
"""The order of the halves wherever both occur."""


@dataclass(frozen=True, slots=True)
class HalfSuite:
    """One half of a profile: its algorithm and the exact shape of its public key and signature.

    ``signature_bytes`` is the exact length of an ML-DSA signature and the longest of an ECDSA one (DER varies).
    """

    algorithm: str
    parameters: str
    hash_name: str | None
    spki_prefix: bytes
    key_bytes: int
    signature_bytes: int

    @property
    def spki_bytes(self) -> int:
        """Length of the whole SPKI."""
        return len(self.spki_prefix) + self.key_bytes

    def fits(self, spki: bytes) -> bool:
        """Whether ``spki`` has the one form this half's public keys are written in."""
        return len(spki) == self.spki_bytes and spki.startswith(self.spki_prefix)


# The EC prefixes end in 0x04: an uncompressed point, the only form that is accepted.
_P256: Final = HalfSuite(
    "ECDSA P-256/SHA-256", "secp256r1", "sha256",
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"), 64, 72,
)  # fmt: skip
_P384: Final = HalfSuite(
    "ECDSA P-384/SHA-384", "secp384r1", "sha384",
    bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"), 96, 104,
)  # fmt: skip
_MLDSA65: Final = HalfSuite(
    "ML-DSA-65", "ML-DSA-65", None, bytes.fromhex("308207b2300b0609608648016503040312038207a100"), 1952, 3309
)
_MLDSA87: Final = HalfSuite(
    "ML-DSA-87", "ML-DSA-87", None, bytes.fromhex("30820a32300b060960864801650304031303820a2100"), 2592, 4627
)


class Profile(enum.IntEnum):
    """A pair of algorithms; comparing profiles compares their level (``min_profile`` of the trust file)."""

    LEVEL_3 = 3
    LEVEL_5 = 5

    @property
    def level(self) -> int:
        """3 or 5."""
        return int(self)

    @property
    def ec(self) -> HalfSuite:
        """The elliptic-curve half."""
        return _P384 if self is Profile.LEVEL_5 else _P256

    @property
    def pq(self) -> HalfSuite:
        """The post-quantum half."""
        return _MLDSA87 if self is Profile.LEVEL_5 else _MLDSA65

    def half(self, half: Half) -> HalfSuite:
        """The half by its name."""
        return self.ec if half == "ec" else self.pq

    @property
    def description(self) -> str:
        """The profile in words, e.g. for ``pqreg key show``."""
        return f"level {self.level}: {self.ec.algorithm} and {self.pq.algorithm}"


DEFAULT_PROFILE: Final = Profile.LEVEL_5


def profile_of(level: int) -> Profile:
    """The profile of a level.

    Raises:
        FormatError: if there is no such level (true and false are none).
    """
    for profile in Profile:
        if not isinstance(level, bool) and level == profile.level:
            return profile
    raise FormatError("no such profile", expected="5 or 3", found=repr(level)[:40])


def profile_of_keys(ec_spki: bytes, pq_spki: bytes) -> Profile:
    """The profile two public keys belong to, recognised by the form of both.

    Raises:
        FormatError: if they are of no profile, or not both of the same.
    """
    for profile in Profile:
        if profile.ec.fits(ec_spki) and profile.pq.fits(pq_spki):
            return profile
    raise FormatError(
        "the two public keys are not an identity of any profile",
        expected=" or ".join(
            f"{profile.ec.algorithm} (uncompressed point) first and {profile.pq.algorithm} second"
            for profile in reversed(Profile)
        ),
        found=f"{_name('ec', ec_spki)} and {_name('pq', pq_spki)}",
    )


def _name(half: Half, spki: bytes) -> str:
    for profile in Profile:
        suite = profile.half(half)
        if suite.fits(spki):
            return suite.algorithm
    return "something else"
