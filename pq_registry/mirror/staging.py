# SPDX-License-Identifier: Apache-2.0
"""A model from a Hub, brought to a directory of ours and found fit to be signed as an import.

In this order, so that what can be refused early costs no transfer:

1. The revision is pinned to a commit, and the commit's files are listed.
2. Names are judged: paths that no release can hold, names of this project's, formats that can execute code.
3. The files are fetched, in several threads; each is compared with what the Hub states of it. A run that was cut off
   goes on in the same directory.
4. Whoever signed the model is verified: by the trust file if it carries the evidence of a release of this project,
   which is never skipped; by the importer's policy otherwise.
5. Weight files of torch are converted, if the importer said so.
6. The directory is left with the files of the import and nothing else, and the import statement is written into it.

Looking into the files for code in disguise, hashing and signing are the push's, which reads the same bytes again.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pq_registry import limits
from pq_registry.client.crew import Crew, Shared
from pq_registry.client.destination import lock
from pq_registry.client.progress import Progress
from pq_registry.client.tree import Tree
from pq_registry.client.trust import Verifier
from pq_registry.client.verify import verify_contents
from pq_registry.durable import make_directory, reported, write_file
from pq_registry.errors import PolicyError, StorageError
from pq_registry.format.importing import IMPORT_NAME, SIGNATURE_NAME, ImportStatement, Source, SourceSignature, Verified
from pq_registry.format.manifest import BaseRelease
from pq_registry.format.path import ReleasePath
from pq_registry.mirror.converted import Converted, convert_files, put_back, set_aside
from pq_registry.mirror.hub import Hub, HubReference
from pq_registry.mirror.hubfiles import Found, HubEntry, fetch, list_files, pin
from pq_registry.mirror.selection import ImportOptions, Selection
from pq_registry.mirror.upstream import ByRelease, check_covers, verify_bundle

NOTES = ".cache/huggingface"
"""What the library writes into a directory it downloads to."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A directory that is ready to be pushed, what its import statement says, and what the release is made from.

    ``network`` is whether something was converted by a process that could have reached a network.
    """

    directory: Path
    statement: ImportStatement
    lineage: tuple[BaseRelease, ...]
    network: bool = False


def stage(
    hub: Hub,
    reference: HubReference,
    place: Path,
    *,
    verifier: Callable[[], Verifier],
    now: datetime,
    options: ImportOptions,
    progress: Progress,
) -> Staged:
    """Bring a model into the directory ``place``, which is made if need be, and which nobody else may write to.

    Args:
        hub: where from.
        reference: which model, at which revision.
        place: where to.
        verifier: makes the verifier of the trust file; called only for a model that carries a release's evidence.
        now: the time at which certificates must be valid.
        options: what the importer chose.
        progress: told of every byte that came.

    Raises:
        NotFound: if there is no such model or revision.
        UnsafeFileType: if it holds formats that can execute code, or what should be converted is more than weights.
        VerificationError: a subclass, if its signature does not hold or does not cover it.
        FormatError: if it cannot be a release.
        PolicyError: if it is a sealed release, or others may write to ``place``.
        UsageError: if the options do not fit it.
        Conflict: if another import works in ``place``.
        PqregError: what the Hub, the network or the disk refuse.
    """
    commit = pin(hub, reference)
    entries = list_files(hub, reference.repository, commit)
    selection = Selection.of(reference.repository, entries, options)
    selection.judge(options)
    work = _Staging(hub, reference.repository, commit, place, selection, options)
    make_directory(place, 0o700)
    for path in (place.parent, place):
        _refuse_shared(path)
    with reported("open", place), Tree(place) as tree:
        lock(tree)
        put_back(place, NOTES, selection.planned)
        keep_only(tree, selection.wanted)
        found = work.fetch(progress)
        signature, lineage = work.verify(found, verifier=verifier, now=now, progress=progress)
        source = Source(hub.endpoint, reference.repository, reference.revision, commit)
        converted = convert_files(place, selection.planned, progress) if selection.planned else Converted({})
        statement = ImportStatement(source, selection.stated(found, converted.files), signature)
        kept = None if signature is None or signature.kept is None else work.signature()
        set_aside(place, NOTES, selection.planned)
        keep_only(tree, selection.held)
        if kept is not None:
            write_file(place / SIGNATURE_NAME, kept)
        write_file(place / IMPORT_NAME, statement.encode())
    return Staged(place, statement, lineage, converted.network)


def keep_only(tree: Tree, wanted: frozenset[str]) -> None:
    """Remove every file of a directory but those ``wanted`` and the library's own notes, and folders left empty."""
    gone = [entry.text for entry in tree.walk(skip=frozenset({NOTES})) if entry.text not in wanted]
    for text in gone:
        parts = tuple(text.split("/"))
        tree.unlink(parts)
        tree.prune(parts[:-1])


@dataclass(frozen=True, slots=True)
class _Staging:
    """Steps 3 and 4 for one model."""

    hub: Hub
    repository: str
    commit: str
    place: Path
    selection: Selection
    options: ImportOptions

    def fetch(self, progress: Progress) -> dict[str, Found]:
        """Step 3: what every file that is wanted was found to be."""
        entries = self.selection.entries
        wanted = sorted((entries[text] for text in self.selection.wanted), key=lambda entry: -entry.size)
        _check_room(self.place, wanted)
        found: dict[str, Found] = {}
        crew, shared = Crew(), Shared(wanted)

        def work() -> None:
            for entry in shared:
                if crew.stopped():
                    return
                found[entry.path.text] = fetch(
                    self.hub, self.repository, self.commit, entry, self.place, advance=progress.advance
                )

        progress.start(f"fetch {self.repository}", sum(entry.size for entry in wanted))
        try:
            crew.run(work, min(self.options.connections, len(wanted)))
        finally:
            progress.done()
        return found

    def verify(
        self,
        found: Mapping[str, Found],
        *,
        verifier: Callable[[], Verifier],
        now: datetime,
        progress: Progress,
    ) -> tuple[SourceSignature | None, tuple[BaseRelease, ...]]:
        """Step 4: the model's signature, and the release that it is."""
        path = self.selection.signature
        if path is None:
            return None, ()
        kept = None if self.selection.ours else ReleasePath(SIGNATURE_NAME)
        signature = SourceSignature(path=ReleasePath(path), sha256=found[path].sha256, kept=kept)
        require = self.options.require
        if require is not None and not isinstance(require, ByRelease):
            signed = verify_bundle(self.signature(), require, now=now)
            check_covers(
                signed.payload,
                {text: found[text].sha256 for text in self.selection.imported},
                self.selection.left_out.keys(),
            )
            signature = SourceSignature(
                path=signature.path, sha256=signature.sha256, kept=kept, verified=signed.verified,
                details=signed.details,
            )  # fmt: skip
        if not self.selection.ours:
            return signature, ()
        release = verify_contents(self.place, verifier(), progress=progress, full=True).verified.release
        details = (
            ("name", str(release.name)), ("release", str(release.digest)), ("signer", release.manifest.signer),
        )  # fmt: skip
        proven = SourceSignature(
            path=signature.path, sha256=signature.sha256, kept=None, verified=Verified.RELEASE, details=details
        )
        return proven, (BaseRelease(release.name, release.digest),)

    def signature(self) -> bytes:
        """The bytes of the model's signature, or one more than it may have."""
        assert self.selection.signature is not None
        path = ReleasePath(self.selection.signature).under(self.place)
        with reported("read", path), path.open("rb") as file:
            return file.read(limits.UPSTREAM_SIGNATURE_BYTES + 1)


def _refuse_shared(path: Path) -> None:
    # Whoever may write there could change files after they were verified, and the statement with them.
    with reported("look at", path):
        status = os.stat(path, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PolicyError(
            f"others may write to {path}", expected="a directory that only you may write to",
            found=f"owner {status.st_uid}, {stat.filemode(status.st_mode)}",
            hint="chmod go-w it if it is yours, or name another place with --staging",
        )  # fmt: skip


def _check_room(place: Path, wanted: Sequence[HubEntry]) -> None:
    with reported("ask for the free space of", place):
        free = shutil.disk_usage(place).free
    there = sum(_size(entry.path.under(place)) for entry in wanted)
    lacking = sum(entry.size for entry in wanted) - there
    if lacking > free:
        raise StorageError(
            f"{place} has no room for the model", expected=f"{lacking} bytes free", found=f"{free} bytes",
            hint="--staging DIR names another place",
        )  # fmt: skip


def _size(path: Path) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0
