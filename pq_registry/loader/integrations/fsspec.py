# SPDX-License-Identifier: Apache-2.0
"""``pqreg://namespace/name[:tag][@digest]/path``: releases as a read-only file system of fsspec.

::

    with fsspec.open("pqreg://acme/teuken-7b:v1/config.json") as file: ...
    fs = fsspec.filesystem("pqreg", registry="https://models.example.org", trust="trust.json")
    fs.ls("acme/teuken-7b:v1")

A release is verified when the first path of it is used (DESIGN §5, steps 0 to 7), and every byte before it is handed
out (step 8): what is read is the shards that hold it. A tag is resolved once per file system object, which from then on
shows that release, until ``invalidate_cache`` forgets it. Files of a sealed release appear in the clear.

Storage options are those of ``open_verified`` that say how a release is found: ``registry``, ``token``, ``trust``,
``recipient_key``, ``connections``, ``io``; and ``directory``, a directory that holds the release that paths name.

Failures are errors of ``pq_registry.errors``, except where fsspec's users rely on Python's own: ``FileNotFoundError``
for a path that is not in the release, ``IsADirectoryError`` and ``NotADirectoryError``.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pq_registry import limits
from pq_registry.errors import UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import Reference
from pq_registry.loader.api import open_verified
from pq_registry.loader.opened import Opened

try:
    from fsspec.spec import AbstractFileSystem
except ImportError:
    raise UsageError("fsspec is not installed", expected="fsspec", hint='pip install "pq-registry[fsspec]"') from None

OPTIONS: Final = ("registry", "token", "trust", "recipient_key", "connections", "io")
"""Storage options that are those of ``open_verified``."""
_BUFFER_BYTES: Final = 256 * 1024


class PqregFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Releases, as directories of verified files."""

    protocol = "pqreg"
    root_marker = ""

    def __init__(self, directory: str | os.PathLike[str] | None = None, **storage_options: Any) -> None:
        """Nothing is opened before the first path is used.

        Args:
            directory: read releases from here instead of a registry; paths then name a release without a tag.
            **storage_options: ``OPTIONS``, and what fsspec itself knows.
        """
        super().__init__(**storage_options)
        self._directory = None if directory is None else Path(directory)
        self._options = {name: storage_options[name] for name in OPTIONS if name in storage_options}
        self._guard = threading.RLock()
        self._releases: dict[str, _Release] = {}
        self._inherited: list[dict[str, _Release]] = []
        self._process = os.getpid()

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what releases tags meant, all or that of ``path``; files that are open stay readable no longer."""
        with self._guard:
            for text in list(self._releases) if path is None else [_divide(self._strip_protocol(path))[0]]:
                release = self._releases.pop(text, None)
                if release is not None:
                    release.opened.close()

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        """How fsspec describes this object; without passwords, without the token too."""
        described: dict[str, Any] = super().to_dict(include_password=include_password)
        if not include_password:
            described.pop("token", None)
        return described

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What is in a directory of a release, or the file itself."""
        text, inner = _divide(self._strip_protocol(path))
        release = self._release(text)
        if inner in release.files:
            found = [self._file(text, release, inner)]
        else:
            release.require_folder(path, inner)
            found = [self._entry(text, release, name) for name in release.folders[inner]]
        return found if detail else [one["name"] for one in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What a path is: type, size, and for a file its SHA-256 as signed. Raises FileNotFoundError."""
        text, inner = _divide(self._strip_protocol(path))
        release = self._release(text)
        if inner not in release.files:
            release.require_folder(path, inner)
        return self._entry(text, release, inner)

    def checksum(self, path: str) -> str:
        """The file's SHA-256 as signed; of a directory, the release's digest."""
        found = self.info(path)
        return str(found.get("sha256", found["release"]))

    ukey = checksum

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The content of a file, or a range of it; negative positions count from its end."""
        release, inner = self._file_at(path)
        begin, stop, _step = slice(start, end).indices(release.files[inner].size)
        return release.opened.read_range(inner, begin, max(begin, stop))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> VerifiedFile:
        if mode != "rb":
            raise _read_only()
        release, inner = self._file_at(path)
        return VerifiedFile(release.opened, release.files[inner])

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise _read_only()

    # Some of these do nothing in fsspec's base class, which would look like success.
    mkdir = makedirs = rmdir = rm = rm_file = _rm = cp_file = mv = touch = _refuse

    def _file_at(self, path: str) -> tuple[_Release, str]:
        text, inner = _divide(self._strip_protocol(path))
        release = self._release(text)
        if inner not in release.files:
            release.require_folder(path, inner)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return release, inner

    def _release(self, text: str) -> _Release:
        if os.getpid() != self._process:
            # Forked: threads and connections are the parent's, a lock may be held for ever. What was inherited is kept,
            # so that nothing of the parent's is closed here.
            self._inherited.append(self._releases)
            self._guard, self._releases, self._process = threading.RLock(), {}, os.getpid()
        with self._guard:
            found = self._releases.get(text)
            if found is None:
                found = self._releases[text] = _Release(self._opened(text))
            return found

    def _opened(self, text: str) -> Opened:
        Reference.parse(text)
        if self._directory is None:
            return open_verified(text, framework="numpy", **self._options)
        return open_verified(self._directory, expect=text, framework="numpy", **self._options)

    def _entry(self, text: str, release: _Release, inner: str) -> dict[str, Any]:
        if inner in release.files:
            return self._file(text, release, inner)
        name = f"{text}/{inner}" if inner else text
        return {"name": name, "size": 0, "type": "directory", "release": release.opened.digest}

    def _file(self, text: str, release: _Release, inner: str) -> dict[str, Any]:
        entry = release.files[inner]
        return {
            "name": f"{text}/{inner}",
            "size": entry.size,
            "type": "file",
            "sha256": str(entry.sha256),
            "release": release.opened.digest,
        }


class VerifiedFile(io.BufferedReader):
    """A file of a release, open for reading: seekable, and every byte verified before it is returned."""

    def __init__(self, opened: Opened, entry: FileEntry) -> None:
        super().__init__(_Raw(opened, entry), _BUFFER_BYTES)
        self.size = entry.size


class _Raw(io.RawIOBase):
    """``VerifiedFile`` without its buffer."""

    def __init__(self, opened: Opened, entry: FileEntry) -> None:
        super().__init__()
        self._opened = opened
        self._entry = entry
        self._at = 0
        self._last = -1

    @property
    def name(self) -> str:
        """The path in the release."""
        return self._entry.path.text

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset``, counted as ``whence`` says."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._entry.size}.get(whence)
        if base is None or base + offset < 0:
            raise UsageError(f"{self.name} has no such position", expected="0 or more", found=f"{offset} from {whence}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read and verify what fits into ``buffer``."""
        view = memoryview(buffer).cast("B")
        size = max(0, min(len(view), self._entry.size - self._at))
        if size:
            self._opened.read_into(self._entry, self._at, view[:size])
            if self._at == self._last:  # from front to back: the next shard comes while this one is looked at
                self._opened.prefetch(self._entry, ((self._at + size) // limits.SHARD_BYTES + 1) * limits.SHARD_BYTES)
            self._at += size
            self._last = self._at
        return size


class _Release:
    """An opened release, as files and folders by path."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.files: Mapping[str, FileEntry] = {entry.path.text: entry for entry in opened.files()}
        self.folders: dict[str, list[str]] = {"": []}
        for path in self.files:
            while True:
                folder = path.rpartition("/")[0]
                known = folder in self.folders
                self.folders.setdefault(folder, []).append(path)
                if known:
                    break
                path = folder  # noqa: PLW2901  and now the folder in the folder above it

    def require_folder(self, path: str, inner: str) -> None:
        """Refuse what is neither a file nor a folder. Raises FileNotFoundError or NotADirectoryError."""
        if inner in self.folders:
            return
        above = inner
        while above := above.rpartition("/")[0]:
            if above in self.files:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _read_only() -> UsageError:
    return UsageError("releases are read-only", expected="reading", hint="pqreg push makes a new release")


def _divide(path: str) -> tuple[str, str]:
    """The reference in front of a path, and the path in the release."""
    namespace, _, rest = path.partition("/")
    name, _, inner = rest.partition("/")
    if not name:
        raise FileNotFoundError(errno.ENOENT, "expected pqreg://namespace/name[:tag][@digest]/path", path)
    return f"{namespace}/{name}", inner
