# SPDX-License-Identifier: Apache-2.0
"""vllm.model_executor.model_loader.base_loader: a model is built, filled, and finished."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from vllm.config import ModelConfig, VllmConfig
from vllm.config.load import LoadConfig


class BaseModelLoader(ABC):
    def __init__(self, load_config: LoadConfig) -> None:
        self.load_config = load_config

    @abstractmethod
    def download_model(self, model_config: ModelConfig) -> None:
        raise NotImplementedError

    @abstractmethod
    def load_weights(self, model: Any, model_config: ModelConfig) -> None:
        raise NotImplementedError

    def load_model(self, vllm_config: VllmConfig, model_config: ModelConfig, prefix: str = "") -> Any:
        model = vllm_config.build()
        self.load_weights(model, model_config)
        if hasattr(model, "process_weights_after_loading"):
            model.process_weights_after_loading()
        return model.eval()
