# SPDX-License-Identifier: Apache-2.0
"""Every cryptographic algorithm of this project, for the CBOM; docs/operations/crypto-concept.md says what each is for.

A test holds the table against the suites in ``pq_registry.crypto``. Levels are NIST's categories for post-quantum
security, 0 for what a quantum computer breaks; classical levels are bits.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """One algorithm with its parameters: what it is to CycloneDX, and what we use it for."""

    name: str
    primitive: str
    functions: tuple[str, ...]
    classical: int
    quantum: int
    use: str
    parameters: str | None = None
    curve: str | None = None
    oid: str | None = None


_SIGN = ("keygen", "sign", "verify")
_KEM = ("keygen", "encapsulate", "decapsulate")

ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm(
        name="ML-DSA-87", primitive="signature", functions=_SIGN, classical=256, quantum=5, parameters="87",
        oid="2.16.840.1.101.3.4.3.19", use="statements, profile 5 (with ECDSA P-384)",
    ),
    Algorithm(
        name="ML-DSA-65", primitive="signature", functions=_SIGN, classical=192, quantum=3, parameters="65",
        oid="2.16.840.1.101.3.4.3.18", use="statements, profile 3 (with ECDSA P-256)",
    ),
    Algorithm(
        name="ML-DSA-44", primitive="signature", functions=_SIGN, classical=128, quantum=2, parameters="44",
        oid="2.16.840.1.101.3.4.3.17", use="checkpoints and cosignatures (with Ed25519)",
    ),
    Algorithm(
        name="SLH-DSA-SHA2-256s", primitive="signature", functions=_SIGN, classical=256, quantum=5,
        parameters="SHA2-256s", oid="2.16.840.1.101.3.4.3.24", use="third signature of trust files, if wanted",
    ),
    Algorithm(
        name="ECDSA-P384-SHA384", primitive="signature", functions=_SIGN, classical=192, quantum=0, curve="secp384r1",
        parameters="384", oid="1.2.840.10045.4.3.3", use="statements, profile 5 (with ML-DSA-87)",
    ),
    Algorithm(
        name="ECDSA-P256-SHA256", primitive="signature", functions=_SIGN, classical=128, quantum=0, curve="secp256r1",
        parameters="256", oid="1.2.840.10045.4.3.2", use="statements, profile 3 (with ML-DSA-65)",
    ),
    Algorithm(
        name="Ed25519", primitive="signature", functions=_SIGN, classical=128, quantum=0, curve="Ed25519",
        oid="1.3.101.112", use="checkpoints and cosignatures (with ML-DSA-44)",
    ),
    Algorithm(
        name="MLKEM1024-P384", primitive="combiner", functions=_KEM, classical=192, quantum=5, parameters="0x0051",
        use="HPKE: content keys for recipients, profile 5",
    ),
    Algorithm(
        name="MLKEM768-X25519", primitive="combiner", functions=_KEM, classical=128, quantum=3, parameters="0x647a",
        use="HPKE: content keys for recipients, profile 3",
    ),
    Algorithm(
        name="ML-KEM-1024", primitive="kem", functions=_KEM, classical=256, quantum=5, parameters="1024",
        oid="2.16.840.1.101.3.4.4.3", use="in MLKEM1024-P384",
    ),
    Algorithm(
        name="ML-KEM-768", primitive="kem", functions=_KEM, classical=192, quantum=3, parameters="768",
        oid="2.16.840.1.101.3.4.4.2", use="in MLKEM768-X25519, and in TLS's X25519MLKEM768",
    ),
    Algorithm(
        name="ECDH-P384", primitive="key-agree", functions=("keygen", "keyderive"), classical=192, quantum=0,
        curve="secp384r1", use="in MLKEM1024-P384",
    ),
    Algorithm(
        name="X25519", primitive="key-agree", functions=("keygen", "keyderive"), classical=128, quantum=0,
        curve="Curve25519", oid="1.3.101.110", use="in MLKEM768-X25519, and in TLS's X25519MLKEM768",
    ),
    Algorithm(
        name="X25519MLKEM768", primitive="combiner", functions=_KEM, classical=128, quantum=3, parameters="0x11ec",
        use="key agreement of TLS 1.3, where both ends offer it",
    ),
    Algorithm(
        name="AES-256-GCM", primitive="ae", functions=("encrypt", "decrypt", "tag"), classical=256, quantum=5,
        parameters="256", oid="2.16.840.1.101.3.4.1.46", use="sealed shards, content keys (HPKE), secret key files",
    ),
    Algorithm(
        name="HKDF-SHA512", primitive="kdf", functions=("keyderive",), classical=256, quantum=5, parameters="512",
        use="the key of each sealed shard, key commitment",
    ),
    Algorithm(
        name="HKDF-SHA384", primitive="kdf", functions=("keyderive",), classical=192, quantum=4, parameters="384",
        use="HPKE, profile 5",
    ),
    Algorithm(
        name="HKDF-SHA256", primitive="kdf", functions=("keyderive",), classical=128, quantum=2, parameters="256",
        use="HPKE, profile 3",
    ),
    Algorithm(
        name="Argon2id", primitive="kdf", functions=("keyderive",), classical=256, quantum=5,
        use="the key of a secret key file, from its passphrase",
    ),
    Algorithm(
        name="SHA-256", primitive="hash", functions=("digest",), classical=128, quantum=2, parameters="256",
        oid="2.16.840.1.101.3.4.2.1", use="files, statements, the log's tree, tokens at rest, audit events",
    ),
    Algorithm(
        name="SHA-384", primitive="hash", functions=("digest",), classical=192, quantum=4, parameters="384",
        oid="2.16.840.1.101.3.4.2.2", use="in ECDSA-P384-SHA384",
    ),
    Algorithm(
        name="BLAKE3", primitive="hash", functions=("digest",), classical=128, quantum=2, parameters="256",
        use="shards",
    ),
)  # fmt: skip
