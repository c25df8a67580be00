# SPDX-License-Identifier: Apache-2.0
"""The stage: keys, trust, registries and directories under ``build/bench``, all gone afterwards except the corpus."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.benchmarks.contest import Patience, process_cpu

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "acme/bench:v1"
REPOSITORY = "acme/bench"
SEALED_REPOSITORY = "acme/sealed"
_READY = re.compile(r"^pqreg: serving on (http://\S+) data ", re.MULTILINE)


@dataclass(frozen=True)
class Registry:
    """A registry that runs."""

    url: str
    token: str
    pid: int

    def cpu(self) -> float:
        """Its CPU seconds so far."""
        return process_cpu(self.pid)


class Stage:
    """Everything the contenders need. Use as a context manager."""

    def __init__(self, base: Path, corpus: Path, patience: Patience) -> None:
        """Work below ``base``, with the model in ``corpus``; ``patience`` is that of all runs."""
        self.work = base / f"work-{os.getpid()}"
        self.corpus = corpus
        self.patience = patience
        self.key = self.work / "keys" / "alice.pqkey"
        self.trust = self.work / "trust.json"
        self.release = self.work / "release"
        self.sealed = self.work / "sealed"
        self.recipient = self.work / "keys" / "node1.pqkey"
        paths = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PQREG_", "XDG_", "HF_"))}
        self.env = {
            **kept,
            "HOME": str(self.work / "home"),
            "PYTHONPATH": paths,
            "PQREG_TRUST": str(self.trust),
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def __enter__(self) -> Self:
        for left in self.work.parent.glob("work-*"):
            if not Path("/proc", left.name.removeprefix("work-")).exists():
                shutil.rmtree(left, ignore_errors=True)
        (self.work / "home").mkdir(parents=True)
        try:
            self.pqreg("key", "generate", "alice", "--dir", str(self.key.parent), "--no-passphrase")
            self.pqreg("trust", "init", str(self.trust), "--publisher", f"acme={self.key.with_suffix('.pqpub')}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    @property
    def size(self) -> int:
        """Bytes of the model."""
        return sum(file.stat().st_size for file in self.files())

    def files(self) -> list[Path]:
        """The files of the model."""
        return sorted(file for file in self.corpus.rglob("*") if file.is_file())

    def command(self, *words: str) -> list[str]:
        """A ``pqreg`` command."""
        return [sys.executable, "-m", "pqreg_cli", *words]

    def child(self, module: str, *words: str) -> list[str]:
        """A contender of ours written in Python: ``tests.benchmarks.<module>``."""
        return [sys.executable, "-m", f"tests.benchmarks.{module}", *words]

    def pqreg(self, *words: str, env: dict[str, str] | None = None) -> str:
        """Run ``pqreg`` and give what it prints.

        Raises:
            RuntimeError: if it fails.
        """
        done = subprocess.run(
            self.command(*words), check=False, capture_output=True, text=True, env=env or self.env, timeout=1800
        )
        if done.returncode:
            raise RuntimeError(f"pqreg {' '.join(words)}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def env_for(self, registry: Registry) -> dict[str, str]:
        """The environment of a client of ``registry``."""
        return {**self.env, "PQREG_REGISTRY": registry.url, "PQREG_TOKEN": registry.token}

    @contextlib.contextmanager
    def serving(self, name: str, *, token: str | None = None, **settings: str) -> Iterator[Registry]:
        """A registry with an empty data directory; stopped and removed afterwards, whatever happens.

        ``settings`` are exported to it: ``PQREG_STORAGE`` and such. ``token`` is its admin's, if another instance made
        it.
        """
        data, log = self.work / name, self.work / f"{name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                self.command("serve", "--data", str(data), "--listen", "127.0.0.1:0"),
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**self.env, **settings},
            )  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while (ready := _READY.search(log.read_text())) is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"pqreg serve did not start: {log.read_text()[-600:]}")
                time.sleep(0.05)
            yield Registry(ready[1], token or (data / "admin.token").read_text().strip(), process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(data, ignore_errors=True)

    def push(self, registry: Registry) -> None:
        """Publish the model."""
        words = ("push", str(self.corpus), REFERENCE, "--key", str(self.key), "--quiet")
        self.pqreg(*words, env={**self.env_for(registry), "XDG_STATE_HOME": str(self.work / "publisher")})

    def make_release(self, registry: Registry) -> None:
        """A verified directory of the release, with its evidence."""
        if not self.release.exists():
            self.pqreg("pull", REFERENCE, str(self.release), "--quiet", env=self.env_for(registry))

    def make_sealed(self, registry: Registry) -> None:
        """The model again, sealed for a recipient of its own: a verified directory of ciphertext and its grant."""
        if self.sealed.exists():
            return
        environment = {**self.env_for(registry), "XDG_STATE_HOME": str(self.work / "publisher")}
        reference = f"{SEALED_REPOSITORY}:v1"
        self.pqreg("key", "generate", "node1", "--recipient", "--dir", str(self.key.parent), "--no-passphrase")
        words = ("push", str(self.corpus), reference, "--key", str(self.key), "--quiet", "--seal")
        self.pqreg(*words, "--to", str(self.recipient.with_suffix(".pqpub")), env=environment)
        self.pqreg("pull", reference, str(self.sealed), "--sealed", "--quiet", env=environment)

    def blobs(self) -> dict[str, str]:
        """Path of each file of the release to its blob's route."""
        manifest = json.loads((self.release / "pqreg.json").read_bytes())
        return {
            entry["path"]: f"/v1/blobs/sha256/{entry['sha256'].removeprefix('sha256:')}" for entry in manifest["files"]
        }

    def rates(self) -> dict[str, float]:
        """What the machine can do by itself, in GB/s."""
        self.patience.wait()
        file = max(self.files(), key=lambda path: path.stat().st_size)
        self.warm(self.corpus)
        command = self.child("child_machine", str(file), str(self.work / "scratch"))
        done = subprocess.run(command, check=True, env=self.env, cwd=ROOT, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def warm(self, directory: Path) -> None:
        """Read every file, so that all contenders find it in the page cache."""
        for file in directory.rglob("*"):
            if file.is_file():
                with file.open("rb", buffering=0) as stream:
                    while stream.read(8 << 20):
                        pass
