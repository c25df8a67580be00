# SPDX-License-Identifier: Apache-2.0
"""Known answers of others for the primitives that sealing stands on, as shipped with ``cryptography_vectors``.

HPKE-PQ's for MLKEM1024-P384 with HKDF-SHA384 and AES-256-GCM, the suite of level 5, and, as there are none with level
3's AEAD, those for MLKEM768-X25519 with HKDF-SHA256 and ChaCha20-Poly1305; NIST's for AES-256-GCM and ML-KEM.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl as rust
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.secret import SecretBytes
from pq_registry.format.recipientfile import Kem
from tests.conformance.test_sealing_second import Hybrid


def hpke_cases() -> list[dict[str, Any]]:
    with cryptography_vectors.open_vector_file("HPKE/hpke-pq-test-vectors.json", "r") as file:
        cases: list[dict[str, Any]] = json.load(file)
    wanted = ((0x51, 2, 2), (0x647A, 1, 3))
    return [case for case in cases if (case["kem_id"], case["kdf_id"], case["aead_id"]) in wanted]


@pytest.mark.parametrize("case", hpke_cases(), ids=lambda case: f"{case['kem_id']:#06x}")
def test_hpke_pq(case: dict[str, Any]) -> None:
    kem, seed = Kem(case["kem_id"]), bytes.fromhex(case["skRm"])
    ours = SecretRecipient(kem, SecretBytes(seed))
    assert ours.public.public_key.hex() == case["pkRm"]
    level5 = kem is Kem.MLKEM1024_P384
    suite = hpke.Suite(
        hpke.KEM.MLKEM1024_P384 if level5 else hpke.KEM.MLKEM768_X25519,
        hpke.KDF.HKDF_SHA384 if level5 else hpke.KDF.HKDF_SHA256,
        hpke.AEAD.AES_256_GCM if level5 else hpke.AEAD.CHACHA20_POLY1305,
    )
    # Only the first message of a context has the sequence number that a single-shot call uses.
    first = case["encryptions"][0]
    message = bytes.fromhex(case["enc"]) + bytes.fromhex(first["ct"])
    info, aad = bytes.fromhex(case["info"]), bytes.fromhex(first["aad"])
    assert rust.hpke._decrypt_with_aad(suite, message, ours._key, info, aad).hex() == first["pt"]
    with pytest.raises(InvalidTag):
        rust.hpke._decrypt_with_aad(suite, message, ours._key, info + b"\0", aad)


@pytest.mark.parametrize("case", hpke_cases(), ids=lambda case: f"{case['kem_id']:#06x}")
def test_hpke_pq_by_the_second_implementation(case: dict[str, Any]) -> None:
    second = Hybrid(case["kem_id"])
    secret = second.decapsulate(bytes.fromhex(case["skRm"]), bytes.fromhex(case["enc"]))
    assert secret.hex() == case["shared_secret"]
    if case["aead_id"] == 2:
        key, nonce = second.schedule(secret, bytes.fromhex(case["info"]))
        assert (key.hex(), nonce.hex()) == (case["key"], case["base_nonce"])


def response_file(name: str) -> Iterator[dict[str, str]]:
    """The cases of one of NIST's response files: each begins with its number."""
    case: dict[str, str] = {}
    with cryptography_vectors.open_vector_file(name, "r") as file:
        for line in file:
            field, _, value = line.strip().partition("=")
            field = field.strip().lower()
            if field == "count":
                if case:
                    yield case
                case = {}
            if field and not field.startswith(("#", "[")):
                case[field] = value.strip()
    yield case


@pytest.mark.parametrize("name", ["gcmEncryptExtIV256.rsp", "gcmDecrypt256.rsp"])
def test_aes_256_gcm(name: str) -> None:
    counted = {"open": 0, "refuse": 0}
    for case in response_file(f"ciphers/AES/GCM/{name}"):
        key, nonce, tag = (bytes.fromhex(case[field]) for field in ("key", "iv", "tag"))
        if len(nonce) != 12 or len(tag) != 16:
            continue  # the only lengths sealing has
        stored, aad = bytes.fromhex(case["ct"]) + tag, bytes.fromhex(case["aad"])
        out = bytearray(len(stored) - 16)
        if "fail" in case:
            with pytest.raises(InvalidTag):
                AESGCM(key).decrypt_into(nonce, stored, aad, out)
            counted["refuse"] += 1
            continue
        AESGCM(key).decrypt_into(nonce, stored, aad, out)
        assert out.hex() == case["pt"]
        sealed = bytearray(len(stored))
        AESGCM(key).encrypt_into(nonce, bytes(out), aad, sealed)
        assert sealed == stored
        counted["open"] += 1
    assert counted["open"] > 100
    assert counted["refuse"] > 100 or "Encrypt" in name


@pytest.mark.parametrize("size", [768, 1024])
def test_ml_kem(size: int) -> None:
    kind: Any = mlkem.MLKEM768PrivateKey if size == 768 else mlkem.MLKEM1024PrivateKey
    count = 0
    for case in response_file(f"asymmetric/MLKEM/kat_MLKEM_{size}.rsp"):
        key = kind.from_seed_bytes(bytes.fromhex(case["d"]) + bytes.fromhex(case["z"]))
        assert key.public_key().public_bytes_raw().hex() == case["pk"].lower()
        assert key.decapsulate(bytes.fromhex(case["ct"])).hex() == case["ss"].lower()
        if "ct_n" in case:  # implicit rejection
            assert key.decapsulate(bytes.fromhex(case["ct_n"])).hex() == case["ss_n"].lower()
        count += 1
    assert count >= 100
