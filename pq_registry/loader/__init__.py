# SPDX-License-Identifier: Apache-2.0
"""Verified tensors in memory, without writing weights to disk."""
