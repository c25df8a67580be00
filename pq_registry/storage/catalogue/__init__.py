# SPDX-License-Identifier: Apache-2.0
"""The catalogue: what the service knows about its blobs, in a relational database."""
