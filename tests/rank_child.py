# SPDX-License-Identifier: Apache-2.0
"""One rank of a torch.distributed world that loads releases; run by test_loader_parallel_group as a program.

Reads JSON from standard input: which rank, and a list of tasks. Writes a line of JSON for each: digests of what was
loaded, bytes by stage, or the error.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

import pq_registry
from pq_registry import limits
from pq_registry.client.meter import STAGES, Meter
from pq_registry.errors import PqregError
from pq_registry.loader import api
from pq_registry.loader.parallel.exchange import TorchExchange
from tests.samples import NOW


def digest(tensor: Any) -> str:
    import torch

    if isinstance(tensor, torch.Tensor):
        tensor = tensor.contiguous().flatten().view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()


def exchange_by_itself(rank: int, size: int) -> dict[str, Any]:
    """What there is for NCCL, with gloo in its place: tensors of torch, and a connection besides that of words."""
    import torch
    from torch import distributed

    synchronised: list[int] = []
    stream = SimpleNamespace(synchronize=lambda: synchronised.append(1))
    with (
        patch.object(distributed, "ProcessGroupNCCL", distributed.ProcessGroupGloo),
        patch.object(distributed, "is_nccl_available", lambda: True),
        patch.object(torch.cuda, "device", lambda _: nullcontext()),
        patch.object(torch.cuda, "current_stream", lambda: stream),
        closing(TorchExchange("world", device="cuda:1")) as exchange,
    ):
        heard = exchange.tell(b"rank %d" % rank)
        window = torch.zeros(3 * size, dtype=torch.uint8)
        exchange.gather(torch.full((3,), rank + 1, dtype=torch.uint8), window)
    return {"heard": [word.decode() for word in heard], "window": window.tolist(), "synchronised": len(synchronised)}


def perform(task: dict[str, Any], rank: int) -> dict[str, Any]:
    from torch import distributed

    api.utc_now = lambda: NOW  # type: ignore[attr-defined]
    limits.LOADER_RING_BYTES = 0  # type: ignore[misc]
    limits.LOADER_WINDOW_BYTES = task["window"] * limits.SHARD_BYTES  # type: ignore[misc]
    group: Any = "world"
    if "groups" in task:
        made = [distributed.new_group(ranks) for ranks in task["groups"]]
        group = next(one for one, ranks in zip(made, task["groups"], strict=True) if rank in ranks)
    found: dict[str, Any] = {"tensors": {}}
    meter = Meter()
    options = {"trust": task["trust"], "expect": "acme/minilm", "group": group, "stats": meter, "framework": "numpy"}
    options |= {**task.get("options", {}), **task.get("only", {}).get(str(rank), {})}
    distributed.barrier()
    begun = time.monotonic()
    try:
        if task["how"] == "exchange":
            found |= exchange_by_itself(rank, distributed.get_world_size())
        elif task["how"] == "load":
            loaded = pq_registry.load(Path(task["release"]), **options)
            found["tensors"] = {name: digest(tensor) for name, tensor in loaded.items()}
        else:
            stream: Any = pq_registry.iter_tensors(Path(task["release"]), **options)
            if rank == task.get("drop"):
                stream.close()
                del stream
                stream = iter(())
            for count, (name, tensor) in enumerate(stream, 1):
                found["tensors"][name] = digest(tensor)
                if task.get("collective"):  # of the caller's own, between ours
                    import torch

                    total = torch.ones(1)
                    distributed.all_reduce(total)
                    assert total.item() == distributed.get_world_size()
                if [rank, count] == task.get("leave"):
                    stream.close()
                    break
                if [rank, count] == task.get("die"):
                    os._exit(9)
    except PqregError as error:
        found |= {"error": type(error).__name__, "text": str(error)}
    found["seconds"] = time.monotonic() - begun
    found["stages"] = {stage: meter[stage].count for stage in STAGES}
    found["threads"] = [one.name for one in threading.enumerate() if one.name.startswith("pqreg")]
    return found


def main() -> None:
    from torch import distributed

    work = json.loads(sys.stdin.read())
    limits.LOADER_GROUP_SECONDS = 60  # type: ignore[misc]
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{work['store']}",
        rank=work["rank"],
        world_size=work["size"],
        timeout=timedelta(seconds=60),
    )
    for task in work["tasks"]:
        sys.stdout.write(json.dumps(perform(task, work["rank"])) + "\n")
        sys.stdout.flush()
    os._exit(0)  # a world that lost a rank does not end by itself


if __name__ == "__main__":
    main()
