# SPDX-License-Identifier: Apache-2.0
"""The jobs of ``make bench-load``: one model, loaded in every way, from page cache, from disk and over HTTP.

Two turns, because memory decides much of it: the ``first`` load of a process, whose allocator has to ask the kernel
for every page a loader wants, and one ``again`` in a process that was told to keep what it frees, so that what is left
is the loader's own work. Each run is a process of its own either way.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contest import Contender, Section, contest
from tests.benchmarks.loaders import (
    BUFFERED,
    LOADERS,
    SEALED_TENSORS,
    TENSORS,
    Loader,
    tensorizer_can_encrypt,
    weights,
)
from tests.benchmarks.sections import CONNECTIONS, CORES, shell
from tests.benchmarks.stage import REFERENCE, ROOT, SEALED_REPOSITORY, Registry, Stage

KEPT = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_TOP_PAD_": "0"}
"""glibc keeps what is freed, whatever its size."""
STOCK = "a stock allocator: the first load of a process"
RETAINED = "memory retained: the second load of a process that keeps what it frees"
FLOOR = "preadv, {} threads, into {} memory (no tensors, nothing verified)"
PEER_REPOSITORY = "acme/tensorizer"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a loader finds the model: what it is told, and the files behind that."""

    source: str
    files: Sequence[Path]


class Loads:
    """The sections, on one stage."""

    def __init__(self, stage: Stage, rounds: int) -> None:
        """Measure on ``stage``, ``rounds`` times."""
        self.stage = stage
        self.rounds = rounds
        self.tensors = stage.work / "tensorizer"
        self.absent: dict[str, str] = {}
        """What was left out, and why."""
        for key, loader in LOADERS.items():
            if not loader.installed:
                self.absent[key] = f"{loader.name} is not installed"
        if "tensorizer-sealed" not in self.absent and not tensorizer_can_encrypt():
            self.absent["tensorizer-sealed"] = f"{LOADERS['tensorizer-sealed'].name} needs libsodium"

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(path.stat().st_size for path in weights(self.stage.corpus))

    def make_tensors(self, *keys: str) -> None:
        """The model in tensorizer's format, for the loaders ``keys``."""
        for key in keys:
            target = Path(self.place(key).source)
            if key not in self.absent and not target.exists():
                self.tensors.mkdir(exist_ok=True)
                command = self.stage.child("loaders", str(self.stage.corpus), str(target))
                subprocess.run(command, check=True, env=self.stage.env, cwd=ROOT, stdout=subprocess.DEVNULL)

    def place(self, key: str) -> Place:
        """Where ``key`` loads from, on this machine."""
        if key.startswith("tensorizer"):
            path = self.tensors / (SEALED_TENSORS if key == "tensorizer-sealed" else TENSORS)
            return Place(str(path), [path])
        directory = self.stage.sealed if key == "pqreg-sealed" else self.stage.release
        return Place(str(directory), sorted(path for path in directory.rglob("*") if path.is_file()))

    def into(self, *, kept: bool) -> Section:
        """Into parameters that exist, from page cache."""
        env = {**BUFFERED, **KEPT} if kept else BUFFERED
        notes = ["every tensor ends in a parameter that existed and was touched before"]
        return self._section(
            f"into-{'retained' if kept else 'stock'}",
            f"load into existing parameters, from page cache, {RETAINED if kept else STOCK}",
            [self._local(key, "into", "again" if kept else "first", env, warm) for key in ("read", *LOADERS)],
            notes=notes,
        )

    def own(self, *, kept: bool) -> Section:
        """New tensors that nobody else can change, from page cache."""
        keys = ("read", "pqreg", "pqreg-sealed", "safetensors", "fastsafetensors")
        env = {**BUFFERED, **KEPT} if kept else BUFFERED
        return self._section(
            f"own-{'retained' if kept else 'stock'}",
            f"load as new tensors, from page cache, {RETAINED if kept else STOCK}",
            [self._local(key, "own", "again" if kept else "first", env, warm) for key in keys],
            notes=[f"the model is {self.size / 2**20:.0f} MiB of what is private; peers' tensors are cloned"],
        )

    def cold(self) -> Section:
        """Into parameters that exist, from the disk."""
        return self._section(
            "cold",
            f"load into existing parameters, page cache dropped, {STOCK}",
            [self._local(key, "into", "first", {}, drop) for key in ("read", *LOADERS)],
            notes=[
                "posix_fadvise drops the files' pages before each run; the disk's own cache, and the host's, stay",
                "each loader reads as it does by default: fastsafetensors and runai past the page cache",
            ],
        )

    def http(self, registry: Registry) -> Section:
        """Into parameters that exist, from a registry on loopback."""
        env = {
            **self.stage.env_for(registry),
            "PQREG_CONNECTIONS": str(CONNECTIONS),
            "PQREG_RECIPIENT_KEY": str(self.stage.recipient),
        }
        blobs = self.stage.blobs()
        parts = [f"{path}={blobs[path.name]}" for path in weights(self.stage.release)]
        urls = " ".join(shlex.quote(f"{registry.url}{blobs[path.name]}") for path in weights(self.stage.release))
        header = shlex.quote(f"Authorization: Bearer {registry.token}")
        sinks = " ".join(["-o /dev/null"] * len(parts))
        curl = f"curl -q -sS --fail -Z --parallel-max {CONNECTIONS} -H {header} {sinks} {urls}"
        told = f"{CONNECTIONS} connections"

        def contender(name: str, command: list[str], *, ours: bool = False) -> Contender:
            return Contender(name=name, command=command, env=env, helpers=registry.cpu, ours=ours)

        contenders = [
            contender(f"http.client, {told}, into touched memory (nothing verified)",
                      self._child("read", "into", "first", registry.url, *parts)),
            contender(f"curl, {told}, to /dev/null (nothing verified; start-up included)", shell(curl)),
        ]  # fmt: skip
        sources = {"pqreg": REFERENCE, "pqreg-sealed": f"{SEALED_REPOSITORY}:v1"}
        if "tensorizer" not in self.absent:
            sources |= dict.fromkeys(("tensorizer", "tensorizer-hash"), self._publish_tensors(registry))
        for key, source in sources.items():
            loader = LOADERS[key]
            command = self._child(key, "into", "first", source)
            contenders.append(contender(_name(loader), command, ours=loader.ours))
        return self._section(
            "http",
            f"load into existing parameters from a registry on loopback, plain HTTP, {STOCK}",
            contenders,
            notes=[
                f"client and registry share {CORES} CPUs; CPU s per GB: of the client, + of the registry",
                "safetensors, fastsafetensors and runai-model-streamer cannot read HTTP; tensorizer reads with curl",
            ],
        )

    def _publish_tensors(self, registry: Registry) -> str:
        """tensorizer's file, as one more blob of the registry; its URL. curl reads the token from its own file."""
        self.make_tensors("tensorizer")
        folder = self.stage.work / "published"
        folder.mkdir(exist_ok=True)
        (folder / TENSORS).unlink(missing_ok=True)
        (folder / TENSORS).hardlink_to(self.tensors / TENSORS)
        environment = {**self.stage.env_for(registry), "XDG_STATE_HOME": str(self.stage.work / "publisher")}
        words = (
            "push",
            str(folder),
            f"{PEER_REPOSITORY}:v1",
            "--key",
            str(self.stage.key),
            "--quiet",
            "--allow-unsafe",
        )
        self.stage.pqreg(*words, env=environment)
        told = self.stage.work / "home" / ".curlrc"
        told.touch(0o600)
        told.write_text(f'header = "Authorization: Bearer {registry.token}"\n')
        with (folder / TENSORS).open("rb") as file:
            return f"{registry.url}/v1/blobs/sha256/{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def _local(
        self, key: str, end: str, turn: str, env: Mapping[str, str], prepare: Callable[[Iterable[Path]], None]
    ) -> Contender | None:
        if key in self.absent:
            return None
        place = self.place("pqreg" if key == "read" else key)
        loader = LOADERS.get(key)
        return Contender(
            name=FLOOR.format(CORES, "touched" if end == "into" else "fresh") if loader is None else _name(loader),
            command=self._child(key, end, turn, place.source),
            env={**self.stage.env, **env, "PQREG_RECIPIENT_KEY": str(self.stage.recipient)},
            prepare=lambda: prepare(place.files),
            ours=loader is not None and loader.ours,
        )

    def _child(self, *words: str) -> list[str]:
        key, end, turn, source, *parts = words
        return self.stage.child("child_load", key, end, turn, source, str(self.stage.corpus), *parts)

    def _section(
        self, key: str, title: str, contenders: Sequence[Contender | None], *, notes: Sequence[str]
    ) -> Section:
        present = [contender for contender in contenders if contender is not None]
        names = [contender.name for contender in present]
        base = _name(LOADERS["safetensors"])
        return contest(
            key, title, present,
            rounds=self.rounds, patience=self.stage.patience, size=self.size,
            reference=base if base in names else names[0],
            notes=[*notes, *(f"left out: {reason}" for reason in self.absent.values())],
        )  # fmt: skip


def _name(loader: Loader) -> str:
    """With its version, as that decides much."""
    if loader.ours:
        return loader.name
    package = loader.module.partition(".")[0].replace("_", "-")
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return loader.name
    head, _, tail = loader.name.partition(" ")
    return f"{head} {version}" + (f" {tail}" if tail else "")


def warm(files: Iterable[Path]) -> None:
    """Read every file, so that it is in the page cache."""
    buffer = bytearray(8 << 20)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop(files: Iterable[Path]) -> None:
    """Have the page cache forget every file; what is not on the disk yet is written first."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
