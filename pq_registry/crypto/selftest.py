# SPDX-License-Identifier: Apache-2.0
"""Known answers, asked once per process before anything is verified or signed.

What a broken build, a broken CPU feature or a library in the wrong place computes differently is refused here, before
it decides about anything: both signature algorithms of the default profile say yes to a genuine signature and no to an
altered one, the key schedule of sealing and AES-256-GCM give the published bytes and refuse altered ones, SHA-256 and
BLAKE3 give theirs. All through the code that is used afterwards. The answers (``selftest.json``) are a part of this
project's published vectors; the whole of them, and the official ones, run in the tests.

Another provider than OpenSSL is asked the same when it is loaded (``check_provider``).

``ensure`` costs some milliseconds the first time and nothing afterwards (docs/operations/performance.md). A failure is
not remembered as a success: the next call tests, and refuses, again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import HALVES, Half, Profile
from pq_registry.errors import SelfTestFailed, SignatureInvalid, UnsealFailed
from pq_registry.format.path import ReleasePath

_ANSWERS: Final = Path(__file__).with_name("selftest.json")
Answers = dict[str, Any]


@cache
def ensure() -> None:
    """Test what this process computes with, if that was not done yet.

    Raises:
        SelfTestFailed: if one answer differs.
    """
    answers = _answers()
    for name, test in TESTS.items():
        _ask(name, test, answers)


def check_provider(provider: Provider) -> None:
    """Ask another provider than the default one what it verifies, before it decides about anything.

    Raises:
        SelfTestFailed: unless it says yes to a genuine signature and no to an altered one, for both algorithms.
    """
    answers = _answers()
    for half in HALVES:
        name = f"{Profile.LEVEL_5.half(half).algorithm} of {provider.name}"
        _ask(name, partial(_signatures, half, provider=provider), answers)


def _answers() -> Answers:
    try:
        answers: Answers = json.loads(_ANSWERS.read_bytes())
    except (OSError, ValueError) as error:
        raise _failed("the file of answers", f"{type(error).__name__}") from error
    return answers


def _ask(name: str, test: Callable[[Answers], str | None], answers: Answers) -> None:
    try:
        differs = test(answers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a library that panics is as broken as one that errs
        raise _failed(name, f"{type(error).__name__}") from error
    if differs is not None:
        raise _failed(name, differs)


def _ecdsa(answers: Answers) -> str | None:
    return _signatures("ec", answers)


def _mldsa(answers: Answers) -> str | None:
    return _signatures("pq", answers)


def _signatures(half: Half, answers: Answers, *, provider: Provider = OPENSSL) -> str | None:
    spki, message, signature = (
        bytes.fromhex(answers[name]) for name in (f"{half}_spki", "message", f"{half}_signature")
    )
    verify = provider.verify_ec if half == "ec" else provider.verify_mldsa
    try:
        genuine: object = verify(Profile.LEVEL_5, spki, message, signature)
    except SignatureInvalid:
        genuine = False
    if genuine is not True:
        return "a genuine signature refused"
    try:
        verify(Profile.LEVEL_5, spki, message, _altered(signature))
    except SignatureInvalid:
        return None
    return "an altered signature accepted"


def _key_schedule(answers: Answers) -> str | None:
    from pq_registry.crypto.sealing import SealingKey

    answer = answers["schedule"]
    with SealingKey(SecretBytes.fromhex(answer["content_key"]), answer["release_id"]) as key:
        return _differs(key.commitment.hex(), answer["commitment"])


def _aes_gcm(answers: Answers) -> str | None:
    from pq_registry import limits
    from pq_registry.crypto.sealing import SealingKey

    answer = answers["sealed"]
    plaintext, stored = bytes.fromhex(answer["plaintext"]), bytes.fromhex(answer["stored"])
    with SealingKey(SecretBytes.fromhex(answer["content_key"]), answer["release_id"]) as key:
        sealer = key.file(ReleasePath(answer["path"]), len(plaintext))
        out, opened = bytearray(len(plaintext) + limits.SEAL_TAG_BYTES), bytearray(len(plaintext))
        sealer.seal_into(0, plaintext, out)
        sealer.unseal_into(0, stored, opened)
        if (differs := _differs(out.hex(), stored.hex()) or _differs(opened.hex(), plaintext.hex())) is not None:
            return differs
        try:
            sealer.unseal_into(0, _altered(stored), opened)
        except UnsealFailed:
            return None
    return "an altered ciphertext accepted"


def _sha256(answers: Answers) -> str | None:
    answer = answers["sealed"]
    return _differs(sha256(bytes.fromhex(answer["stored"])).hexdigest(), answer["stored_sha256"])


def _blake3(answers: Answers) -> str | None:
    answer = answers["sealed"]
    return _differs(blake3(bytes.fromhex(answer["stored"])).hexdigest(), answer["stored_blake3"])


TESTS: Final[dict[str, Callable[[Answers], str | None]]] = {
    "SHA-256": _sha256,
    "BLAKE3": _blake3,
    "ECDSA P-384": _ecdsa,
    "ML-DSA-87": _mldsa,
    "HKDF-SHA512": _key_schedule,
    "AES-256-GCM": _aes_gcm,
}
"""What is asked, by name; each answers None, or what was found instead."""


def _differs(found: str, expected: str) -> str | None:
    return None if found == expected else "another result"


def _altered(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


def _failed(name: str, found: str) -> SelfTestFailed:
    return SelfTestFailed(
        f"the self-test of {name} failed",
        expected="the published answer",
        found=found,
        hint="this installation or this machine computes wrongly: install pq-registry and cryptography anew",
    )
