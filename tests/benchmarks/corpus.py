# SPDX-License-Identifier: Apache-2.0
"""The model everything is measured on: bf16 weights in the shapes of Llama-3-8B, and the usual small files.

``python -m tests.benchmarks.corpus DIR FILES LAYER_DIVISOR`` writes it once; random bits, so nothing compresses. Each
of the weight files holds one decoder layer and a slice of the embedding: 512 MiB at divisor 1.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

SMALL = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "torch_dtype": "bfloat16"}\n',
    "generation_config.json": b'{"do_sample": true, "temperature": 0.6}\n',
    "README.md": b"# Random weights in the shapes of an 8B model, for benchmarks\n",
    "special_tokens_map.json": b"{}\n",
}


def shapes(number: int, divisor: int) -> dict[str, tuple[int, ...]]:
    """The tensors of weight file ``number``."""
    wide, inner = 4096 // divisor, 14336 // divisor
    layer = f"model.layers.{number}"
    return {
        f"model.embed_tokens.part{number}.weight": (12288, wide),
        f"{layer}.mlp.down_proj.weight": (4096, inner),
        f"{layer}.mlp.gate_proj.weight": (14336, wide),
        f"{layer}.mlp.up_proj.weight": (14336, wide),
        f"{layer}.self_attn.k_proj.weight": (1024, wide),
        f"{layer}.self_attn.o_proj.weight": (4096, wide),
        f"{layer}.self_attn.q_proj.weight": (4096, wide),
        f"{layer}.self_attn.v_proj.weight": (1024, wide),
        f"{layer}.input_layernorm.weight": (4096,),
        f"{layer}.post_attention_layernorm.weight": (4096,),
    }


def write_weights(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """One safetensors file in the layout of the official writer."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(tensors):
        size = 2
        for dimension in tensors[name]:
            size *= dimension
        header[name] = {"dtype": "BF16", "shape": list(tensors[name]), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        left = at
        while left:
            left -= file.write(os.urandom(min(left, 16 << 20)))


def make(directory: Path, files: int, divisor: int) -> None:
    """Write the whole corpus; a directory that exists is complete."""
    if directory.exists():
        return
    partial = directory.with_name(directory.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    for name, content in SMALL.items():
        (partial / name).write_bytes(content)
    (partial / "tokenizer.json").write_text(json.dumps({"vocab": {f"token{i}": i for i in range(60_000)}}))
    weight_map = {}
    for number in range(files):
        name = f"model-{number + 1:05}-of-{files:05}.safetensors"
        tensors = shapes(number, divisor)
        write_weights(partial / name, tensors)
        weight_map.update(dict.fromkeys(tensors, name))
    (partial / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    partial.rename(directory)


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
