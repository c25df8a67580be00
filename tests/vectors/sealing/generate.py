# SPDX-License-Identifier: Apache-2.0
"""Writes the vectors beside it (``make vectors``): key schedule, sealed files, recipients and grants, a whole release.

Everything is made from labels, so that running it again writes the same bytes. The one exception is the wrapping of a
content key, which is randomised: a wrapped key that is there already and opens is kept.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pq_registry import limits
from pq_registry.crypto.recipient import SecretRecipient, grant_info
from pq_registry.crypto.sealing import SealingKey
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.shards import ShardHasher
from pq_registry.errors import GrantInvalid
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope, pae
from pq_registry.format.grant import GrantStatement
from pq_registry.format.inner import Inner, plaintext_statement
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest, Sealing
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.recipientfile import Kem
from pq_registry.format.release import statement_of
from pq_registry.format.safetensors import header_size, parse_header
from pq_registry.format.sealing import INNER_NAME, SLICE_BYTES, sealed_size, stored_path

HERE = Path(__file__).resolve().parent
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
LATER = datetime(2027, 11, 21, 12, 0, 0, tzinfo=UTC)
NAME = RepositoryName.parse("acme/secret")
SIGNER = hashlib.sha256(b"signer").hexdigest()
SHARD = limits.SHARD_BYTES
SIZES = (0, 1, 16, SHARD - 1, SHARD, SHARD + 1, 2 * SHARD + 4096)
PLACES = (
    ("sealed/00000", 0, 1, 1),
    ("sealed/00000", 0, 2, SHARD + 1),
    ("sealed/00000", 1, 2, SHARD + 1),
    ("sealed/00001", 0, 1, 1),
    ("sealed/99998", 2**23 - 1, 2**23, 2**23 * SHARD),
    (INNER_NAME, 0, 1, 1000),
)


def labelled(label: str, length: int) -> bytes:
    """Bytes that everybody can make again: SHAKE256 of the label."""
    return hashlib.shake_256(label.encode()).digest(length)


def content_key(label: str) -> SecretBytes:
    """The content key of a label."""
    return SecretBytes(labelled(f"content key {label}", 32))


def schedule() -> list[dict[str, Any]]:
    """Content key and release id to commitment, keys and nonces."""
    cases = []
    for label in ("a", "b"):
        release_id = labelled(f"release id {label}", 16).hex()
        key = SealingKey(content_key(label), release_id)
        places = []
        for path, index, count, size in PLACES:
            sealer = key.file(ReleasePath(path), size)
            assert sealer.shard_count == count
            okm = bytes(sealer._derived(index))
            places.append(
                {"path": path, "index": index, "count": count, "size": size,
                 "key": okm[:32].hex(), "nonce": okm[32:].hex()}
            )  # fmt: skip
        cases.append(
            {"content_key": content_key(label).hex(), "release_id": release_id, "prk": key._prk.hex(),
             "commitment": key.commitment.hex(), "shards": places}
        )  # fmt: skip
    return cases


def sealed(key: SealingKey, path: ReleasePath, plaintext: bytes) -> bytes:
    """The stored bytes of a file."""
    sealer = key.file(path, len(plaintext))
    stored = bytearray(sealed_size(len(plaintext)))
    for index in range(sealer.shard_count):
        piece = plaintext[index * SHARD : (index + 1) * SHARD]
        start = index * SLICE_BYTES
        sealer.seal_into(index, piece, memoryview(stored)[start : start + len(piece) + limits.SEAL_TAG_BYTES])
    return bytes(stored)


def files() -> dict[str, Any]:
    """Stored bytes of files of telling sizes."""
    label, path = "files", stored_path(7)
    release_id = labelled(f"release id {label}", 16).hex()
    key = SealingKey(content_key(label), release_id)
    cases = []
    for size in SIZES:
        entry = entry_of(path, sealed(key, path, labelled(f"plaintext {size}", size)), sealed=True)
        cases.append(
            {"size": size, "plaintext_sha256": hashlib.sha256(labelled(f"plaintext {size}", size)).hexdigest(),
             "stored_size": entry.size, "stored_sha256": entry.sha256.hex, "stored_blake3": entry.shards.hex()}
        )  # fmt: skip
    return {"content_key": content_key(label).hex(), "release_id": release_id, "path": path.text, "files": cases}


def entry_of(path: ReleasePath, content: bytes, *, sealed: bool = False) -> FileEntry:
    """The manifest's entry of a file."""
    hasher = ShardHasher(SLICE_BYTES if sealed else SHARD)
    hasher.update(content)
    size, sha256, shards = hasher.result()
    table = None
    if path.suffix == ".safetensors":
        table = parse_header(content[: header_size(content[:8], size)], size)
    return FileEntry(path, size, sha256, shards, table, sealed)


def recipients(known: dict[str, str]) -> list[dict[str, Any]]:
    """Recipients of both levels and a grant to each."""
    cases = []
    release, wrong = Digest.of(b"release"), Digest.of(b"another release")
    for kem in Kem:
        seed = SecretBytes(labelled(f"recipient seed {kem.level}", 32))
        recipient = SecretRecipient(kem, seed)
        wrapped = bytes.fromhex(known.get(kem.algorithm, ""))
        try:
            if recipient.unwrap(wrapped, release) != content_key("grant"):
                wrapped = b""
        except GrantInvalid:
            wrapped = b""
        public = recipient.public
        wrapped = wrapped or public.wrap(content_key("grant"), release)
        grant = GrantStatement(
            repository=NAME, release=release, signer=SIGNER, recipient=public.id, sequence=1, previous=None,
            wrapped=wrapped, issued=NOW, expires=LATER,
        )  # fmt: skip
        withdrawal = GrantStatement(
            repository=NAME, release=release, signer=SIGNER, recipient=public.id, sequence=2,
            previous=Digest.of(grant.encode()), wrapped=None, issued=LATER, expires=None,
        )  # fmt: skip
        certificate = KeyStatement(
            signer=SIGNER, namespace=Namespace("acme"), node="node1.example.org", kem=kem,
            public_key=public.public_key, issued=NOW, not_after=LATER,
        )  # fmt: skip
        cases.append(
            {"kem": kem.algorithm, "kem_id": kem.value, "seed": seed.hex(), "public_key": public.public_key.hex(),
             "id": public.id, "file": public.to_file().decode("ascii"), "release": release.hex,
             "info": grant_info(release, public.id).hex(), "content_key": content_key("grant").hex(),
             "wrapped": wrapped.hex(), "refused_release": wrong.hex, "grant": grant.encode().decode(),
             "withdrawal": withdrawal.encode().decode(), "key_statement": certificate.encode().decode()}
        )  # fmt: skip
    return cases


def whole_release() -> dict[str, Any]:
    """A sealed release with its documents and stored bytes."""
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    plaintext = {
        "config.json": b"{}\n",
        "empty": b"",
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(range(8)),
    }
    release_id = labelled("release id whole", 16).hex()
    key = SealingKey(content_key("whole"), release_id)
    entries = tuple(entry_of(ReleasePath(path), content) for path, content in plaintext.items())
    scalar = int.from_bytes(labelled("ec scalar", 48), "big") >> 1
    signing = ec.derive_private_key(scalar, ec.SECP384R1())
    payload = plaintext_statement(NAME, entries).encode()
    signature = signing.sign(pae(payload), ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
    pem = signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    inner = Inner(
        blind=labelled("blind", 32), files=entries, oms=encode_bundle(Envelope(payload, signature, b"-"), "ec", pem),
        lineage=(BaseRelease(RepositoryName.parse("acme/base"), Digest.of(b"base")),), license="LicenseRef-Proprietary",
    ).encode()  # fmt: skip
    stored = {INNER_NAME: sealed(key, ReleasePath(INNER_NAME), inner)}
    for index, content in enumerate(plaintext.values()):
        stored[stored_path(index).text] = sealed(key, stored_path(index), content)
    manifest = Manifest(
        NAME, SIGNER, release_id, NOW,
        tuple(entry_of(ReleasePath(path), content, sealed=True) for path, content in stored.items()),
        sealing=Sealing(key.commitment, Digest.of(inner)),
    )  # fmt: skip
    manifest_bytes = manifest.encode()
    return {
        "content_key": content_key("whole").hex(),
        "plaintext": {path: content.hex() for path, content in plaintext.items()},
        "stored": {path: content.hex() for path, content in stored.items()},
        "inner": inner.decode(),
        "pqreg_json": manifest_bytes.decode(),
        "statement": statement_of(manifest, manifest_bytes).encode().decode(),
        "release": Digest.of(statement_of(manifest, manifest_bytes).encode()).hex,
        "ec_public_pem": pem.decode("ascii"),
    }


def write(name: str, value: object) -> None:
    """Write one file of vectors."""
    (HERE / name).write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def main() -> None:
    """Write all of them."""
    known = {}
    if (HERE / "grants.json").exists():
        known = {case["kem"]: case["wrapped"] for case in json.loads((HERE / "grants.json").read_text("utf-8"))}
    write("schedule.json", schedule())
    write("files.json", files())
    write("grants.json", recipients(known))
    write("release.json", whole_release())


if __name__ == "__main__":
    main()
