# SPDX-License-Identifier: Apache-2.0
"""The stock OpenSSF Model Signing tool and this project understand each other's signatures.

The keys are of ``cryptography`` alone, so that this holds without trusting our own signing code.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope, pae
from pq_registry.format.oms import ForeignStatement, parse_foreign_bundle
from pq_registry.format.path import ReleasePath
from pq_registry.format.statement import ReleaseStatement, Resource

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("model_signing") is None or importlib.util.find_spec("OpenSSL") is None,
        reason="PyPI's model-signing (which needs pyOpenSSL) is not installed",
    ),
]

# a.txt and a/b are the pair whose order differs between the specification and the tool's own sorting.
FILES = {"a.txt": b"one", "a/b": b"two", "config.json": b"{}", "empty": b"", "möbel.txt": b"three", "pqreg.json": b"{}"}
CURVES = [(ec.SECP384R1(), hashes.SHA384()), (ec.SECP256R1(), hashes.SHA256())]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "minilm"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def our_evidence(model: Path, key: ec.EllipticCurvePrivateKey, digest: hashes.HashAlgorithm) -> None:
    resources = tuple(Resource(ReleasePath(name), Digest.of(FILES[name])) for name in sorted(FILES))
    payload = ReleaseStatement(model.name, resources).encode()
    signature = key.sign(pae(payload), ec.ECDSA(digest))
    envelope = Envelope(payload, signature, bytes(4627))
    (model / "model.sig").write_bytes(encode_bundle(envelope, "ec", pem(key.public_key())))
    (model / "model.pq.sig").write_bytes(encode_bundle(envelope, "pq", b"any"))


def as_hf_download_leaves_it(model: Path) -> None:
    (model / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (model / ".cache/huggingface/download").mkdir(parents=True)
    (model / ".cache/huggingface/download/config.json.metadata").write_text("x\n")
    (model / ".pqreg").mkdir()
    (model / ".pqreg/status").write_text("x\n")


@pytest.mark.parametrize(("curve", "digest"), CURVES, ids=["P-384", "P-256"])
def test_the_tool_accepts_ours(
    model: Path, tmp_path: Path, curve: ec.EllipticCurve, digest: hashes.HashAlgorithm
) -> None:
    key = ec.generate_private_key(curve)
    our_evidence(model, key, digest)
    as_hf_download_leaves_it(model)
    (tmp_path / "key.pub").write_bytes(pem(key.public_key()))
    arguments = ("verify", "key", model, "--public_key", tmp_path / "key.pub", "--signature", model / "model.sig")
    accepted = run(*arguments)
    assert accepted.returncode == 0, accepted.stderr
    assert "Verification succeeded" in accepted.stdout + accepted.stderr

    (model / "config.json").write_bytes(b"[]")
    assert run(*arguments).returncode != 0
    (model / "config.json").write_bytes(FILES["config.json"])
    (model / "added.txt").write_bytes(b"")
    assert run(*arguments).returncode != 0


def test_the_tool_refuses_the_other_half_and_another_key(model: Path, tmp_path: Path) -> None:
    key, other = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    our_evidence(model, key, hashes.SHA384())
    for name, public, signature in (("key", key, "model.pq.sig"), ("other", other, "model.sig")):
        (tmp_path / name).write_bytes(pem(public.public_key()))
        refused = run("verify", "key", model, "--public_key", tmp_path / name, "--signature", model / signature)
        assert refused.returncode != 0


@pytest.mark.parametrize(("curve", "digest"), CURVES, ids=["P-384", "P-256"])
def test_we_read_what_the_tool_signs(
    model: Path, tmp_path: Path, curve: ec.EllipticCurve, digest: hashes.HashAlgorithm
) -> None:
    key = ec.generate_private_key(curve)
    (tmp_path / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    signed = run("sign", "key", model, "--private_key", tmp_path / "key", "--signature", model / "model.sig")
    assert signed.returncode == 0, signed.stderr

    bundle = parse_foreign_bundle((model / "model.sig").read_bytes())
    key.public_key().verify(bundle.signature, pae(bundle.payload), ec.ECDSA(digest))
    with pytest.raises(InvalidSignature):
        key.public_key().verify(bundle.signature, pae(bundle.payload + b" "), ec.ECDSA(digest))
    statement = ForeignStatement.parse(bundle.payload)
    assert statement.model_name == "minilm"
    assert dict(statement.resources) == {name: Digest.of(content) for name, content in FILES.items()}
    assert "model.sig" in statement.ignore_paths
    assert statement.allow_symlinks is False
