# SPDX-License-Identifier: Apache-2.0
"""Bytes to values and back: one strict parser per format, no I/O and no cryptography."""
