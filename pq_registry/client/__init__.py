# SPDX-License-Identifier: Apache-2.0
"""What publishers and nodes run: verification, push and pull."""
