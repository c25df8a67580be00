# SPDX-License-Identifier: Apache-2.0
"""F5: files that are exchanged after they were verified, under a program that pqreg exec runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.exec_node import Node
from tests.releases import release_directory
from tests.sealing_site import sealed_trust
from tests.tensors import safetensors_bytes

WEIGHTS = safetensors_bytes({"w": ("F32", (3_000_000,))}, 1)[0]
# While the program runs, somebody alters the directory the release was verified in.
EXCHANGED = """
import json, sys
from pathlib import Path
import pq_registry
from pq_registry.errors import PqregError
directory, config = Path(sys.argv[1]), json.loads(sys.argv[2])
source = Path(config["directory"])
(source / "config.json").write_bytes(b'{"auto_map": "evil"}')
weights = bytearray((source / "model.safetensors").read_bytes())
weights[-1] ^= 1
(source / "model.safetensors").write_bytes(weights)
refused = []
for names in (["w"], None):
    try:
        pq_registry.load(source, expect=config["release"], framework="numpy", names=names)
    except PqregError as error:
        refused.append(error.code())
print(json.dumps([(directory / "config.json").read_text(), refused]))
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    digest = release_directory(tmp_path / "r", {"config.json": b'{"plain": "yes"}    ', "model.safetensors": WEIGHTS})
    (tmp_path / "trust.json").write_bytes(sealed_trust().encode())
    (tmp_path / "private").mkdir()
    return Node(tmp_path, digest)


def test_the_program_keeps_what_was_verified_and_gets_nothing_that_was_not(node: Node) -> None:
    done = node.run("-q", "--", sys.executable, "-c", EXCHANGED, "{dir}", "{config}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ['{"plain": "yes"}    ', ["shard-mismatch", "shard-mismatch"]]


def test_links_in_the_release_directory_lead_nowhere(node: Node) -> None:
    secret = node.home / "secret"
    secret.write_bytes(b'{"plain": "yes"}    ')
    (node.home / "r" / "config.json").unlink()
    (node.home / "r" / "config.json").symlink_to(secret)
    done = node.run("--", "sh", "-c", "echo ran", "sh", "{dir}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "config.json" in done.stderr
    assert node.is_clean()


def test_a_place_where_others_could_exchange_the_directory_is_refused(node: Node) -> None:
    node.place.chmod(0o777)
    done = node.run("-q", "--", "sh", "-c", "echo ran", "sh", "{dir}")
    assert (done.returncode, done.stdout) == (3, "")
    assert "private_dir" in done.stderr
    assert node.is_clean()
