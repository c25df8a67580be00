# SPDX-License-Identifier: Apache-2.0
"""A10, a verification that fails open (CVE-2022-36056): whatever a provider does but answer True is a refusal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from pq_registry.crypto.openssl import OpenSslProvider
from pq_registry.crypto.signing import failed_halves, sign_envelope, verify_envelope
from pq_registry.crypto.trustkeys import TrustedPair, TrustStore
from pq_registry.errors import FormatError, PqregError, SignatureInvalid, UntrustedSigner
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Namespace
from pq_registry.format.trustfile import TrustedIdentity
from pqreg_keys import custody

ALICE = custody.generate()
ENVELOPE = sign_envelope(b"{}", ALICE)


class Panic(BaseException):
    """What native code raises when it gives up: not an Exception."""


class Liar:
    """Not True, but truthy and equal to everything."""

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


BEHAVIOURS: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "False": lambda: False,
    "1": lambda: 1,
    "0": lambda: 0,
    "-1": lambda: -1,
    "1.0": lambda: 1.0,
    "text": lambda: "True",
    "a list": lambda: [True],
    "NotImplemented": lambda: NotImplemented,
    "a liar": Liar,
    "a coroutine's place": lambda: (_ for _ in ()),
    "ValueError": raising(ValueError("boom")),
    "InvalidSignature": raising(InvalidSignature()),
    "MemoryError": raising(MemoryError()),
    "RecursionError": raising(RecursionError()),
    "StopIteration": raising(StopIteration()),
    "an error of our tree": raising(FormatError("not a key")),
    "SystemExit(0)": raising(SystemExit(0)),
    "GeneratorExit": raising(GeneratorExit()),
    "a panic": raising(Panic("index out of bounds")),
}


class Broken(OpenSslProvider):
    """The real provider, but one half (or both) behaves as told."""

    __slots__ = ("act", "halves")

    def __init__(self, act: Callable[[], object], *halves: str) -> None:
        self.act = act
        self.halves = halves

    def verify_ec(self, *arguments: Any) -> Any:
        return self.act() if "ec" in self.halves else super().verify_ec(*arguments)

    def verify_mldsa(self, *arguments: Any) -> Any:
        return self.act() if "pq" in self.halves else super().verify_mldsa(*arguments)


@pytest.mark.parametrize("name", list(BEHAVIOURS))
@pytest.mark.parametrize("half", ["ec", "pq"])
def test_a10_one_half_that_is_not_answered_with_true_is_refused(name: str, half: str) -> None:
    verify_envelope(ENVELOPE, ALICE.identity, provider=Broken(lambda: True))
    provider = Broken(BEHAVIOURS[name], half)
    assert set(failed_halves(ENVELOPE, ALICE.identity, provider=provider)) == {half}
    with pytest.raises(SignatureInvalid) as caught:
        verify_envelope(ENVELOPE, ALICE.identity, provider=provider)
    assert ("EC half" if half == "ec" else "post-quantum half") in caught.value.message


@pytest.mark.parametrize("name", list(BEHAVIOURS))
def test_a10_a_signer_whose_signature_cannot_be_checked_signs_nothing(name: str) -> None:
    with pytest.raises(SignatureInvalid):
        sign_envelope(b"{}", ALICE, provider=Broken(BEHAVIOURS[name], "ec", "pq"))


@pytest.mark.parametrize("name", list(BEHAVIOURS))
def test_a10_a_trust_store_keeps_nobody(name: str) -> None:
    trusted = TrustedIdentity(ALICE.identity.id, ALICE.identity.to_pem().decode())
    pairs = (TrustedPair(Namespace("acme"), trusted, ALICE.identity),)
    assert TrustStore(pairs).matching(ENVELOPE)
    for halves in (("ec",), ("pq",), ("ec", "pq")):
        store = TrustStore(pairs, provider=Broken(BEHAVIOURS[name], *halves))
        with pytest.raises((SignatureInvalid, UntrustedSigner)):
            store.matching(ENVELOPE)


@pytest.mark.parametrize("length", [1, 4626, 4628, 5000])
def test_a10_a_signature_of_a_wrong_length_is_not_even_asked_about(length: int) -> None:
    envelope = Envelope(b"{}", ENVELOPE.ec_signature, bytes(length))
    assert set(failed_halves(envelope, ALICE.identity, provider=Broken(lambda: True, "ec", "pq"))) == {"pq"}
    longer = Envelope(b"{}", bytes(105), ENVELOPE.pq_signature)
    assert set(failed_halves(longer, ALICE.identity, provider=Broken(lambda: True, "ec", "pq"))) == {"ec"}


def test_a10_an_interrupt_stops_the_program() -> None:
    with pytest.raises(KeyboardInterrupt):
        verify_envelope(ENVELOPE, ALICE.identity, provider=Broken(raising(KeyboardInterrupt()), "ec"))


def test_a10_the_cause_is_kept_for_the_operator() -> None:
    with pytest.raises(SignatureInvalid) as caught:
        verify_envelope(ENVELOPE, ALICE.identity, provider=Broken(BEHAVIOURS["MemoryError"], "pq"))
    assert isinstance(caught.value.__cause__, MemoryError)
    assert "MemoryError" in str(caught.value.found)
    assert isinstance(caught.value, PqregError)


CHILD = """
import os, signal, sys
from pq_registry.crypto.openssl import OpenSslProvider
from pq_registry.crypto.signing import sign_envelope, verify_envelope
from pqreg_keys import custody

class Crashing(OpenSslProvider):
    def verify_mldsa(self, *arguments):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))

alice = custody.generate()
envelope = sign_envelope(b"{}", alice)
print("signed", flush=True)
verify_envelope(envelope, alice.identity, provider=Crashing())
print("VERIFIED", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a10_a_crash_in_the_middle_verifies_nothing(name: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, name], capture_output=True, text=True, check=False, timeout=60,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert child.stdout == "signed\n", child.stderr
    assert child.returncode == -getattr(signal, name)
