# SPDX-License-Identifier: Apache-2.0
"""From what the caller names to a verified release and a source of its shards (DESIGN §5, steps 0 to 7).

Nothing stays open: a source is made when reading begins. Between the two a directory or a registry may change as it
likes; every shard is checked against the manifest that was verified here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client import configured
from pq_registry.client.contents import read_contents
from pq_registry.client.crew import cores
from pq_registry.client.directory import ReleaseDirectory
from pq_registry.client.keptgrants import kept_grant, kept_receipt
from pq_registry.client.keysource import recipient_key
from pq_registry.client.meter import Meter
from pq_registry.client.progress import Progress
from pq_registry.client.proofs import fetch_receipt
from pq_registry.client.resolve import resolve
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.source import DirectorySource, RemoteSource, ShardSource
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import VerifiedRelease
from pq_registry.client.unsealing import Unsealed, fetch_grant, no_grant, no_key, unseal
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.errors import NameSyntaxError, UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import Reference
from pq_registry.format.release import Release
from pq_registry.format.tag import TagStatement
from pq_registry.loader import fill
from pq_registry.loader.directsource import DirectSource, ReadMode, is_direct
from pq_registry.loader.fill import Checked, Filler
from pq_registry.settings import Settings

_LOG = logging.getLogger(__name__)
EXPECT_HINT = 'say which release it must be: expect="namespace/name" or expect="namespace/name@sha256:..."'


@dataclass(frozen=True, slots=True)
class OpenRelease:
    """A release that passed steps 0 to 7, and how to read it.

    ``workers`` threads each take up to ``longest`` neighbouring shards, and ask for ``request`` of them at a time.
    A shard that is not what was signed is fetched ``attempts`` times in all.
    ``files`` have the tensors: those of the manifest, or of pqreg.inner. ``stored`` delivers the stored bytes, which
    are those of ``files`` unless the release was ``unsealed``. ``tag`` is the statement that led to it, if one did.
    """

    verified: VerifiedRelease
    files: tuple[FileEntry, ...]
    stored: Callable[[], ShardSource]
    workers: int
    longest: int
    request: int
    attempts: int = 1
    unsealed: Unsealed | None = None
    tag: TagStatement | None = None

    def filler(self, progress: Progress, meter: Meter) -> Filler:
        """What brings shards of ``files`` into memory, checked and in the clear."""
        if self.unsealed is None:
            return Checked(self.stored(), request=self.request, progress=progress, meter=meter, attempts=self.attempts)
        source = self.unsealed.source(self.stored(), attempts=self.attempts, meter=meter)
        return fill.Unsealed(source, request=self.request, progress=progress)


def open_release(
    what: str | os.PathLike[str],
    *,
    expect: str | None,
    settings: Settings,
    now: datetime,
    key: RecipientKey | None = None,
    io: ReadMode = "auto",
) -> OpenRelease:
    """Find and verify a release.

    A path object, or any text together with ``expect``, is a directory; other text is a reference. It never depends
    on what happens to lie in the current directory.

    Args:
        what: a directory, or a reference ``namespace/name[:tag][@digest]``.
        expect: for a directory, the release it must be: ``namespace/name[@digest]``.
        settings: registry, token, trust, connections and recipient key.
        now: the time at which everything is judged.
        key: the recipient key, if it is not the one of the settings.
        io: how the files of a directory are read.

    Raises:
        PqregError: UsageError for arguments that cannot be meant, or why the release is not believed.
    """
    if not isinstance(what, str | os.PathLike) or not os.fspath(what):
        raise UsageError(
            "this names no release", expected="a reference or the path of a directory", found=repr(what)[:80]
        )
    if expect is not None and not isinstance(expect, str):
        raise UsageError("expect is wrong", expected="text", found=repr(expect)[:80], hint=EXPECT_HINT)
    if expect is None and isinstance(what, str):
        return _remote(_reference(what), settings, now, key)
    if expect is None:
        raise UsageError(f"{os.fspath(what)} could be anything", expected="expect=", hint=EXPECT_HINT)
    opened = _local(Path(what), _expected(expect), settings, now, key)
    return _past_the_cache(opened, Path(what), io)


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


def _local(path: Path, expected: Reference, settings: Settings, now: datetime, key: RecipientKey | None) -> OpenRelease:
    verifier = configured.verifier(settings, now, online=False)
    with ReleaseDirectory(path) as directory:
        contents = read_contents(directory, verifier, expected=expected, state_dir=settings.state_dir)
        # One shard per read: it is checked while it is still in the core's own cache.
        workers = min(cores(), limits.LOADER_THREADS)
        opened = OpenRelease(
            contents.verified, contents.files, lambda: DirectorySource(path), workers, longest=4, request=1
        )
        if not contents.sealed:
            return opened
        release = contents.verified.release
        key = _key(key, settings, release)
        grant, receipt = kept_grant(directory, key.public.id), kept_receipt(directory, key.public.id)
        seen = SeenGrants(settings.state_dir, recording=grant is None)
        if grant is None and settings.get("registry") is None:
            raise no_grant(release, key.public.id, "none in .pqreg/grants, and no registry to ask")
        if grant is None:
            with _client(settings) as client:
                grant = fetch_grant(client, release, key.public.id)
                receipt = fetch_receipt(client, verifier, grant)
        with DirectorySource(directory) as source:
            unsealed = unseal(
                contents.verified, grant, key=key, source=source, verifier=verifier, receipt=receipt, seen=seen
            )
    return _unsealing(opened, unsealed)


def _past_the_cache(opened: OpenRelease, path: Path, io: ReadMode) -> OpenRelease:
    """Read past the page cache if that is asked for, or worth it."""
    stored = opened.files if opened.unsealed is None else opened.verified.release.manifest.files
    if not is_direct(path, [file for file in stored if file.size], io):
        return opened
    return replace(opened, stored=lambda: DirectSource(path), workers=max(opened.workers, limits.DIRECT_THREADS))


def _remote(reference: Reference, settings: Settings, now: datetime, key: RecipientKey | None) -> OpenRelease:
    verifier = configured.verifier(settings, now, online=False)
    connections = configured.connections(settings)
    with _client(settings) as client:
        found = resolve(reference, client, verifier, SeenTags(settings.state_dir))
        verified = found.verified
        # Many shards per request, but no more scratch memory than half the ring, however many connections there are.
        longest = limits.LOADER_RING_BYTES // (2 * connections * limits.SHARD_BYTES)
        longest = max(1, min(longest, limits.RANGE_SHARDS))
        release = verified.release
        opened = OpenRelease(
            verified, release.manifest.files, lambda: RemoteSource(client), connections, longest, request=longest,
            attempts=limits.ATTEMPTS, tag=found.tag,
        )  # fmt: skip
        if release.manifest.sealing is None:
            return opened
        key = _key(key, settings, release)
        grant = fetch_grant(client, release, key.public.id)
        receipt = fetch_receipt(client, verifier, grant)
        with RemoteSource(client) as source:
            unsealed = unseal(
                verified, grant, key=key, source=source, verifier=verifier, receipt=receipt,
                seen=SeenGrants(settings.state_dir), attempts=limits.ATTEMPTS,
            )  # fmt: skip
    return _unsealing(opened, unsealed)


def _client(settings: Settings) -> RegistryClient:
    client = configured.registry_client(settings)
    withheld = configured.credential(settings).withheld
    if withheld is not None:
        _LOG.warning("%s", withheld)
    return client


def _key(key: RecipientKey | None, settings: Settings, release: Release) -> RecipientKey:
    found = key or recipient_key(settings)
    if found is None:
        raise no_key(release)
    return found


def _unsealing(opened: OpenRelease, unsealed: Unsealed) -> OpenRelease:
    return replace(opened, files=unsealed.inner.files, unsealed=unsealed)
