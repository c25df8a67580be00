# SPDX-License-Identifier: Apache-2.0
"""An independent check of a release's evidence: nothing but the standard library and ``cryptography``.

``check`` is what somebody could write who has read the specification and none of our code: it takes the two bundles
apart with json and base64, builds the pre-authentication encoding, and verifies both halves under the two PEM blocks
of a public file. It must accept what this project signs and refuse what it refuses. It imports nothing of ours.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pq_registry.crypto.signing import sign_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.path import ReleasePath
from pq_registry.format.statement import ReleaseStatement, Resource
from pqreg_keys import custody


def check(model_sig: Path, model_pq_sig: Path, public_file: Path) -> bytes:
    """The payload both bundles carry, if both halves of its signature are valid; otherwise some exception."""
    import base64
    import hashlib

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, mldsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    end = b"-----END PUBLIC KEY-----\n"
    ec_pem, pq_pem, rest = public_file.read_bytes().split(end)
    if rest:
        raise ValueError("text after the keys")
    payloads, signatures = [], []
    for path, pem in ((model_sig, ec_pem + end), (model_pq_sig, pq_pem + end)):
        bundle = json.loads(path.read_bytes())
        if bundle["mediaType"] != "application/vnd.dev.sigstore.bundle.v0.3+json":
            raise ValueError("not a bundle")
        if bundle["verificationMaterial"]["publicKey"]["hint"] != hashlib.sha256(pem).hexdigest():
            raise ValueError("hint")
        envelope = bundle["dsseEnvelope"]
        if envelope["payloadType"] != "application/vnd.in-toto+json":
            raise ValueError("payload type")
        (signature,) = envelope["signatures"]
        payloads.append(base64.b64decode(envelope["payload"], validate=True))
        signatures.append(base64.b64decode(signature["sig"], validate=True))
    if payloads[0] != payloads[1]:
        raise ValueError("two payloads")
    message = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payloads[0])).encode() + b" " + payloads[0]
    ec_key, pq_key = load_pem_public_key(ec_pem + end), load_pem_public_key(pq_pem + end)
    if not isinstance(ec_key, ec.EllipticCurvePublicKey):
        raise TypeError("not an EC key")
    if not isinstance(
        pq_key, {"secp384r1": mldsa.MLDSA87PublicKey, "secp256r1": mldsa.MLDSA65PublicKey}[ec_key.curve.name]
    ):
        raise TypeError("not two keys of one profile")
    ec_key.verify(signatures[0], message, ec.ECDSA(hashes.SHA384() if ec_key.key_size == 384 else hashes.SHA256()))
    pq_key.verify(signatures[1], message)
    return payloads[0]


Evidence = tuple[Path, Path, Path]


@pytest.fixture(params=list(Profile), ids=lambda profile: f"level{profile.level}")
def evidence(request: pytest.FixtureRequest, tmp_path: Path) -> Evidence:
    """The two bundles of a signed release statement, and its signer's public file, as this project writes them."""
    signer = custody.generate(request.param)
    resources = tuple(Resource(ReleasePath(name), Digest.of(name.encode())) for name in ("config.json", "pqreg.json"))
    payload = ReleaseStatement("model", resources).encode()
    envelope = sign_envelope(payload, signer)
    paths = tmp_path / "model.sig", tmp_path / "model.pq.sig", tmp_path / "alice.pqpub"
    paths[0].write_bytes(encode_bundle(envelope, "ec", signer.identity.ec_pem))
    paths[1].write_bytes(encode_bundle(envelope, "pq", signer.identity.pq_pem))
    paths[2].write_bytes(signer.identity.to_pem())
    return paths


def test_the_independent_check_accepts_what_we_sign(evidence: Evidence) -> None:
    payload = json.loads(check(*evidence))
    assert payload["predicateType"] == "https://model_signing/signature/v1.0"
    assert [resource["name"] for resource in payload["predicate"]["resources"]] == ["config.json", "pqreg.json"]


def edit(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    document = json.loads(path.read_bytes())
    change(document["dsseEnvelope"])
    path.write_text(json.dumps(document))


def flip_signature(envelope: dict) -> None:
    text = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = text[:40] + ("A" if text[40] != "A" else "B") + text[41:]


def flip_payload(envelope: dict) -> None:
    text = envelope["payload"]
    envelope["payload"] = text[:40] + ("A" if text[40] != "A" else "B") + text[41:]


@pytest.mark.parametrize("change", [flip_signature, flip_payload])
@pytest.mark.parametrize("files", [(0,), (1,), (0, 1)])
def test_the_independent_check_refuses_a_change_of_either_half(
    evidence: Evidence, change: Callable[[dict], None], files: tuple[int, ...]
) -> None:
    for number in files:
        edit(evidence[number], change)
    with pytest.raises(Exception):  # noqa: B017  any: it is not ours
        check(*evidence)


def test_the_independent_check_refuses_another_identity(evidence: Evidence) -> None:
    evidence[2].write_bytes(custody.generate().identity.to_pem())
    with pytest.raises(Exception):  # noqa: B017
        check(*evidence)


def test_the_independent_check_imports_nothing_of_ours() -> None:
    module = ast.parse(textwrap.dedent(inspect.getsource(check)))
    imported = {
        name.split(".")[0]
        for node in ast.walk(module)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"base64", "hashlib", "cryptography"}
    used = {node.id for node in ast.walk(module) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    project = {name for name, value in globals().items() if getattr(value, "__module__", "").startswith("pq")}
    assert {"sign_envelope", "ReleaseStatement"} <= project
    assert not used & project
