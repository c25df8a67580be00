# SPDX-License-Identifier: Apache-2.0
"""Contenders of ours for push. Prints the seconds of each phase.

``hash DIR`` is pass 1 alone; ``push DIR REFERENCE KEY STATE`` a whole push, with registry, token and trust from the
environment.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pq_registry.client.crew import cores


class Phases:
    """A Progress that keeps the time of each phase; ``hash DIR`` becomes ``hash``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._label = ""
        self._begun = 0.0

    def start(self, label: str, total_bytes: int) -> None:
        self._label, self._begun = label.partition(" ")[0], time.perf_counter()

    def advance(self, count: int) -> None:
        pass

    def done(self) -> None:
        self.seconds[self._label] = time.perf_counter() - self._begun


def hash_pass(directory: Path) -> dict[str, float]:
    """Read every file once for SHA-256, BLAKE3 of shards and tensor tables."""
    from pq_registry.client.hashing import hash_files
    from pq_registry.client.scan import SourceDirectory

    phases = Phases()
    begun = time.perf_counter()
    with SourceDirectory(directory) as source:
        phases.start("hash", 0)
        hash_files(source, source.scan().files, workers=cores(), progress=phases)
    return {"seconds": time.perf_counter() - begun}


def whole_push(directory: Path, reference: str, key: Path, state: Path) -> dict[str, float]:
    """What ``pqreg push`` does."""
    from pq_registry.client.push import push
    from pq_registry.client.tagging import Publisher
    from pq_registry.client.transport import RegistryClient
    from pq_registry.format.instant import utc_now
    from pq_registry.format.name import Reference
    from pq_registry.settings import Settings
    from pqreg_keys.source import FileKeySource

    settings, phases = Settings(), Phases()
    begun = time.perf_counter()
    with RegistryClient(settings.require("registry"), settings.get("token")) as client:
        publisher = Publisher(client=client, signer=FileKeySource().open(key), state_dir=state, now=utc_now())
        push(directory, Reference.parse(reference), publisher=publisher, progress=phases)
    total = time.perf_counter() - begun
    return {**{f"{label}_seconds": seconds for label, seconds in phases.seconds.items()}, "seconds": total}


if __name__ == "__main__":
    if sys.argv[1] == "hash":
        print(json.dumps(hash_pass(Path(sys.argv[2]))))
    else:
        print(json.dumps(whole_push(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))))
