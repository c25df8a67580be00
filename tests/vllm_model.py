# SPDX-License-Identifier: Apache-2.0
"""A model as vLLM's are: built empty, its parameters take their part of each whole tensor; and a worker that fills it.

As a program (``python vllm_model.py DIR CONFIG RANK WORLD``) it is one worker: it finds the plug-in as vLLM does, gets
the model, and prints what each parameter holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import torch
from torch import nn

STUBS = Path(__file__).resolve().parent / "stubs"
CUT = {"lm_head.weight": 0, "o_proj.weight": 1}
"""Parameters that are cut among ranks, and in which dimension."""
SHAPES = {"embed.weight": (64, 96), "lm_head.weight": (64, 96), "norm": (96,), "o_proj.weight": (96, 96)}


class Model(nn.Module):
    """``SHAPES``, for one rank."""

    def __init__(self, rank: int = 0, world: int = 1, *, missing: str | None = None) -> None:
        super().__init__()
        self.rank, self.world, self.seen = rank, world, list[str]()
        self.parts = nn.ParameterDict()
        self.finished = False
        for name, shape in SHAPES.items():
            sizes = list(shape)
            if name in CUT:
                sizes[CUT[name]] //= world
            self.parts[name.replace(".", "_")] = nn.Parameter(torch.zeros(sizes, dtype=torch.bfloat16))
        if missing is not None:
            self.parts[missing] = nn.Parameter(torch.zeros(1))

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        kept = []
        for name, tensor in weights:
            self.seen.append(name)
            kept.append(tensor)  # as a model may: tensors must not change after they were handed out
            parameter = self.parts[name.replace(".", "_")]
            part = tensor
            if name in CUT:
                size = parameter.shape[CUT[name]]
                part = tensor.narrow(CUT[name], self.rank * size, size)
            with torch.no_grad():
                parameter.copy_(part)
        for name, tensor in zip(self.seen, kept, strict=True):
            filled = self.parts[name.replace(".", "_")].view(torch.uint8)
            assert name in CUT or torch.equal(filled, tensor.view(torch.uint8))
        return {f"parts.{name.replace('.', '_')}" for name in self.seen}

    def process_weights_after_loading(self) -> None:
        self.finished = True

    def digests(self) -> dict[str, str]:
        return {
            name: hashlib.sha256(parameter.detach().view(torch.uint8).numpy().tobytes()).hexdigest()
            for name, parameter in self.parts.items()
        }


def plugin() -> EntryPoint:
    """The entry point, as it is declared."""
    import tomllib

    project = tomllib.loads((STUBS.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    ((name, value),) = project["entry-points"]["vllm.general_plugins"].items()
    return EntryPoint(name, value, "vllm.general_plugins")


def work(directory: str, config: Any, rank: int, world: int) -> Model:
    """What a worker of vLLM does."""
    from vllm.config import ModelConfig, VllmConfig
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import get_model

    found = plugin()
    if found.name in os.environ["VLLM_PLUGINS"].split(","):
        found.load()()
    load = LoadConfig("pqreg", config)
    model: Model = get_model(
        vllm_config=VllmConfig(ModelConfig(directory), load, build=lambda: Model(rank, world).requires_grad_(False))
    )
    return model


if __name__ == "__main__":
    sys.path.insert(0, str(STUBS))
    filled = work(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    assert filled.finished
    assert not filled.training
    print(json.dumps(filled.digests()))
