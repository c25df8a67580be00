# SPDX-License-Identifier: Apache-2.0
"""The ``pqreg`` command: presentation only."""
