# SPDX-License-Identifier: Apache-2.0
"""Verified releases for programs that bring their own way of reading models."""
