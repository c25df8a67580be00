# SPDX-License-Identifier: Apache-2.0
"""A terabyte without its bytes: 200 files, half a million shards, 20 000 tensors with synthetic digests.

``make DIR`` writes envelope, manifest and trust file; ``check DIR`` verifies them in a fresh process (steps 0 to 6) and
prints how long that took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from pq_registry.client.trust import Verifier
from pq_registry.crypto.signing import sign_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.manifest import FileEntry, Manifest, TensorEntry, TensorTable, shard_count
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import statement_of
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile
from pqreg_keys.custody import generate

FILES, TENSORS, TENSOR_BYTES, HEADER = 200, 100, 50_000_000, 16_000
NAME = RepositoryName.parse("acme/terabyte")


def make(directory: Path) -> dict[str, int]:
    """Sign a release of 1 TB."""
    directory.mkdir(parents=True, exist_ok=True)
    signer, now = generate(Profile.LEVEL_5), utc_now()
    size = HEADER + TENSORS * TENSOR_BYTES
    files = []
    for number in range(FILES):
        tensors = tuple(
            TensorEntry(
                f"model.layers.{number}.experts.{index:03}.weight", "BF16", (5000, 5000),
                index * TENSOR_BYTES, (index + 1) * TENSOR_BYTES,
            )
            for index in range(TENSORS)
        )  # fmt: skip
        path = ReleasePath(f"model-{number + 1:05}-of-{FILES:05}.safetensors")
        shards = os.urandom(32 * shard_count(size))
        files.append(FileEntry(path, size, Digest(os.urandom(32).hex()), shards, TensorTable(HEADER, (), tensors)))
    manifest = Manifest(NAME, signer.identity.id, os.urandom(16).hex(), now, tuple(files))
    data = manifest.encode()
    envelope = sign_envelope(statement_of(manifest, data).encode(), signer)
    entry = TrustedIdentity(signer.identity.id, signer.identity.to_pem().decode(), None, None)
    namespace = NamespaceTrust(NAME.namespace, (entry,), (entry.id,), min_profile=5)
    trust = TrustFile(
        version=1, created=now, expires=now + timedelta(days=1), namespaces={NAME.namespace.key: namespace}
    )
    (directory / "envelope").write_bytes(envelope.encode())
    (directory / "manifest").write_bytes(data)
    (directory / "trust").write_bytes(trust.encode())
    return {"bytes": manifest.total_size, "manifest_bytes": len(data)}


def check(directory: Path) -> dict[str, float]:
    """Verify it."""
    trust, envelope, data = ((directory / name).read_bytes() for name in ("trust", "envelope", "manifest"))
    begun = time.perf_counter()
    verified = Verifier(trust, utc_now(), online=True).release(envelope, data, expected_name=NAME, expected_digest=None)
    seconds = time.perf_counter() - begun
    manifest = verified.release.manifest
    return {
        "seconds": seconds,
        "files": len(manifest.files),
        "shards": sum(file.shard_count for file in manifest.files),
        "tensors": sum(len(file.tensors.tensors) for file in manifest.files if file.tensors is not None),
        "bytes": manifest.total_size,
    }


if __name__ == "__main__":
    print(json.dumps((make if sys.argv[1] == "make" else check)(Path(sys.argv[2]))))
