# SPDX-License-Identifier: Apache-2.0
"""The self-test: it runs before the first verification and signature, and refuses when any primitive is broken."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pq_registry.crypto import sealing, selftest
from pq_registry.crypto.liboqs import LibOqsProvider
from pq_registry.crypto.openssl import OPENSSL, OpenSslProvider
from pq_registry.crypto.provider import verify_half
from pq_registry.crypto.providers import provider_named
from pq_registry.crypto.signing import sign_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.errors import PolicyError, SelfTestFailed, SignatureInvalid
from tests.oqs_site import library
from tests.samples import publisher
from tests.vectors.sealing.generate import labelled

VECTORS = Path(__file__).parents[1] / "vectors"
ANSWERS = json.loads((Path(selftest.__file__).with_name("selftest.json")).read_bytes())


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    selftest.ensure.cache_clear()
    yield
    selftest.ensure.cache_clear()


class Other:
    """A hash, or a MAC, of something else."""

    def __init__(self, *_: object) -> None: ...

    def hexdigest(self) -> str:
        return "00" * 32


def answer_true(*_: object, **__: object) -> bool:
    return True


def answer_none(*_: object, **__: object) -> None:
    return None


def refuse(*_: object, **__: object) -> None:
    raise SignatureInvalid("no")


def panic(*_: object, **__: object) -> None:
    raise SystemExit(0)


def other_mac(_key: object, _message: object, _digest: str) -> bytes:
    return bytes(64)


class StuckGcm:
    """AES-GCM that answers zeros and refuses nothing."""

    def __init__(self, _key: object) -> None: ...

    def encrypt_into(self, *_: object) -> None: ...

    def decrypt_into(self, *_: object) -> None: ...


class LaxGcm:
    """AES-GCM that gives the right bytes and accepts altered ones."""

    def __init__(self, _key: object) -> None: ...

    def encrypt_into(self, _nonce: object, _data: object, _more: None, out: bytearray) -> None:
        out[:] = bytes.fromhex(ANSWERS["sealed"]["stored"])

    def decrypt_into(self, _nonce: object, _data: object, _more: None, out: bytearray) -> None:
        out[:] = bytes.fromhex(ANSWERS["sealed"]["plaintext"])


BREAKS: list[tuple[str, object, str, Any]] = [
    ("SHA-256", selftest, "sha256", Other),
    ("BLAKE3", selftest, "blake3", Other),
    ("ECDSA P-384", OpenSslProvider, "verify_ec", answer_true),
    ("ECDSA P-384", OpenSslProvider, "verify_ec", answer_none),
    ("ECDSA P-384", OpenSslProvider, "verify_ec", refuse),
    ("ML-DSA-87", OpenSslProvider, "verify_mldsa", answer_true),
    ("ML-DSA-87", OpenSslProvider, "verify_mldsa", refuse),
    ("ML-DSA-87", OpenSslProvider, "verify_mldsa", panic),
    ("HKDF-SHA512", hmac, "digest", other_mac),
    ("AES-256-GCM", sealing, "AESGCM", StuckGcm),
    ("AES-256-GCM", sealing, "AESGCM", LaxGcm),
]


@pytest.mark.parametrize(("name", "owner", "attribute", "broken"), BREAKS)
def test_a_broken_primitive_is_refused_before_anything_is_verified_or_signed(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: object, attribute: str, broken: Callable[..., object]
) -> None:
    signer = publisher()
    envelope = sign_envelope(b"payload", signer)
    selftest.ensure.cache_clear()
    monkeypatch.setattr(owner, attribute, broken)
    for use in (
        lambda: sign_envelope(b"payload", signer),
        lambda: verify_half(
            OPENSSL, "ec", Profile.LEVEL_5, spki=signer.identity.ec_spki, message=b"x",
            signature=envelope.ec_signature,
        ),
    ):  # fmt: skip
        with pytest.raises(SelfTestFailed, match=f"self-test of {name} failed") as caught:
            use()
        assert isinstance(caught.value, PolicyError)
        assert caught.value.exit_code == 1


def test_every_test_can_fail() -> None:
    assert {name for name, *_ in BREAKS} == set(selftest.TESTS)


@pytest.mark.parametrize(
    ("half", "broken"),
    [(half, broken) for half in ("ec", "mldsa") for broken in (answer_true, answer_none, refuse, panic)],
)
def test_another_provider_is_asked_before_it_decides(
    monkeypatch: pytest.MonkeyPatch, half: str, broken: Callable[..., object]
) -> None:
    class Another(OpenSslProvider):
        name = "another"

    selftest.check_provider(Another())
    monkeypatch.setattr(Another, f"verify_{half}", broken)
    with pytest.raises(SelfTestFailed, match="of another failed"):
        selftest.check_provider(Another())
    selftest.ensure()  # which is about OpenSSL


def test_a_broken_liboqs_does_not_become_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    found = library()
    LibOqsProvider(found)
    monkeypatch.setattr(LibOqsProvider, "verify_mldsa", answer_true)
    with pytest.raises(SelfTestFailed, match="ML-DSA-87 of liboqs"):
        provider_named("liboqs")


def test_it_runs_once_and_a_failure_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    answers: list[str | None] = ["wrong", None, None]

    def test(_answers: object) -> str | None:
        calls.append("x")
        return answers.pop(0)

    monkeypatch.setattr(selftest, "TESTS", {"x": test})
    with pytest.raises(SelfTestFailed):
        selftest.ensure()
    selftest.ensure()
    selftest.ensure()
    assert len(calls) == 2


@pytest.mark.parametrize("content", [None, b"{", b"{}"])
def test_lost_answers_are_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "answers.json"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(selftest, "_ANSWERS", file)
    with pytest.raises(SelfTestFailed):
        selftest.ensure()


def test_the_answers_are_those_of_the_published_vectors() -> None:
    identity = json.loads((VECTORS / "identities/level5.json").read_bytes())
    files = json.loads((VECTORS / "sealing/files.json").read_bytes())
    schedule = json.loads((VECTORS / "sealing/schedule.json").read_bytes())[0]
    assert ANSWERS["message"] == identity["pae_hex"]
    assert (ANSWERS["ec_signature"], ANSWERS["pq_signature"]) == (
        identity["ec_signature_hex"],
        identity["pq_signature_hex"],
    )
    assert ANSWERS["schedule"] == {name: schedule[name] for name in ANSWERS["schedule"]}
    case = next(case for case in files["files"] if case["size"] == 16)
    found = ANSWERS["sealed"]
    assert bytes.fromhex(found["plaintext"]) == labelled("plaintext 16", 16)
    assert {name: found[name] for name in ("content_key", "release_id", "path")} == {
        name: files[name] for name in ("content_key", "release_id", "path")
    }
    assert {name: found[name] for name in ("stored_sha256", "stored_blake3")} == {
        name: case[name] for name in ("stored_sha256", "stored_blake3")
    }
