# SPDX-License-Identifier: Apache-2.0
"""vllm.config.load: LoadConfig."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class LoadConfig:
    load_format: str = "auto"
    model_loader_extra_config: Any = field(default_factory=dict)
    device: str | None = None

    def __post_init__(self) -> None:
        self.load_format = self.load_format.lower()
