# SPDX-License-Identifier: Apache-2.0
"""SLH-DSA-SHA2-192s and -256s (FIPS 205): the additional signature on trust files.

Its security rests on SHA-2 alone, so a trust file that an organisation hands to its sites stays believable even if
lattices and elliptic curves both fall. Always pure SLH-DSA with an empty context; domain separation is the payload
type of DSSE's pre-authentication encoding. Signing takes seconds and is hedged.

OpenSSL's Python package has no SLH-DSA. It is taken from liboqs, where that has it (0.16 and later); beside a liboqs
that only has round 3's SPHINCS+, which is another algorithm, ``make liboqs`` puts ``libpqreg_slhdsa`` (deploy/liboqs).

============  ==================  ==========  ==========  =========
level         algorithm           public key  secret key  signature
============  ==================  ==========  ==========  =========
3             SLH-DSA-SHA2-192s   48          96          16224
5             SLH-DSA-SHA2-256s   64          128         29792
============  ==================  ==========  ==========  =========
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from pq_registry import limits
from pq_registry.crypto import liboqs, oqslibrary
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import Profile
from pq_registry.errors import FormatError, ProviderUnavailable, SignatureInvalid

_BEGIN: Final = b"-----BEGIN PUBLIC KEY-----\n"
_END: Final = b"-----END PUBLIC KEY-----\n"
_BLOCK: Final = re.compile(re.escape(_BEGIN) + rb"([A-Za-z0-9+/=\n]+)" + re.escape(_END))
_OWN_LIBRARY: Final = ("libpqreg_slhdsa.so", "libpqreg_slhdsa.dylib")


@dataclass(frozen=True, slots=True)
class SlhSuite:
    """One parameter set: names, the DER in front of its public key (RFC 9909), and its lengths in bytes."""

    algorithm: str
    oqs_name: str
    spki_prefix: bytes
    public_bytes: int
    secret_bytes: int
    signature_bytes: int


SUITES: Final[dict[Profile, SlhSuite]] = {
    Profile.LEVEL_3: SlhSuite(
        "SLH-DSA-SHA2-192s", "SLH_DSA_PURE_SHA2_192S",
        bytes.fromhex("3040300b0609608648016503040316033100"), 48, 96, 16224,
    ),
    Profile.LEVEL_5: SlhSuite(
        "SLH-DSA-SHA2-256s", "SLH_DSA_PURE_SHA2_256S",
        bytes.fromhex("3050300b0609608648016503040318034100"), 64, 128, 29792,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SlhPublic:
    """A public key; its file (``.pqpub``) is one PEM block."""

    profile: Profile
    key: bytes

    def __post_init__(self) -> None:
        """Check the length.

        Raises:
            FormatError: if it is not that of the profile.
        """
        if len(self.key) != self.suite.public_bytes:
            raise FormatError("not an SLH-DSA public key", expected=f"{self.suite.public_bytes} bytes",
                              found=f"{len(self.key)} bytes")  # fmt: skip

    @property
    def suite(self) -> SlhSuite:
        """Its parameter set."""
        return SUITES[self.profile]

    @property
    def spki(self) -> bytes:
        """The key as DER SubjectPublicKeyInfo."""
        return self.suite.spki_prefix + self.key

    @property
    def id(self) -> str:
        """Hex SHA-256 of the SPKI."""
        return hashlib.sha256(self.spki).hexdigest()

    def to_pem(self) -> bytes:
        """The public file."""
        text = base64.b64encode(self.spki)
        lines = b"".join(text[start : start + 64] + b"\n" for start in range(0, len(text), 64))
        return _BEGIN + lines + _END

    @classmethod
    def from_pem(cls, data: bytes) -> SlhPublic:
        """Read a public file: exactly what ``to_pem`` writes.

        Raises:
            FormatError: if it is anything else.
        """
        match = _BLOCK.fullmatch(data) if len(data) <= limits.IDENTITY_FILE_BYTES else None
        if match is not None:
            try:
                spki = base64.b64decode(match[1].replace(b"\n", b""), validate=True)
            except ValueError:
                spki = b""
            for profile, suite in SUITES.items():
                if spki.startswith(suite.spki_prefix) and len(spki) == len(suite.spki_prefix) + suite.public_bytes:
                    public = cls(profile, spki.removeprefix(suite.spki_prefix))
                    if public.to_pem() == data:
                        return public
        raise FormatError(
            "not an SLH-DSA public file",
            expected="one PEM block PUBLIC KEY of SLH-DSA-SHA2-192s or -256s",
            hint="one is made with: pqreg key generate NAME --slh",
        )

    def verify(self, message: bytes, signature: bytes) -> None:
        """Verify ``signature`` over ``message``.

        Raises:
            SignatureInvalid: unless it is valid.
            ProviderUnavailable: if no library with SLH-DSA is installed.
        """
        if len(signature) != self.suite.signature_bytes:
            raise _invalid(self.suite, f"a signature of {len(signature)} bytes")
        backend = _backend(liboqs.installed(), self.profile)
        try:
            answer: object = backend.verify(message, signature, self.key)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _invalid(self.suite, f"the library failed: {type(error).__name__}") from error
        if answer is not True:
            raise _invalid(self.suite, "one that does not verify")


class SlhSecret:
    """A secret key. Shows its id and nothing else, and cannot be pickled."""

    __slots__ = ("_key", "public")

    public: SlhPublic

    def __init__(self, public: SlhPublic, key: SecretBytes) -> None:
        """Take the two halves of a key pair.

        Raises:
            FormatError: if they do not belong together.
        """
        # FIPS 205: the secret key ends in the public key.
        if len(key) != public.suite.secret_bytes or key[len(key) - len(public.key) :] != public.key:
            raise FormatError("not an SLH-DSA secret key of this public key")
        self.public = public
        self._key = SecretBytes(key)

    @classmethod
    def generate(cls, profile: Profile) -> SlhSecret:
        """A fresh key pair.

        Raises:
            ProviderUnavailable: if no library with SLH-DSA is installed.
        """
        public, secret = _backend(liboqs.installed(), profile).generate()
        with secret:
            return cls(SlhPublic(profile, public), secret)

    @classmethod
    def from_bytes(cls, profile: Profile, key: SecretBytes) -> SlhSecret:
        """The key pair in a secret key of FIPS 205.

        Raises:
            FormatError: if its length is wrong.
        """
        suite = SUITES[profile]
        if len(key) != suite.secret_bytes:
            raise FormatError("not an SLH-DSA secret key", expected=f"{suite.secret_bytes} bytes",
                              found=f"{len(key)} bytes")  # fmt: skip
        return cls(SlhPublic(profile, bytes(key[-suite.public_bytes :])), key)

    def secret(self) -> SecretBytes:
        """What is written to a key file; the caller wipes it."""
        return SecretBytes(self._key)

    def sign(self, message: bytes) -> bytes:
        """Sign ``message``; verified before it is returned, because a faulty hash-based signature leaks the key.

        Raises:
            ProviderUnavailable: if no library with SLH-DSA is installed, or it cannot sign.
            SignatureInvalid: if what it made does not verify.
        """
        signature = _backend(liboqs.installed(), self.public.profile).sign(message, self._key)
        self.public.verify(message, signature)
        return signature

    def __repr__(self) -> str:
        public = getattr(self, "public", None)
        return f"<SlhSecret {public.id if public else 'in the making'}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret key is neither pickled nor copied")


class _Backend(Protocol):
    def generate(self) -> tuple[bytes, SecretBytes]: ...

    def sign(self, message: bytes, key: SecretBytes) -> bytes: ...

    def verify(self, message: bytes, signature: bytes, key: bytes) -> object: ...


class _Oqs:
    """SLH-DSA of liboqs 0.16 and later."""

    def __init__(self, oqs: Any, suite: SlhSuite) -> None:
        self._oqs = oqs
        self._name = suite.oqs_name

    def generate(self) -> tuple[bytes, SecretBytes]:
        with self._oqs.Signature(self._name) as made:
            return bytes(made.generate_keypair()), SecretBytes(made.export_secret_key())

    def sign(self, message: bytes, key: SecretBytes) -> bytes:
        with self._oqs.Signature(self._name, bytes(key)) as signer:
            return bytes(signer.sign(message))

    def verify(self, message: bytes, signature: bytes, key: bytes) -> object:
        with self._oqs.Signature(self._name) as verifier:
            return verifier.verify(message, signature, key)


class _Own:
    """SLH-DSA of libpqreg_slhdsa. ctypes releases the interpreter lock while a function runs."""

    def __init__(self, library: ctypes.CDLL, profile: Profile) -> None:
        self._library = library
        self._level = ctypes.c_uint32(profile.level)
        self._suite = SUITES[profile]

    def generate(self) -> tuple[bytes, SecretBytes]:
        public = ctypes.create_string_buffer(self._suite.public_bytes)
        secret = SecretBytes(self._suite.secret_bytes)
        view = (ctypes.c_char * len(secret)).from_buffer(secret)
        _done(self._library.pqreg_slhdsa_keypair(self._level, public, view), "make a key")
        return public.raw, secret

    def sign(self, message: bytes, key: SecretBytes) -> bytes:
        signature = ctypes.create_string_buffer(self._suite.signature_bytes)
        view = (ctypes.c_char * len(key)).from_buffer(key)
        length = ctypes.c_size_t(len(message))
        _done(self._library.pqreg_slhdsa_sign(self._level, message, length, view, signature), "sign")
        return signature.raw

    def verify(self, message: bytes, signature: bytes, key: bytes) -> object:
        lengths = ctypes.c_size_t(len(message)), ctypes.c_size_t(len(signature))
        answer = self._library.pqreg_slhdsa_verify(self._level, message, lengths[0], signature, lengths[1], key)
        return bool(answer == 0)


@cache
def _backend(library: Path, profile: Profile) -> _Backend:
    suite = SUITES[profile]
    oqs: Any = liboqs.load(library)
    if suite.oqs_name in oqs.get_enabled_sig_mechanisms():
        return _Oqs(oqs, suite)
    for name in _OWN_LIBRARY:
        path = library.parent / name
        if path.is_file():
            try:
                return _Own(ctypes.CDLL(str(oqslibrary.owned(path))), profile)
            except OSError as error:
                raise ProviderUnavailable(f"{path} cannot be loaded", found=error) from None
    raise ProviderUnavailable(
        f"{library} has no {suite.algorithm}",
        expected="liboqs 0.16 or later, or libpqreg_slhdsa beside it",
        found=f"liboqs {oqs.oqs_version()}",
        hint="make liboqs builds both",
    )


def _done(answer: int, what: str) -> None:
    if answer != 0:
        raise ProviderUnavailable(f"libpqreg_slhdsa could not {what}", found=f"status {answer}")


def _invalid(suite: SlhSuite, found: str) -> SignatureInvalid:
    return SignatureInvalid("the SLH-DSA signature is invalid", expected=f"a valid {suite.algorithm} signature",
                            found=found)  # fmt: skip
