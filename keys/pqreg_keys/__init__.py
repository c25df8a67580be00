# SPDX-License-Identifier: Apache-2.0
"""Custody of secret keys. Nothing else touches a secret key file."""
