# SPDX-License-Identifier: Apache-2.0
"""vllm.model_executor."""
