# SPDX-License-Identifier: Apache-2.0
"""The scripted command lines up to the first pull, and what they leave: a registry, keys, trust and a release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.shell import Shell
from tests.tensors import safetensors_bytes

REFERENCE = "acme/minilm:v1"


@dataclass
class Story:
    """A registry that runs, a publisher's shell, and a directory with what was pushed and pulled."""

    root: Path
    shell: Shell
    url: str
    token: str
    log: Path

    def person(self, name: str, **settings: str) -> Shell:
        """Somebody else, who has the registry's URL, the token and the trust file unless told otherwise."""
        base = {"PQREG_REGISTRY": self.url, "PQREG_TOKEN": self.token, "PQREG_TRUST": str(self.root / "trust.json")}
        return Shell(self.root, name, **{**base, **settings})


def make_model(directory: Path) -> None:
    (directory / "1_Pooling").mkdir(parents=True)
    (directory / "config.json").write_text('{"hidden_size": 8}\n')
    (directory / "1_Pooling" / "config.json").write_text("{}\n")
    (directory / "README.md").write_text("A model for tests.\n")
    (directory / "empty.txt").write_bytes(b"")
    weights, _ = safetensors_bytes({"weight": ("F32", (1280, 1024)), "bias": ("BF16", (1280,))}, seed=2)
    (directory / "model.safetensors").write_bytes(weights)


@contextmanager
def told(root: Path) -> Iterator[Story]:
    """Run the command lines in ``root``; the registry is stopped at the end."""
    make_model(root / "model")
    shell = Shell(root, "alice")
    shell.run("key", "generate", "alice", "--dir", "keys", "--no-passphrase")
    shell.run("trust", "init", "trust.json", "--publisher", "acme=keys/alice.pqpub")
    with shell.serving("data") as (url, log):
        token = (root / "data" / "admin.token").read_text().strip()
        shell.export(PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_TRUST="trust.json")
        shell.run("push", "model", REFERENCE, "--key", "keys/alice.pqkey")
        shell.run("pull", REFERENCE, "out")
        yield Story(root, shell, url, token, log)


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".pqreg" not in path.parts
    }
