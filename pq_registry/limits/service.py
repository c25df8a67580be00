# SPDX-License-Identifier: Apache-2.0
"""Bounds of the registry service and its page."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import KIB, MIB

# -- service ---------------------------------------------------------------------------------------------------------
REQUEST_BODY_BYTES: Final = MIB
"""A JSON request that is neither envelope nor part."""
PART_BYTES: Final = 16 * MIB
"""Target size of one part of an upload: what a killed push may have to send again."""
PARTS: Final = 10_000
"""Parts of one upload (S3's bound)."""
OPEN_UPLOADS: Final = 10_000
"""Uploads one repository may have unfinished; above FILES' usual thousands, below a disk filled with names."""
UPLOAD_IDLE_SECONDS: Final = 7 * 24 * 3600
"""An upload nobody touched for this long is swept."""
PAGE_ITEMS: Final = 1000
"""Largest page of a listing."""
LISTING_ITEMS: Final = 1_000_000
"""Items of one listing a client gathers page by page; a listing that is longer never ends."""
MISSING_QUERY_DIGESTS: Final = 1000
"""Digests in one question about what is missing."""
TOKEN_BYTES: Final = 32
"""Randomness in a bearer token."""
TOKEN_LIFETIME_DAYS: Final = 3650
"""Longest life of a token."""
TOKEN_NAMESPACES: Final = 100
"""Namespaces one token may list."""

TAG_ENVELOPE_BYTES: Final = 64 * KIB
"""An envelope around a tag statement, in a request: the statement in base64 and two signatures of at most 7 KiB."""
REQUEST_HEAD_BYTES: Final = 128 * KIB
"""Request line and headers; the largest header is Pqreg-Shards of a part of a 16 TiB file (36 KiB)."""
REQUEST_HEAD_SECONDS: Final = 30
"""How long a client may take to send request line and headers."""
RECEIVE_BUFFER_BYTES: Final = 256 * KIB
"""What a connection may have received and nobody asked for yet; one read of the event loop brings as much again."""
KEEP_ALIVE_SECONDS: Final = 60
"""How long the service keeps an idle connection; clients hash between requests."""
BODY_SILENCE_SECONDS: Final = 30
"""Longest pause inside a request's body."""
BODY_BYTES_PER_SECOND: Final = 16 * KIB
"""Slowest body that is waited for, after the first BODY_SILENCE_SECONDS."""
DRAINED_BODY_BYTES: Final = 72 * MIB
"""How much of a refused body is read and dropped so that its sender gets to see the answer: all of a xorb, or of a file
that is sent in one request. The Hub's clients try again after a reset, and never say why."""
SEND_SILENCE_SECONDS: Final = 120
"""How long a client may take to accept one chunk of an answer."""
RESPONSE_CHUNK_BYTES: Final = 2 * MIB
"""What one system call reads for a download; larger chunks gain nothing and cost memory per connection."""
HASH_CHUNK_BYTES: Final = 4 * MIB
"""What one system call reads when a whole file is hashed."""
SERVER_CONNECTIONS: Final = 1000
"""Connections the service holds open; further ones are answered 503."""
HEAVY_TASKS: Final = 4
"""Completions and commits that run at once: each may hash or hold a whole statement."""
BROWSING_TASKS: Final = 4
"""Searches and pages that run at once: each may look at as many rows as the log has leaves."""
DRAIN_SECONDS: Final = 30
"""How long a stopping service waits for requests under way."""
TOKEN_NOTE_CHARS: Final = 200
"""A token's note."""
NAMESPACE_IDENTITIES: Final = 64
"""Identities registered for one namespace; as many as a trust file may name."""

REQUEST_RATE_KEYS: Final = 10_000
"""Tokens, or addresses, whose requests are counted at a time: 100 bytes each. Who comes after so many others is new."""
REQUEST_BURST_SECONDS: Final = 10
"""How long a token or address may save up requests: a page or a listing asks many times at once."""
REQUEST_RATE: Final = 1_000_000
"""Requests per second a rate limit may allow; no instance answers more."""
REQUEST_PAUSE_SECONDS: Final = 30
"""Longest pause a caller is asked for; clients of ours wait no longer (RETRY_AFTER_SECONDS)."""
FORWARDED_HOPS: Final = 16
"""Proxies before the service whose X-Forwarded-For is looked at."""
TRUSTED_NETWORKS: Final = 64
"""Networks of trusted proxies."""
HSTS_DAYS: Final = 3650
"""Longest for which browsers are told to insist on TLS."""
QUOTA_SECONDS: Final = 30.0
"""How long a sum of what a namespace holds is used, with what this instance has let in since."""
QUOTA_PAUSE_SECONDS: Final = 2.0
"""Shortest time between two such sums for callers who are refused."""
QUOTA_FILE_BYTES: Final = MIB
"""The file of quotas: 10 000 namespaces of about 60 bytes."""
EXPIRY_SECONDS: Final = 60.0
"""How long the counts of what expires soon hold, between two scrapes."""
EVENT_BYTES: Final = 64 * KIB
"""One line of an export of events; the longest of ours has less than 2 KiB."""

# -- page ------------------------------------------------------------------------------------------------------------
CHART_WEEKS: Final = 26
"""Weeks a plot of signatures shows: half a year in bars that can be told apart on a telephone."""
CHART_ROWS: Final = 12
"""Namespaces or witnesses one plot shows; more are in the tables."""
CHART_CHECKPOINTS: Final = 60
"""Checkpoints a plot of witness lag shows."""
PAGE_ROWS: Final = 50
"""Rows of a table on one page: about two screens."""
PAGE_FORM_BYTES: Final = 4 * KIB
"""The body of a form: a token has 49 characters."""
PAGE_QUERY_CHARS: Final = 200
"""What can be searched for: the longest name has 193 characters."""
PAGE_ENVELOPE_BYTES: Final = 16 * MIB
"""An envelope handed to a visitor's browser for checking; a release of 30 000 files. Larger ones are for commands."""
SESSION_SECONDS: Final = 8 * 3600
"""How long a sign-in to the page lasts: a working day."""
