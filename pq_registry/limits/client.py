# SPDX-License-Identifier: Apache-2.0
"""Bounds of transfers."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.documents import INNER_BYTES, MANIFEST_BYTES, STATEMENT_BYTES
from pq_registry.limits.units import KIB, MIB

# -- client ----------------------------------------------------------------------------------------------------------
CONNECTIONS: Final = 64
"""Most parallel connections of one transfer."""
RANGE_SHARDS: Final = 8
"""Shards fetched by one ranged request (16 MiB)."""
TIMEOUT_SECONDS: Final = 30
"""Longest silence of a peer, connecting or sending."""
HASH_THREADS: Final = 16
"""Files hashed at once by a push; beyond that the disk is the limit, and each takes four shards of memory."""
PLAN_BYTES: Final = (MANIFEST_BYTES + STATEMENT_BYTES) // 3 * 4 + MIB
"""A plan: manifest and statement in base64, and a few names."""
SEALED_PLAN_BYTES: Final = PLAN_BYTES + INNER_BYTES // 3 * 4
"""The plan of a sealed release: pqreg.inner as well."""
PART_CLAIM_SECONDS: Final = 300
"""Longest wait for another push that is sending the same part: 16 MiB over a slow line, several times."""
REUSE_CANDIDATES: Final = 8
"""Releases of the same content a push fetches to see whether one can be used again."""
ATTEMPTS: Final = 5
"""Tries of one request before the transfer gives up."""
BACKOFF_SECONDS: Final = 0.2
"""First pause between tries; doubled each time."""
RETRY_AFTER_SECONDS: Final = 30
"""Longest pause a server may ask for."""
THROTTLED_SECONDS: Final = 300
"""How long one request lets itself be told to come back later, in all, before the transfer gives up."""
MINIMUM_RATE_BYTES: Final = 2 * KIB
"""Bytes per second below which, over TIMEOUT_SECONDS of waiting, a peer counts as stalled: a drip must end too."""
HANDSHAKE_SECONDS: Final = 60
"""Longest a connection may take to be set up, all addresses and the TLS handshake together."""
RESPONSE_OVERHEAD_BYTES: Final = MIB
"""What a server may send besides a body: headers, interim responses, chunk framing, trailers."""
LOCATION_CHARS: Final = 8 * KIB
"""Length of a redirect's target; presigned URLs are about 1 KiB."""
LOCATIONS: Final = 4096
"""Presigned URLs of blobs one client remembers, the newest ones."""
SIGNED_HEADERS: Final = 16
"""Headers a presigned request may demand."""
STORAGE_ORIGINS: Final = 32
"""Origins of storage a client allows, or a registry names."""
VERIFYING_PATIENCE_SECONDS: Final = 900
"""How long a registry may verify an upload without coming any further."""
IDLE_CONNECTIONS: Final = 8
"""Connections for control requests kept open between uses."""
RATE_SLICE_BYTES: Final = 64 * KIB
"""Bytes moved between two looks at the bandwidth cap."""
RATE_BURST_SECONDS: Final = 0.25
"""Unused time a bandwidth cap gives back."""
RATE_NAP_SECONDS: Final = 0.2
"""Longest sleep before a capped transfer looks whether it was cancelled."""
SEEN_TAG_BYTES: Final = 4 * KIB
"""The record of the last statement seen of a tag: about 300 bytes."""
INTERRUPT_SECONDS: Final = 5
"""How long an interrupted transfer waits for its threads."""
SHORT_RESPONSE_BYTES: Final = MIB
"""An answer of a server that lists nothing long, e.g. to a commit or a tag's envelope."""
PROGRESS_BYTES: Final = 256 * KIB
"""What a try must bring for a range to be granted new tries; so a range of 16 MiB ends after 64 x ATTEMPTS of them."""
