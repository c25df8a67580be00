# SPDX-License-Identifier: Apache-2.0
"""A registry whose releases are mirrored, and a Hub in memory that counts requests and fails where a test says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.client.verify import verify_directory
from pq_registry.errors import Conflict, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Reference, RepositoryName, Tag
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.trustfile import TrustFile
from pq_registry.mirror.config import Mirror
from pq_registry.mirror.outcome import Report, State
from pq_registry.mirror.reconcile import Place, Round
from pq_registry.mirror.target import MAIN, Change, References, There
from tests.hub_site import HubSite
from tests.logsamples import compose_policy
from tests.samples import trust_file

HUB = "https://hub.example.org"
ATTRIBUTES = b"*.bin filter=lfs\n"
CHANGES = frozenset({"ensure", "branch", "commit", "tag", "untag", "drop"})
GIT_BYTES = 100
"""What is smaller a Hub keeps in git."""


class Killed(BaseException):
    """The process ended."""


@dataclass
class Made:
    """A commit."""

    files: dict[str, bytes]
    message: str
    parent: str | None


@dataclass
class MemoryHub:
    """One repository of a Hub. ``before`` and ``after`` are called around every request with its name and number."""

    url: str = f"{HUB}/acme-ai/minilm"
    commits: dict[str, Made] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    before: Callable[[str, int], None] = lambda _name, _number: None
    after: Callable[[str, int], None] = lambda _name, _number: None
    listed: Callable[[str, dict[str, There]], dict[str, There]] = lambda _commit, files: files
    private: bool | None = None

    def at(self, name: str) -> dict[str, bytes]:
        """The files that whoever downloads a branch or tag gets, without the Hub's own."""
        commit = self.branches.get(name) or self.tags[name]
        return {path: data for path, data in self.commits[commit].files.items() if path != ".gitattributes"}

    def push(
        self, branch: str, puts: Mapping[str, bytes], message: str = "by hand", deletes: Sequence[str] = ()
    ) -> str:
        """Somebody else's commit."""
        parent = self.branches.get(branch)
        files = dict(self.commits[parent].files) if parent else {}
        for path in deletes:
            del files[path]
        return self._commit(branch, parent, {**files, **puts}, message)

    @property
    def changes(self) -> list[str]:
        """The requests that were to change something."""
        return [name for name in self.calls if name in CHANGES]

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        self.calls.append(name)
        number = len(self.calls)
        self.before(name, number)
        yield
        self.after(name, number)

    def _commit(self, branch: str, parent: str | None, files: dict[str, bytes], message: str) -> str:
        content = repr((parent, sorted(files.items()), message, len(self.commits))).encode()
        commit = hashlib.sha1(content).hexdigest()
        self.commits[commit] = Made(files, message, parent)
        self.branches[branch] = commit
        return commit

    # -- what a mirror asks ------------------------------------------------------------------------------------------

    def ensure(self, *, private: bool) -> None:
        with self._call("ensure"):
            if not self.branches:
                self.private = private
                self._commit(MAIN, None, {".gitattributes": ATTRIBUTES}, "initial commit")

    def references(self) -> References | None:
        with self._call("references"):
            return References(dict(self.branches), dict(self.tags)) if self.branches else None

    def files(self, commit: str) -> Mapping[str, There]:
        with self._call("files"):
            found = {}
            for path, data in self.commits[commit].files.items():
                blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                found[path] = There(path, len(data), blob, None if len(data) < GIT_BYTES else Digest.of(data))
            return self.listed(commit, found)

    def read(self, commit: str, file: There) -> bytes:
        with self._call("read"):
            return self.commits[commit].files[file.path]

    def messages(self, revision: str) -> Sequence[str]:
        with self._call("messages"):
            found, commit = [], self.branches.get(revision, revision)
            while commit is not None:
                made = self.commits[commit]
                found.append(made.message)
                commit = made.parent  # type: ignore[assignment]
            return found

    def branch(self, name: str, start: str) -> None:
        with self._call("branch"):
            self.branches.setdefault(name, start)

    def commit(self, branch: str, parent: str, change: Change, *, title: str, message: str) -> str:
        with self._call("commit"):
            if self.branches[branch] != parent:
                raise Conflict("the branch moved", expected=parent, found=self.branches[branch])
            files = dict(self.commits[parent].files)
            for path in change.deletes:
                del files[path]
            for path in change.copies:
                assert change.origin is not None
                files[path] = self.commits[change.origin].files[path]
            for path, data in change.puts.items():
                files[path] = data if isinstance(data, bytes) else data.read_bytes()
            return self._commit(branch, parent, files, f"{title}\n\n{message}")

    def tag(self, name: str, commit: str) -> None:
        with self._call("tag"):
            if name in self.tags:
                raise Conflict("the tag exists")
            assert commit in self.commits
            self.tags[name] = commit

    def untag(self, name: str) -> None:
        with self._call("untag"):
            self.tags.pop(name, None)

    def drop(self, branch: str) -> None:
        with self._call("drop"):
            if self.branches.pop(branch, None) is None:
                raise NotFound("no such branch")


@dataclass
class Mirroring:
    """A machine that mirrors one registry to one Hub."""

    site: HubSite
    home: Path
    hub: MemoryHub = field(default_factory=MemoryHub)
    mirror: Mirror = field(default_factory=lambda: a_mirror())
    trust: TrustFile = field(default_factory=lambda: a_trust())

    def client(self) -> RegistryClient:
        """A client of the registry."""
        return RegistryClient(self.site.url, self.site.token, sleep=lambda _seconds: None)

    def verifier(self, *, online: bool = True) -> Verifier:
        """What is believed."""
        return Verifier(self.trust.encode(), utc_now(), online=online)

    def round(self, *names: str, **options: Any) -> Report:
        """One round over the repositories named, by default acme/minilm."""
        wanted = [RepositoryName.parse(name) for name in names or ("acme/minilm",)]
        with self.client() as client:
            place = Place(
                client=client, verifier=self.verifier(), state_dir=self.home / "state", staging=self.home / "staging"
            )
            return Round(self.mirror, place, lambda _path: self.hub, clock=lambda: 0.0, **options).run(wanted)

    def write(self, name: str, into: Path) -> Path:
        """The files of a branch or tag, as somebody who downloads them has them."""
        for path, data in self.hub.at(name).items():
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            (into / path).write_bytes(data)
        return into

    def verify(self, name: str, into: Path, digest: Digest) -> None:
        """Hold a branch or tag against the trust file, offline and completely."""
        expected = Reference.parse(f"acme/minilm@{digest}")
        verify_directory(self.write(name, into), self.verifier(online=False), expected=expected, full=True)


def a_mirror(**fields: Any) -> Mirror:
    """A mirror of everything that acme has tagged."""
    mirror = Mirror(name="hub", hub=HUB, namespace="acme-ai", repositories=("acme/*",), tags=("*",), main=Tag("main"))
    return replace(mirror, **fields)


def a_trust() -> TrustFile:
    """A trust file for acme and the log of a registry under test."""
    return trust_file(log=(LogPolicy(compose_policy()),))


def states(report: Report) -> dict[str | None, State]:
    """What became of each tag."""
    return {one.tag: one.state for one in report.outcomes}
