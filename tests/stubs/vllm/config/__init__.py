# SPDX-License-Identifier: Apache-2.0
"""vllm.config: what of the configuration a loader looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vllm.config.load import LoadConfig


@dataclass
class ModelConfig:
    model: str
    quantization: str | None = None


@dataclass
class VllmConfig:
    model_config: ModelConfig
    load_config: LoadConfig = field(default_factory=LoadConfig)
    build: Callable[[], Any] = lambda: None
