# SPDX-License-Identifier: Apache-2.0
"""Copies on the Hugging Face Hub: releases of ours that are pushed there, and models from there that are imported.

Everything here speaks to a Hub by its own client, ``huggingface_hub``, and to a registry by ours.
"""
