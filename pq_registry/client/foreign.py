# SPDX-License-Identifier: Apache-2.0
"""A directory that another OpenSSF Model Signing tool signed with an EC key: ``model.sig`` and nothing of ours.

What is checked is what the stock verifier checks: the signature by the one key given, SHA-256 of every file it lists,
and that there is no other file, except below the paths the signer chose to ignore. Links are not followed, whatever
the statement says about them. No trust file, no name, no post-quantum half: callers say so.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from pq_registry import limits
from pq_registry.client.crew import Crew, Shared, cores
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.tree import Tree
from pq_registry.crypto.signing import verify_ec_only
from pq_registry.durable import reported
from pq_registry.errors import FileDigestMismatch, FileSetMismatch, SignatureInvalid, at_step
from pq_registry.format.digest import Digest
from pq_registry.format.oms import ForeignStatement, parse_foreign_bundle
from pq_registry.format.statement import EC_BUNDLE_NAME


def verify_oms(
    path: Path, public_key_pem: bytes, *, progress: Progress | None = None, workers: int | None = None
) -> ForeignStatement:
    """Verify a directory against the ``model.sig`` in it.

    Args:
        path: the directory.
        public_key_pem: the EC public key of the signer.
        progress: told of every byte hashed.
        workers: threads; by default one per processor.

    Returns:
        What the signer stated.

    Raises:
        SignatureInvalid: step 2, if there is no signature or it is not by this key.
        StatementMismatch: step 3, if the statement contradicts itself.
        FileSetMismatch: step 6, if files are missing or additional.
        FileDigestMismatch: step 8, if a file is not as signed.
        FormatError: if the signature, the statement or the key is malformed or of a kind not supported.
        UsageError: if there is no such directory.
        StorageError: if it cannot be read.
    """
    progress = progress or NullProgress()
    with reported("verify", path), Tree(path) as tree:
        with at_step(2):
            bundle = parse_foreign_bundle(_signature(tree))
            verify_ec_only(bundle.payload, bundle.signature, public_key_pem)
        with at_step(3):
            statement = ForeignStatement.parse(bundle.payload)
        sizes = _check_files(tree, statement)
        progress.start("verify", sum(sizes.values()))
        try:
            crew = Crew()
            resources = Shared(sorted(statement.resources, key=lambda resource: -sizes[resource[0]]))
            crew.run(lambda: _hash_files(tree, crew, resources, progress), cores() if workers is None else workers)
        finally:
            progress.done()
    return statement


def _signature(tree: Tree) -> bytes:
    path = tree.path / EC_BUNDLE_NAME
    status = tree.status((EC_BUNDLE_NAME,))
    if status is None or not stat.S_ISREG(status.st_mode):
        raise SignatureInvalid(f"{tree.path} carries no signature", expected=f"a regular file {EC_BUNDLE_NAME}")
    with reported("read", path), os.fdopen(tree.open((EC_BUNDLE_NAME,)), "rb") as file:
        return file.read(limits.ENVELOPE_BYTES + 1)


def _check_files(tree: Tree, statement: ForeignStatement) -> dict[str, int]:
    """The sizes of the signed files, which are all there is."""
    skip = frozenset({EC_BUNDLE_NAME, *statement.ignore_paths})
    with reported("read the directory", tree.path):
        found = {entry.text: entry for entry in tree.walk(skip=skip)}
    listed = {name for name, _ in statement.resources}
    odd = sorted(found.keys() ^ listed) or sorted(name for name in listed if not found[name].regular)
    if odd:
        raise FileSetMismatch(
            f"the files in {tree.path} are not those that were signed",
            expected=f"exactly the {len(listed)} files of the statement, all of them regular",
            found="missing, additional or no regular file: " + ", ".join(repr(name) for name in odd[:10]),
        )
    return {name: found[name].size for name in listed}


def _hash_files(tree: Tree, crew: Crew, resources: Shared[tuple[str, Digest]], progress: Progress) -> None:
    buffer = memoryview(bytearray(limits.SHARD_BYTES))
    for name, digest in resources:
        sha256 = hashlib.sha256()
        with reported("read", tree.path / name), os.fdopen(tree.open(tuple(name.split("/"))), "rb", 0) as file:
            while (count := file.readinto(buffer)) and not crew.stopped():
                sha256.update(buffer[:count])
                progress.advance(count)
        if crew.stopped():
            return
        if sha256.hexdigest() != digest.hex:
            raise FileDigestMismatch(
                f"{name} is not what was signed", expected=digest, found=Digest(sha256.hexdigest())
            )
