# SPDX-License-Identifier: Apache-2.0
"""Bounds of what the Hub's clients push: files, commits, and the blocks of their chunked uploads."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.service import PART_BYTES, PARTS
from pq_registry.limits.units import KIB, MIB

# -- files -----------------------------------------------------------------------------------------------------------
HUB_FILE_BYTES: Final = PARTS * PART_BYTES
"""Largest file pushed through the Hub's protocol, 156 GiB: its parts are held in memory on their way to an object
store. Larger ones are for pqreg push."""
HUB_REGULAR_BYTES: Final = MIB
"""Files up to this size are sent within a commit; larger ones before it."""
HUB_MULTIPART_BYTES: Final = 64 * MIB
"""Files above this size are sent in parts, so that a broken connection does not cost all of it."""
HUB_INTAKES: Final = 32
"""Parts and blocks one instance takes at once; each holds PART_BYTES or less, blocks XORB_PIECE_BYTES."""
HUB_INTAKE_WAIT_SECONDS: Final = 30.0
"""How long a request waits for its turn before its client is asked to come back."""
CAPABILITY_SECONDS: Final = 6 * 3600
"""Life of a URL for an upload: all of a large file's parts, one after the other over a slow line."""
CAPABILITY_CHARS: Final = 200
"""A token's id, a time and a code of 64 hex digits."""
HUB_PREUPLOAD_FILES: Final = 1000
"""Files in one question how they are to be sent; clients ask for 256."""
HUB_PREUPLOAD_BYTES: Final = 4 * MIB
"""Such a question: a path, and a sample of 512 bytes in base64, for each."""
HUB_BATCH_OBJECTS: Final = 1000
"""Files in one question where they are to be sent; clients ask for 256."""
HUB_BATCH_URLS: Final = 65_536
"""URLs of parts in the answer, 20 MB: enough for 1 TiB. Files beyond are sent whole."""

# -- commits ---------------------------------------------------------------------------------------------------------
HUB_COMMIT_BYTES: Final = 256 * MIB
"""A commit with the small files in it; clients begin another one at 100 MB."""
HUB_COMMIT_LINE_BYTES: Final = 16 * MIB
"""One line of it: a file of up to 12 MiB in base64, for clients that do not ask how to send it."""
HUB_COMMIT_BATCH_BYTES: Final = 4 * MIB
"""Files of a commit that are taken in together, as many as fit, and one more."""
HUB_COMMIT_BATCH_FILES: Final = 256
"""The same by number."""
SMALL_FILE_WRITERS: Final = 8
"""Threads that write them: most of the time they wait for the disk or the object store."""
HUB_COMMIT_LINES: Final = 100_000
"""Files added, copied or deleted by one commit; as many as a release may have."""

# -- blocks (xorbs) of chunked uploads -------------------------------------------------------------------------------
XORB_BYTES: Final = 64 * MIB
"""Contents of a xorb, unpacked (its specification's bound)."""
XORB_CHUNKS: Final = 8 * KIB
"""Chunks of a xorb (its specification's bound)."""
XORB_CHUNK_BYTES: Final = 128 * KIB
"""Contents of a chunk, unpacked (its specification's bound)."""
XORB_PACKED_BYTES: Final = XORB_BYTES + XORB_CHUNKS * KIB
"""A xorb as it is sent: a header for each chunk, what packing adds to bytes that do not pack, and a footer."""
XORB_PIECE_BYTES: Final = MIB
"""What of a xorb is held in memory while it arrives, and read at once when files are rebuilt."""
XORB_SECONDS: Final = 24 * 3600
"""How long the bytes of a xorb are kept for files that have not come yet."""
XORB_MEMORY_SECONDS: Final = 30 * 24 * 3600
"""How long it is remembered which files a xorb's chunks are in: clients refer to what they sent for three weeks."""
XET_SHARD_BYTES: Final = 64 * MIB
"""A description of files by their chunks; clients make another one at 64 MiB."""
XET_SHARD_FILES: Final = 100_000
"""Files in one of them."""
XET_SHARD_TERMS: Final = 250_000
"""Runs of chunks in one of them; a file nothing of which is known has one per xorb."""
XET_REPEATS: Final = 16
"""How often over the chunks of a file may be in it, beyond XET_REPEATED_BYTES: a few KiB of packed zeros could
otherwise be said to be 156 GiB, all of which would be written."""
XET_REPEATED_BYTES: Final = 2 * 1024 * MIB
"""Files up to this size may repeat their chunks as they like."""
XET_TOKEN_SECONDS: Final = 3600
"""Life of a token for chunked uploads; clients fetch another one."""
XET_REBUILDING_TASKS: Final = 2
"""Descriptions whose files one instance rebuilds at once; each file is decoded, hashed and written."""
XET_SHARDS_AT_ONCE: Final = 4
"""Descriptions that arrive at once; each is in memory, up to XET_SHARD_BYTES."""
XET_JOBS: Final = 8
"""Descriptions that are being worked on or wait for it; each is in memory."""
XORB_COPIES: Final = 16
"""Xorbs of one name that are looked at: one per repository and token that sent it."""
XORB_SOURCES: Final = 2048
"""Runs of one xorb's chunks in files that are looked at."""
XET_ANSWER_SECONDS: Final = 15.0
"""How long rebuilding may take before its answer begins, and the pause between two signs of life after that."""
