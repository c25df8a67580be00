# SPDX-License-Identifier: Apache-2.0
"""Bounds of the verifying gateway of a node."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import GIB, KIB, MIB

GATEWAY_RELEASES: Final = 64
"""Verified releases kept open: each holds its manifest, 20 MiB for a terabyte."""
GATEWAY_VERIFIED_SECONDS: Final = 60
"""How long a release counts as verified before tag, status, log and grant are asked for again."""
GATEWAY_REFUSED_SECONDS: Final = 30
"""How long a shard that stayed wrong is not asked for again: what is downloaded again at once fails with the reason."""
GATEWAY_REFUSED_SHARDS: Final = 1024
"""Shards remembered as wrong, the newest."""
GATEWAY_RUN_SHARDS: Final = 8
"""Shards fetched by one request (16 MiB), once a download is under way; it begins with one, so that it begins early."""
GATEWAY_WINDOW_SHARDS: Final = 32
"""Shards of one download in memory or on their way (64 MiB)."""
GATEWAY_MEMORY_SHARDS: Final = 128
"""The same of all downloads together (256 MiB); with more downloads each gets fewer, but never fewer than one."""
GATEWAY_STREAMS: Final = 64
"""Downloads at once; further ones are told to come back."""
GATEWAY_BUSY_SECONDS: Final = 1
"""After which time."""
GATEWAY_CHECKERS: Final = 8
"""Threads that read and check what is on this machine's disk."""
GATEWAY_HEAD_SECONDS: Final = 3
"""How long an answer waits for its first shard, so that a wrong one is told by a status; clients wait 10 s."""
GATEWAY_COMMIT_CANDIDATES: Final = 64
"""Sealed releases, the newest, whose manifests are looked at to find the one a commit of plaintext is of."""
GATEWAY_LISTING: Final = 10_000
"""Repositories listed by one source."""
GATEWAY_DIRECTORIES: Final = 10_000
"""Directories looked into for releases below those that were named."""
GATEWAY_DEPTH: Final = 3
"""How far below: namespace/name/version, or the snapshots of a Hugging Face cache."""
GATEWAY_WRITING_SHARDS: Final = 16
"""Shards that wait to be written into the cache (32 MiB); more are not kept."""
GATEWAY_CACHE_BYTES: Final = 1024 * 1024 * GIB
"""Largest size of a cache that can be set."""
GATEWAY_TOKEN_CHARS: Final = 1 * KIB
"""A token that clients of the gateway must show."""
GATEWAY_MODEL_BYTES: Final = 64 * MIB
"""What a Hub says of a model: the names of 100 000 files."""
