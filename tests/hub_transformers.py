# SPDX-License-Identifier: Apache-2.0
"""What an unmodified ``transformers`` makes of models, in a process of its own: knows nothing of this project.

Arguments are the models' names or directories, as ``from_pretrained`` takes them. Prints, for each, what configuration,
tokenizer and model answered, as JSON; ``weights`` is the SHA-256 of all parameters in the order of their names.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

TEXT = "Modelle gehören denen, die sie prüfen können."


def facts(name: str) -> dict[str, Any]:
    """What one model answers."""
    config = AutoConfig.from_pretrained(name)
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModel.from_pretrained(name).eval()
    tokens = tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        output = model(**tokens).last_hidden_state
    weights = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        weights.update(tensor.contiguous().numpy().tobytes())
    return {
        "type": config.model_type,
        "hidden": config.hidden_size,
        "tokens": tokens["input_ids"][0].tolist(),
        "weights": weights.hexdigest(),
        "output": hashlib.sha256(output.contiguous().numpy().tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(json.dumps([facts(name) for name in sys.argv[1:]]))
