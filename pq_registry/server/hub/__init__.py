# SPDX-License-Identifier: Apache-2.0
"""The Hugging Face Hub's protocol over HTTP: what unmodified clients send, the JSON they read."""
