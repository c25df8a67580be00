# SPDX-License-Identifier: Apache-2.0
"""Real processes, connected by torch.distributed (gloo): each byte is read and hashed once, and all fail together."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch (make test-torch)")

from pq_registry import limits
from tests.releases import release_directory, write_trust
from tests.tensors import safetensors_bytes

pytestmark = pytest.mark.torch
SHARD = limits.SHARD_BYTES
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Files of 6.7, 2.5 and 12 shards, among them a tensor of two, one of three, and an empty one."""
    a, truth = safetensors_bytes(
        {
            "a.big": ("BF16", (8, SHARD // 8)),
            "a.none": ("F32", (0, 3)),
            "a.rows": ("F32", (6, SHARD // 8)),
            "a.small": ("U8", (1000,)),
            "a.tail": ("U8", (SHARD + 7 * SHARD // 10,)),
        },
        1,
    )
    b, more = safetensors_bytes({"b.one": ("U8", (2 * SHARD,)), "b.two": ("U8", (SHARD // 2,))}, 2)
    c, rest = safetensors_bytes({"c.long": ("I64", (12, SHARD // 8))}, 3)  # more than is ever read ahead
    path = tmp_path_factory.mktemp("release")
    release_directory(path / "r", {"a.safetensors": a, "b.safetensors": b, "c.safetensors": c})
    write_trust(path / "trust.json")
    damaged = bytearray(a)
    damaged[5 * SHARD + 17] ^= 0x20
    (path / "damaged").mkdir()
    for file in (path / "r").iterdir():
        (path / "damaged" / file.name).write_bytes(damaged if file.name == "a.safetensors" else file.read_bytes())
    return path, {**truth, **more, **rest}


TASKS: dict[str, dict[str, Any]] = {
    "load": {"how": "load"},
    "iterate": {"how": "iter", "collective": True},
    "torch": {"how": "load", "options": {"framework": "torch"}},
    # Shard 5 is the last of the second window, so rank 2 reads it.
    "damaged": {"how": "iter", "release": "damaged"},
    "different": {"how": "iter", "only": {"1": {"names": ["a.small"]}}},
    "unopened": {"how": "load", "only": {"1": {"expect": "acme/other"}}},
    "unmeant": {"how": "load", "only": {"1": {"io": "fast"}}},
    "leave": {"how": "iter", "leave": [1, 1]},
    "drop": {"how": "iter", "drop": 1},
    "plan": {"how": "load", "options": {"plan": {"a.rows": "dim0", "a.big": "dim1:split", "b.two": "skip"}}},
    "groups": {"how": "load", "groups": [[0, 2], [1]]},
    "again": {"how": "iter", "window": 6},
    "exchange": {"how": "exchange"},
    "die": {"how": "iter", "die": [1, 1]},
}


@pytest.fixture(scope="module")
def found(release, tmp_path_factory) -> dict[str, list[dict[str, Any] | None]]:
    """What each of three ranks says of each task, all done by the same three processes, one task after another."""
    path, _ = release
    common = {"trust": str(path / "trust.json"), "window": 3}
    tasks = [{**common, **task, "release": str(path / task.get("release", "r"))} for task in TASKS.values()]
    work = {"store": str(tmp_path_factory.mktemp("store") / "store"), "size": 3, "tasks": tasks}

    def run(rank: int) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "rank_child.py")],
            input=json.dumps({**work, "rank": rank}),
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}:{ROOT / 'keys'}",
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert done.returncode in (0, 9), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(run, range(3)))
    assert [len(lines) for lines in said] == [len(TASKS), len(TASKS) - 1, len(TASKS)]
    return {name: [lines[number] for lines in said if number < len(lines)] for number, name in enumerate(TASKS)}


def digests(truth: dict[str, Any]) -> dict[str, str]:
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in truth.items()}


def stored_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path / "r").glob("*.safetensors"))


@pytest.mark.parametrize("task", ["load", "iterate", "torch", "again"])
def test_everybody_gets_everything_and_each_byte_is_read_and_hashed_once(release, found, task):
    path, truth = release
    stored = stored_bytes(path)
    for one in found[task]:
        assert "error" not in one, one
        assert one["tensors"] == digests(truth)
        assert one["stages"]["gather"] == stored - one["stages"]["read"]
    for stage in ("read", "hash"):
        assert sum(one["stages"][stage] for one in found[task]) == stored
        assert max(one["stages"][stage] for one in found[task]) < stored / 2


def test_a_damaged_shard_is_everybodys_error(release, found):
    for rank, one in enumerate(found["damaged"]):
        assert one["error"] == "ShardMismatch" and "shard 5 of a.safetensors" in one["text"], one
        assert one["text"].startswith("rank 2:") == (rank != 2)
        assert one["tensors"].items() <= digests(release[1]).items()
        assert not {"a.tail", "b.one"} & one["tensors"].keys()


def test_processes_that_would_load_different_things_are_told(found):
    for one in found["different"]:
        assert one["error"] == "UsageError" and "do not load the same" in one["text"] and not one["tensors"]


def test_one_that_cannot_open_the_release_is_everybodys_error(found):
    assert [one["error"] for one in found["unopened"]] == ["NameMismatch"] * 3
    assert [one["text"].startswith("rank 1: ") for one in found["unopened"]] == [True, False, True]


def test_options_of_one_that_cannot_be_meant_are_everybodys_error(found):
    for rank, one in enumerate(found["unmeant"]):
        assert one["error"] == "UsageError" and "no such io" in one["text"], one
        assert one["text"].startswith("rank 1:") == (rank != 1)
        assert one["seconds"] < 30


def test_one_that_ends_early_is_everybodys_error(found):
    assert "error" not in found["leave"][1] and list(found["leave"][1]["tensors"]) == ["a.big"]
    for one in (found["leave"][0], found["leave"][2]):
        assert one["error"] == "ConnectionFailed" and "rank 1 of the group stopped" in one["text"]


def test_one_that_never_begins_is_everybodys_error(found):
    assert "error" not in found["drop"][1] and not found["drop"][1]["tensors"]
    for one in (found["drop"][0], found["drop"][2]):
        assert one["error"] == "ConnectionFailed" and "lost one another" in one["text"]
        assert one["seconds"] < 30, "nobody waited for it to come"


def test_one_that_dies_is_everybodys_error(found):
    assert len(found["die"]) == 2
    for one in found["die"]:
        assert one["error"] == "ConnectionFailed", one


def test_with_a_plan_slices_are_read_alone_and_the_rest_is_shared(release, found):
    truth = release[1]
    for rank, one in enumerate(found["plan"]):
        assert "error" not in one, one
        expected = {**truth, "a.rows": truth["a.rows"][2 * rank : 2 * rank + 2]}
        expected["a.big"] = np.array_split(truth["a.big"], 3, axis=1)[rank]
        del expected["b.two"]
        assert one["tensors"] == digests(expected)
        assert one["stages"]["gather"] > 0
    # Some shards hold the end of one slice and the beginning of another; what is shared nobody reads twice.
    assert sum(one["stages"]["hash"] for one in found["plan"]) <= stored_bytes(release[0]) + 4 * SHARD


def test_groups_load_beside_one_another(release, found):
    for one in found["groups"]:
        assert "error" not in one, one
        assert one["tensors"] == digests(release[1])
    assert found["groups"][1]["stages"]["gather"] == 0


def test_bytes_go_over_a_connection_of_their_own_between_devices(found):
    for one in found["exchange"]:
        assert one["heard"] == ["rank 0", "rank 1", "rank 2"]
        assert one["window"] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert one["synchronised"] == 1


def test_no_thread_is_left_whatever_happened(found):
    assert [one["threads"] for said in found.values() for one in said] == [[]] * sum(map(len, found.values()))
