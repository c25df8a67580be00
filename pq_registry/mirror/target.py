# SPDX-License-Identifier: Apache-2.0
"""A repository on a Hub as a mirror sees it: what is there, and the few changes a mirror makes.

Every request waits where the Hub asks for patience (``Hub.patiently``). A commit names its parent, so the Hub makes it
or, if somebody else's came first, refuses it (Conflict); it is therefore safe to send again when no answer came.
What a Hub says of a file is its SHA-256, where it keeps it as a large file; a small one, of which it knows a git id
only, is read, once per id. Nothing that is read here is believed to be anything but what this Hub has.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from pq_registry import limits
from pq_registry.durable import reported
from pq_registry.errors import EntryNotFound, NotFound, ResponseInvalid
from pq_registry.format.digest import Digest
from pq_registry.mirror.hub import Hub
from pq_registry.mirror.hubfiles import metered

T = TypeVar("T")
MAIN = "main"


@dataclass(frozen=True, slots=True)
class There:
    """A file as a Hub lists it; ``sha256`` is None for one it keeps in git, under the id ``blob``."""

    path: str
    size: int
    blob: str
    sha256: Digest | None


@dataclass(frozen=True, slots=True)
class References:
    """Branches and tags, and the commits they are at."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one commit does. ``puts`` are sent; ``copies`` are taken from another commit of the same repository."""

    puts: Mapping[str, Path | bytes]
    copies: Sequence[str] = ()
    origin: str | None = None
    deletes: Sequence[str] = ()


class Target(Protocol):
    """What a mirror asks of a Hub's repository. Every method raises PqregError."""

    url: str

    def ensure(self, *, private: bool) -> None:
        """Make the repository if it is not there."""

    def references(self) -> References | None:
        """Branches and tags; None if there is no such repository."""

    def files(self, commit: str) -> Mapping[str, There]:
        """Every file of a commit."""

    def read(self, commit: str, file: There) -> bytes:
        """The bytes of a small file."""

    def messages(self, revision: str) -> Sequence[str]:
        """The messages of the newest commits, newest first."""

    def branch(self, name: str, start: str) -> None:
        """Make a branch. One that is there already stays as it is."""

    def commit(self, branch: str, parent: str, change: Change, *, title: str, message: str) -> str:
        """Commit to a branch whose head is ``parent``; answers the new head. Raises Conflict if it is another."""

    def tag(self, name: str, commit: str) -> None:
        """Set a tag that is not there."""

    def untag(self, name: str) -> None:
        """Remove a tag, if it is there."""

    def drop(self, branch: str) -> None:
        """Remove a branch, if it is there."""


class HubTarget:
    """A repository on a Hub, by the Hub's own client."""

    def __init__(self, hub: Hub, repository: str, scratch: Path) -> None:
        """Nothing is sent yet.

        Args:
            hub: the Hub, with a token that may write there.
            repository: ``namespace/name``.
            scratch: a directory of the caller's own, where files that are read again are for a moment.
        """
        self.url = f"{hub.endpoint}/{repository}"
        self._hub = hub
        self._api = hub.api
        self._repository = repository
        self._scratch = scratch

    def ensure(self, *, private: bool) -> None:
        """Make the repository if it is not there."""
        self._ask("making", lambda: self._api.create_repo(self._repository, private=private, exist_ok=True))

    def references(self) -> References | None:
        """Branches and tags; None if there is no such repository."""
        try:
            found = self._ask("listing", lambda: self._api.list_repo_refs(self._repository))
        except NotFound:
            return None
        return References(_pointers(found.branches), _pointers(found.tags))

    def files(self, commit: str) -> Mapping[str, There]:
        """Every file of a commit."""
        return self._ask("listing the files of", lambda: self._listed(commit))

    def _listed(self, commit: str) -> Mapping[str, There]:
        found: dict[str, There] = {}
        for item in self._api.list_repo_tree(self._repository, recursive=True, revision=commit):
            if not hasattr(item, "size"):
                continue
            sha256 = None if item.lfs is None else Digest(item.lfs.sha256)
            found[item.path] = There(item.path, int(item.size), str(item.blob_id), sha256)
            if len(found) > limits.MIRROR_TREE_FILES:
                raise ResponseInvalid(f"{self.url} has too many files", expected=f"{limits.MIRROR_TREE_FILES} at most")
        return found

    def read(self, commit: str, file: There) -> bytes:
        """The bytes of a small file."""
        if file.size > limits.MIRROR_SMALL_BYTES and file.sha256 is None:
            raise ResponseInvalid(f"{self.url} keeps {file.path} in git", expected="a large file", found=file.size)
        with (
            reported("read a file of the Hub into", self._scratch),
            tempfile.TemporaryDirectory(dir=self._scratch, prefix="reread-") as folder,
        ):
            path = self._ask(
                f"reading {file.path} of",
                lambda: self._api.hf_hub_download(
                    self._repository,
                    file.path,
                    revision=commit,
                    local_dir=folder,
                    force_download=True,
                    tqdm_class=metered(file.path, file.size),
                ),
            )
            with Path(path).open("rb") as stream:
                data = stream.read(file.size + 1)
        if len(data) != file.size:
            raise ResponseInvalid(f"{self.url} has {file.path} in another size", expected=file.size, found=len(data))
        return data

    def messages(self, revision: str) -> Sequence[str]:
        """The messages of the newest commits, newest first."""
        return self._ask("reading the history of", lambda: self._history(revision))

    def _history(self, revision: str) -> Sequence[str]:
        # The library's own listing ends when the Hub ends it, and reads years of commits for the newest few.
        from huggingface_hub.utils import paginate

        place = f"{self._hub.endpoint}/api/models/{self._repository}/commits/{quote(revision, safe='')}"
        listed = paginate(place, params={}, headers=self._api._build_hf_headers())  # noqa: SLF001
        newest = itertools.islice(listed, limits.MIRROR_HISTORY_COMMITS)
        return [f"{item['title']}\n\n{item['message']}" for item in newest]

    def branch(self, name: str, start: str) -> None:
        """Make a branch. One that is there already stays as it is."""
        self._ask(
            f"making branch {name} of",
            lambda: self._api.create_branch(self._repository, branch=name, revision=start, exist_ok=True),
        )

    def commit(self, branch: str, parent: str, change: Change, *, title: str, message: str) -> str:
        """Commit to a branch whose head is ``parent``; answers the new head. Raises Conflict if it is another."""
        done = self._ask(
            f"committing to {branch} of",
            # Operations are used up by a try, so each makes its own.
            lambda: self._api.create_commit(
                self._repository, list(_operations(change)), commit_message=title, commit_description=message,
                revision=branch, parent_commit=parent,
            ),
        )  # fmt: skip
        return str(done.oid)

    def tag(self, name: str, commit: str) -> None:
        """Set a tag that is not there."""
        self._ask(f"setting tag {name} of", lambda: self._api.create_tag(self._repository, tag=name, revision=commit))

    def untag(self, name: str) -> None:
        """Remove a tag, if it is there."""
        self._gone(f"removing tag {name} of", lambda: self._api.delete_tag(self._repository, tag=name))

    def drop(self, branch: str) -> None:
        """Remove a branch, if it is there."""
        self._gone(f"removing branch {branch} of", lambda: self._api.delete_branch(self._repository, branch=branch))

    def _gone(self, what: str, call: Callable[[], object]) -> None:
        try:
            self._ask(what, call)
        except NotFound as error:
            if isinstance(error, EntryNotFound):
                raise

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        return self._hub.patiently(call, what=f"{what} {self._repository}")


def _operations(change: Change) -> Iterable[Any]:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    for path in change.deletes:
        yield CommitOperationDelete(path_in_repo=path, is_folder=False)
    for path, data in change.puts.items():
        yield CommitOperationAdd(path_in_repo=path, path_or_fileobj=data if isinstance(data, bytes) else str(data))
    for path in change.copies:
        yield CommitOperationCopy(src_path_in_repo=path, path_in_repo=path, src_revision=change.origin)


def _pointers(listed: Iterable[Any]) -> dict[str, str]:
    return {str(item.name): str(item.target_commit) for item in listed}
