# SPDX-License-Identifier: Apache-2.0
"""vllm.model_executor.model_loader.default_loader: what models and other loaders use of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.config import ModelConfig
from vllm.model_executor.model_loader.base_loader import BaseModelLoader


class DefaultModelLoader(BaseModelLoader):
    @dataclass
    class Source:
        model_or_path: str
        revision: str | None
        subfolder: str | None = None
        prefix: str = ""
        fall_back_to_pt: bool = True
        allow_patterns_overrides: list[str] | None = None

    def download_model(self, model_config: ModelConfig) -> None:
        raise NotImplementedError("not in the stand-in")

    def load_weights(self, model: Any, model_config: ModelConfig) -> None:
        raise NotImplementedError("not in the stand-in")

    def track_weights_loading(self, model: Any, loaded_weights: set[str] | None, quantized: bool = False) -> None:
        missing = {name for name, _ in model.named_parameters()} - (loaded_weights or set())
        if missing:
            raise ValueError(f"Following weights were not initialized from checkpoint: {missing}")
