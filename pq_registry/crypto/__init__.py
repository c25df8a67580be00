# SPDX-License-Identifier: Apache-2.0
"""Suites, providers, identities, signing and shard digests; secret keys stay in ``pqreg_keys``."""
