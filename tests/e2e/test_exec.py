# SPDX-License-Identifier: Apache-2.0
"""pqreg exec on a sealed release of a registry: plaintext for the command, and what it needs to load weights itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.format.digest import Digest
from pqreg_keys import custody
from tests.exec_node import LIST, PATIENCE, Node
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[tuple[SealingSite, Node]]:
    """A registry with a sealed release, and a node it was granted to."""
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path / "site")
        node = Node(tmp_path / "node", Digest("0" * 64))
        node.place.mkdir(parents=True)
        (node.home / "trust.json").write_bytes(site.trust.encode())
        custody.store(node.home / "node.pqkey", recipient(), None)
        site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        yield site, node
        site.close()


def exec_remote(site: SealingSite, node: Node, *more: str, key: bool = True) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pqreg_cli", "exec", f"{NAME}:v1", "--registry", site.registry.url]
    words += ["--recipient-key", "node.pqkey"] if key else []
    return subprocess.run([*words, *more], env=node.environment, cwd=node.home, capture_output=True, text=True,
                          timeout=PATIENCE, stdin=subprocess.DEVNULL)  # fmt: skip


def test_a_sealed_release_in_the_clear_and_its_key_by_path(sealed: tuple[SealingSite, Node]) -> None:
    site, node = sealed
    done = exec_remote(site, node, "--with-weights", "--", sys.executable, "-c", LIST, "{dir}", "{config}")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {name: bytes.fromhex(content) for name, content in said["files"].items()} == model_files()
    assert json.loads(said["words"][0]) == {"release": f"{NAME}@{site.release().digest}"}
    assert "PQREG_RECIPIENT_KEY" not in said["environment"]
    assert node.is_clean()
    done = exec_remote(site, node, "--", sys.executable, "-c", LIST, "{dir}", "{config}")
    # What loads the weights needs the key, and may change its directory.
    assert json.loads(done.stdout)["environment"]["PQREG_RECIPIENT_KEY"] == str(node.home / "node.pqkey")
    done = exec_remote(site, node, "--memfd", "model.safetensors", "--", "cksum", "{file}")
    whole = subprocess.run(["cksum"], input=model_files()["model.safetensors"], capture_output=True, check=True)
    assert done.stdout.split()[:2] == whole.stdout.decode().split()[:2]


def test_a_sealed_release_without_a_key_is_not_run(sealed: tuple[SealingSite, Node]) -> None:
    site, node = sealed
    done = exec_remote(site, node, "--", "sh", "-c", "echo ran", "sh", "{dir}", key=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--recipient-key" in done.stderr
    assert node.is_clean()


def test_a_passphrase_that_can_be_read_once_is_pointed_out(sealed: tuple[SealingSite, Node]) -> None:
    site, node = sealed
    done = exec_remote(site, node, "--passphrase-fd", "0", "--", "true", "{dir}")
    assert done.returncode == 0, done.stderr
    assert "--passphrase-file" in done.stderr
