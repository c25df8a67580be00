# SPDX-License-Identifier: Apache-2.0
"""From what the caller names to a verified release and a source of its shards (DESIGN §5, steps 0 to 6).

Nothing stays open: a source is made when reading begins. Between the two a directory or a registry may change as it
likes; every shard is checked against the manifest that was verified here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client import configured
from pq_registry.client.crew import cores
from pq_registry.client.directory import ReleaseDirectory
from pq_registry.client.resolve import resolve
from pq_registry.client.source import DirectorySource, RemoteSource, ShardSource
from pq_registry.client.state import SeenTags
from pq_registry.client.trust import VerifiedRelease
from pq_registry.errors import NameSyntaxError, UsageError
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import Reference
from pq_registry.settings import Settings

EXPECT_HINT = 'say which release it must be: expect="namespace/name" or expect="namespace/name@sha256:..."'


@dataclass(frozen=True, slots=True)
class OpenRelease:
    """A release that passed steps 0 to 6, and how to read it.

    ``workers`` threads each take up to ``longest`` neighbouring shards, and ask for ``request`` of them at a time.
    """

    verified: VerifiedRelease
    source: Callable[[], ShardSource]
    workers: int
    longest: int
    request: int

    @property
    def manifest(self) -> Manifest:
        """The verified manifest."""
        return self.verified.release.manifest


def open_release(what: str | os.PathLike[str], *, expect: str | None, settings: Settings, now: datetime) -> OpenRelease:
    """Find and verify a release.

    A path object, or any text together with ``expect``, is a directory; other text is a reference. It never depends
    on what happens to lie in the current directory.

    Args:
        what: a directory, or a reference ``namespace/name[:tag][@digest]``.
        expect: for a directory, the release it must be: ``namespace/name[@digest]``.
        settings: registry, token, trust and connections.
        now: the time at which everything is judged.

    Raises:
        PqregError: UsageError for arguments that cannot be meant, or why the release is not believed.
    """
    if expect is None and isinstance(what, str):
        return _remote(_reference(what), settings, now)
    if expect is None:
        raise UsageError(f"{os.fspath(what)} could be anything", expected="expect=", hint=EXPECT_HINT)
    return _local(Path(what), _expected(expect), settings, now)


def _reference(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except NameSyntaxError as error:
        if os.path.isdir(text):
            raise UsageError(f"{text} could be anything", expected="expect=", hint=EXPECT_HINT) from None
        error.hint = "a directory is given as a path, together with expect="
        raise


def _expected(text: str) -> Reference:
    if ":" in text.partition("@")[0]:
        raise UsageError(
            "a directory does not prove which tag it was pulled by", expected="namespace/name[@digest]", found=text
        )
    return Reference.parse(text)


def _local(path: Path, expected: Reference, settings: Settings, now: datetime) -> OpenRelease:
    verifier = configured.verifier(settings, now, online=False)
    with ReleaseDirectory(path) as directory:
        evidence = directory.evidence()
        verified = verifier.release(
            evidence.envelope,
            evidence.manifest,
            expected_name=expected.repository,
            expected_digest=expected.digest,
        )
        directory.check_files(verified.release.manifest)
    # One shard per read: it is checked while it is still in the core's own cache.
    workers = min(cores(), limits.LOADER_THREADS)
    return OpenRelease(verified, lambda: DirectorySource(path), workers, longest=4, request=1)


def _remote(reference: Reference, settings: Settings, now: datetime) -> OpenRelease:
    verifier = configured.verifier(settings, now, online=False)
    connections = configured.connections(settings)
    with configured.registry_client(settings) as client:
        verified = resolve(reference, client, verifier, SeenTags(settings.state_dir)).verified
    # Many shards per request, but no more scratch memory than half the ring, however many connections there are.
    longest = limits.LOADER_RING_BYTES // (2 * connections * limits.SHARD_BYTES)
    longest = max(1, min(longest, limits.RANGE_SHARDS))
    return OpenRelease(verified, lambda: RemoteSource(client), connections, longest, request=longest)
