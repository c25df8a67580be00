# SPDX-License-Identifier: Apache-2.0
"""A second implementation of sealing, written from docs/spec/{sealing,recipients,grants}.md, judges the vectors.

It uses ``hmac`` and ``hashlib`` for every derivation and bare primitives of ``cryptography`` for AES-GCM, ML-KEM and
the curves; HPKE and its hybrid KEMs are spelled out. It imports nothing of this project. What it wraps, the project's
code must unwrap, and the other way round.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "sealing"
SHARD = 2097152
TAG = 16


# -- the second implementation -----------------------------------------------------------------------------------------
def extract(hash_name: str, salt: bytes, ikm: bytes) -> bytes:
    return hmac.new(salt, ikm, hash_name).digest()


def expand(hash_name: str, prk: bytes, info: bytes, length: int) -> bytes:
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hash_name).digest()
        out, counter = out + block, counter + 1
    return out[:length]


def shard_key(prk: bytes, path: str, index: int, count: int, size: int) -> tuple[bytes, bytes]:
    name = path.encode()
    info = b"pqreg/v1/shard\x00" + len(name).to_bytes(2, "big") + name
    info += index.to_bytes(8, "big") + count.to_bytes(8, "big") + size.to_bytes(8, "big")
    okm = expand("sha512", prk, info, 44)
    return okm[:32], okm[32:]


def seal(prk: bytes, path: str, plaintext: bytes) -> list[bytes]:
    count = (len(plaintext) + SHARD - 1) // SHARD
    shards = []
    for index in range(count):
        key, nonce = shard_key(prk, path, index, count, len(plaintext))
        shards.append(AESGCM(key).encrypt(nonce, plaintext[index * SHARD : (index + 1) * SHARD], b""))
    return shards


def unseal(prk: bytes, path: str, stored: bytes) -> bytes:
    count = (len(stored) + SHARD + TAG - 1) // (SHARD + TAG)
    size = len(stored) - TAG * count
    plaintext = b""
    for index in range(count):
        key, nonce = shard_key(prk, path, index, count, size)
        plaintext += AESGCM(key).decrypt(nonce, stored[index * (SHARD + TAG) : (index + 1) * (SHARD + TAG)], b"")
    return plaintext


class Hybrid:
    """HPKE's MLKEM1024-P384 and MLKEM768-X25519, sender and receiver."""

    def __init__(self, kem_id: int) -> None:
        self.kem_id = kem_id
        self.level5 = kem_id == 0x51
        self.lattice_public = 1568 if self.level5 else 1184
        self.lattice_ciphertext = 1568 if self.level5 else 1088
        self.label = b"MLKEM1024-P384" if self.level5 else bytes.fromhex("5c2e2f2f5e5c")
        self.hash = "sha384" if self.level5 else "sha256"

    def secret(self, seed: bytes) -> tuple[Any, Any]:
        if self.level5:
            e = hashlib.shake_256(seed).digest(112)
            curve: Any = ec.derive_private_key(int.from_bytes(e[64:], "big"), ec.SECP384R1())
            return mlkem.MLKEM1024PrivateKey.from_seed_bytes(e[:64]), curve
        e = hashlib.shake_256(seed).digest(96)
        return mlkem.MLKEM768PrivateKey.from_seed_bytes(e[:64]), x25519.X25519PrivateKey.from_private_bytes(e[64:])

    def point(self, public: Any) -> bytes:
        if self.level5:
            return bytes(public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
        return bytes(public.public_bytes_raw())

    def public(self, seed: bytes) -> bytes:
        lattice, curve = self.secret(seed)
        return lattice.public_key().public_bytes_raw() + self.point(curve.public_key())

    def exchange(self, secret: Any, point: bytes) -> bytes:
        if self.level5:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
            return bytes(secret.exchange(ec.ECDH(), peer))
        return bytes(secret.exchange(x25519.X25519PublicKey.from_public_bytes(point)))

    def combine(self, lattice: bytes, curve: bytes, curve_ciphertext: bytes, curve_public: bytes) -> bytes:
        return hashlib.sha3_256(lattice + curve + curve_ciphertext + curve_public + self.label).digest()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        lattice_public, curve_public = public[: self.lattice_public], public[self.lattice_public :]
        kind = mlkem.MLKEM1024PublicKey if self.level5 else mlkem.MLKEM768PublicKey
        shared, ciphertext = kind.from_public_bytes(lattice_public).encapsulate()
        ephemeral: Any = ec.generate_private_key(ec.SECP384R1()) if self.level5 else x25519.X25519PrivateKey.generate()
        point = self.point(ephemeral.public_key())
        secret = self.combine(shared, self.exchange(ephemeral, curve_public), point, curve_public)
        return secret, ciphertext + point

    def decapsulate(self, seed: bytes, enc: bytes) -> bytes:
        lattice, curve = self.secret(seed)
        ciphertext, point = enc[: self.lattice_ciphertext], enc[self.lattice_ciphertext :]
        shared = lattice.decapsulate(ciphertext)
        return self.combine(shared, self.exchange(curve, point), point, self.point(curve.public_key()))

    def schedule(self, secret: bytes, info: bytes) -> tuple[bytes, bytes]:
        """RFC 9180, section 5.1, base mode; AES-256-GCM."""
        kdf = {"sha256": 1, "sha384": 2}[self.hash]
        suite = b"HPKE" + self.kem_id.to_bytes(2, "big") + kdf.to_bytes(2, "big") + (2).to_bytes(2, "big")

        def labelled_extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
            salt = salt or bytes(hashlib.new(self.hash).digest_size)
            return extract(self.hash, salt, b"HPKE-v1" + suite + label + ikm)

        def labelled_expand(prk: bytes, label: bytes, context: bytes, length: int) -> bytes:
            return expand(self.hash, prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context, length)

        context = b"\x00" + labelled_extract(b"", b"psk_id_hash", b"") + labelled_extract(b"", b"info_hash", info)
        prk = labelled_extract(secret, b"secret", b"")
        return labelled_expand(prk, b"key", context, 32), labelled_expand(prk, b"base_nonce", context, 12)

    def wrap(self, public: bytes, info: bytes, content_key: bytes) -> bytes:
        secret, enc = self.encapsulate(public)
        key, nonce = self.schedule(secret, info)
        return enc + AESGCM(key).encrypt(nonce, content_key, b"")

    def unwrap(self, seed: bytes, info: bytes, wrapped: bytes) -> bytes:
        length = self.lattice_ciphertext + (97 if self.level5 else 32)
        key, nonce = self.schedule(self.decapsulate(seed, wrapped[:length]), info)
        return AESGCM(key).decrypt(nonce, wrapped[length:], b"")

    def id(self, public: bytes) -> str:
        return hashlib.sha256(b"pqreg/v1/recipient\x00" + self.kem_id.to_bytes(2, "big") + public).hexdigest()


SECOND = (extract, expand, shard_key, seal, unseal, Hybrid)


# -- it and the vectors ------------------------------------------------------------------------------------------------
def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text("utf-8"))


def test_the_second_implementation_knows_nothing_of_ours() -> None:
    module = ast.parse(Path(__file__).read_text("utf-8"))
    top = [ast.unparse(node) for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    inside = "".join(inspect.getsource(part) for part in SECOND)
    for name in ("pq_registry", "pqreg_keys", "hazmat.primitives.hpke", "hazmat.primitives.kdf"):
        assert not any(name in line for line in top)
        assert name not in inside


@pytest.mark.parametrize("case", vectors("schedule.json"), ids=["a", "b"])
def test_key_schedule(case: dict[str, Any]) -> None:
    prk = extract("sha512", bytes.fromhex(case["release_id"]), bytes.fromhex(case["content_key"]))
    assert prk.hex() == case["prk"]
    assert expand("sha512", prk, b"pqreg/v1/commit", 32).hex() == case["commitment"]
    for shard in case["shards"]:
        key, nonce = shard_key(prk, shard["path"], shard["index"], shard["count"], shard["size"])
        assert (key.hex(), nonce.hex()) == (shard["key"], shard["nonce"])


def test_sealed_files() -> None:
    whole = vectors("files.json")
    prk = extract("sha512", bytes.fromhex(whole["release_id"]), bytes.fromhex(whole["content_key"]))
    for case in whole["files"]:
        plaintext = hashlib.shake_256(f"plaintext {case['size']}".encode()).digest(case["size"])
        shards = seal(prk, whole["path"], plaintext)
        stored = b"".join(shards)
        assert len(stored) == case["stored_size"]
        assert hashlib.sha256(stored).hexdigest() == case["stored_sha256"]
        assert "".join(blake3(shard).hexdigest() for shard in shards) == case["stored_blake3"]
        assert unseal(prk, whole["path"], stored) == plaintext


def test_the_whole_release() -> None:
    case = vectors("release.json")
    manifest, inner = json.loads(case["pqreg_json"]), json.loads(case["inner"])
    prk = extract("sha512", bytes.fromhex(manifest["release_id"]), bytes.fromhex(case["content_key"]))
    commitment = base64.b64decode(manifest["sealing"]["commitment"])
    assert commitment == expand("sha512", prk, b"pqreg/v1/commit", 32)
    unsealed = {path: unseal(prk, path, bytes.fromhex(content)) for path, content in case["stored"].items()}
    assert unsealed.pop("pqreg.inner") == case["inner"].encode()
    digest = hashlib.sha256(case["inner"].encode()).hexdigest()
    assert manifest["sealing"]["inner_sha256"] == f"sha256:{digest}"
    assert [entry["path"] for entry in manifest["files"]] == ["pqreg.inner", *unsealed]
    for stored_name, entry in zip(unsealed, inner["files"], strict=True):
        plaintext = unsealed[stored_name]
        assert plaintext == bytes.fromhex(case["plaintext"][entry["path"]])
        assert entry["sha256"] == "sha256:" + hashlib.sha256(plaintext).hexdigest()
    for entry in manifest["files"]:
        assert entry["sha256"] == "sha256:" + hashlib.sha256(bytes.fromhex(case["stored"][entry["path"]])).hexdigest()
    assert hashlib.sha256(case["statement"].encode()).hexdigest() == case["release"]


GRANTS = vectors("grants.json")
each_level = pytest.mark.parametrize("case", GRANTS, ids=[case["kem"] for case in GRANTS])


@each_level
def test_recipients_and_grants(case: dict[str, Any]) -> None:
    kem, seed = Hybrid(case["kem_id"]), bytes.fromhex(case["seed"])
    public = kem.public(seed)
    assert public.hex() == case["public_key"]
    assert kem.id(public) == case["id"]
    lines = case["file"].splitlines()
    assert base64.b64decode("".join(lines[1:-1])) == case["kem_id"].to_bytes(2, "big") + public
    info = b"pqreg/v1/grant\x00" + bytes.fromhex(case["release"]) + bytes.fromhex(case["id"])
    assert info.hex() == case["info"]
    assert kem.unwrap(seed, info, bytes.fromhex(case["wrapped"])).hex() == case["content_key"]
    other = b"pqreg/v1/grant\x00" + bytes.fromhex(case["refused_release"]) + bytes.fromhex(case["id"])
    with pytest.raises(InvalidTag):
        kem.unwrap(seed, other, bytes.fromhex(case["wrapped"]))


# -- it and our code ---------------------------------------------------------------------------------------------------
@each_level
def test_each_opens_what_the_other_wraps(case: dict[str, Any]) -> None:
    from pq_registry.crypto.recipient import SecretRecipient, grant_info
    from pq_registry.crypto.secret import SecretBytes
    from pq_registry.format.digest import Digest
    from pq_registry.format.recipientfile import Kem

    kem, seed, release = Hybrid(case["kem_id"]), bytes.fromhex(case["seed"]), Digest(case["release"])
    ours = SecretRecipient(Kem(case["kem_id"]), SecretBytes(seed))
    assert ours.public.public_key == kem.public(seed)
    info = grant_info(release, ours.public.id)
    for _ in range(5):
        content_key = os.urandom(32)
        assert ours.unwrap(kem.wrap(ours.public.public_key, info, content_key), release) == SecretBytes(content_key)
        assert kem.unwrap(seed, info, ours.public.wrap(SecretBytes(content_key), release)) == content_key
    assert ours.unwrap(bytes.fromhex(case["wrapped"]), release).hex() == case["content_key"]


@each_level
def test_our_code_reads_the_documents(case: dict[str, Any]) -> None:
    from pq_registry.crypto.recipient import PublicRecipient
    from pq_registry.format.digest import Digest
    from pq_registry.format.grant import GrantStatement
    from pq_registry.format.keystatement import KeyStatement

    public = PublicRecipient.from_file(case["file"].encode())
    assert (public.id, public.kem.value) == (case["id"], case["kem_id"])
    grant, withdrawal = (GrantStatement.parse(case[name].encode()) for name in ("grant", "withdrawal"))
    assert grant.recipient == withdrawal.recipient == public.id
    assert (grant.release.hex, grant.wrapped) == (case["release"], bytes.fromhex(case["wrapped"]))
    assert (withdrawal.withdrawn, withdrawal.previous) == (True, Digest.of(case["grant"].encode()))
    certificate = KeyStatement.parse(case["key_statement"].encode())
    assert (certificate.recipient, certificate.public_key) == (public.id, public.public_key)


def test_our_code_makes_the_vectors_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.vectors.sealing import generate

    (tmp_path / "grants.json").write_bytes((VECTORS / "grants.json").read_bytes())
    monkeypatch.setattr(generate, "HERE", tmp_path)
    generate.main()
    for path in VECTORS.glob("*.json"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), f"{path.name}: run make vectors"
