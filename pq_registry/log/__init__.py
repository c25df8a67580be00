# SPDX-License-Identifier: Apache-2.0
"""The transparency log: Merkle tree, tiles, receipts, sequencer, witness and monitor; no HTTP, no database."""
