# SPDX-License-Identifier: Apache-2.0
"""Bounds of mirrors on a Hugging Face Hub."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import GIB, KIB, MIB

# -- mirrors.yaml ----------------------------------------------------------------------------------------------------
MIRRORS_FILE_BYTES: Final = 256 * KIB
"""mirrors.yaml: a few lines per mirror."""
MIRRORS_FILE_DEPTH: Final = 8
"""Nesting of mirrors.yaml, which needs three levels."""
MIRRORS: Final = 100
"""Mirrors in one file."""
MIRROR_PATTERNS: Final = 1000
"""Patterns, or names that are changed, of one mirror."""
MIRROR_CARD_BYTES: Final = MIB
"""A card of the operator's own, shown where a release is not mirrored itself."""

# -- pushing ---------------------------------------------------------------------------------------------------------
MIRROR_COMMIT_FILES: Final = 200
"""Files in one commit of a working branch; a Hub gives a commit 60 seconds."""
MIRROR_COMMIT_BYTES: Final = 8 * GIB
"""Bytes in one such commit, more only for a single larger file: what a run that is cut off may have to send again."""
MIRROR_CONFLICTS: Final = 5
"""How often a commit to main is made anew because somebody else's came first."""
MIRROR_TREE_FILES: Final = 200_000
"""Files that a Hub may list: twice as many as a release can have."""
MIRROR_SMALL_BYTES: Final = 16 * MIB
"""A file that a Hub keeps in git, and of which it knows no SHA-256, so that it is read again whole: at most 10 MiB."""
MIRROR_HISTORY_COMMITS: Final = 50
"""Commits of a Hub's main looked at for one of ours."""
MIRROR_STATE_BYTES: Final = 16 * MIB
"""What a mirroring machine remembers about one mirror: about 300 bytes per tag."""
MIRROR_INTERVAL_SECONDS: Final = 60
"""Shortest pause between two rounds of ``pqreg mirror sync --interval``."""
MIRROR_INTERVAL_MAX_SECONDS: Final = 30 * 86400
"""Longest one: 30 days."""

# -- reported to the registry ----------------------------------------------------------------------------------------
MIRROR_RUN_BYTES: Final = 16 * KIB
"""The report of one run, as it is posted."""
MIRROR_RUNS_KEPT: Final = 200
"""Runs a registry remembers per repository, the newest ones."""
MIRROR_REASON_CHARS: Final = 1000
"""Why a run was refused or failed."""
MIRROR_TARGET_CHARS: Final = 300
"""URL of the repository on the Hub."""
MIRROR_RUN_DAYS: Final = 30
"""Longest that a run may have taken."""

# -- speaking to a Hub -----------------------------------------------------------------------------------------------
HUB_PAUSE_SECONDS: Final = 310
"""Longest single pause a Hub may ask for: its rate limits are counted in windows of five minutes."""
HUB_PATIENCE_SECONDS: Final = 3600
"""How long one request lets itself be told to come back later, in all: a mirror has time, and nobody watches it."""
HUB_MESSAGE_CHARS: Final = 300
"""How much of a Hub's own words a message of ours quotes."""
HUB_EXCESS_BYTES: Final = MIB
"""What a file may bring beyond its size, over all tries, before the download is ended."""

# -- importing from a Hub --------------------------------------------------------------------------------------------
IMPORT_BYTES: Final = 64 * MIB
"""pqreg.import.json: about 300 bytes per file."""
IMPORT_SHOWN_BYTES: Final = 4 * MIB
"""The largest one that a page reads to say what it is: that of a model of 14 000 files."""
UPSTREAM_SIGNATURE_BYTES: Final = 64 * MIB
"""An upstream's own OMS signature: a statement with a few hundred bytes per file, in base64."""
UPSTREAM_CERTIFICATES: Final = 16
"""Certificates in a signature's chain."""
CERTIFICATES_FILE_BYTES: Final = MIB
"""A file of certificate authorities, or of Sigstore's trusted root."""

# -- converting what is imported -------------------------------------------------------------------------------------
CONVERT_ARCHIVE_ENTRIES: Final = 500_000
"""Entries in a file of torch: one for each storage, and a few more."""
CONVERT_DIRECTORY_BYTES: Final = 128 * MIB
"""The directory of such an archive: about 60 bytes per entry."""
CONVERT_PICKLE_BYTES: Final = 64 * MIB
"""The pickle in it, which holds names and shapes: about 200 bytes per tensor."""
CONVERT_PLAN_BYTES: Final = 128 * MIB
"""What the converter says of the tensors before it sends them: about as much as a safetensors header."""
CONVERT_GROWTH: Final = 4
"""How many times larger than its source a converted file may be: tied weights are written once for every name."""
CONVERT_PIECE_BYTES: Final = 16 * MIB
"""What is read from the converter at once."""
CONVERT_MEMORY_BYTES: Final = 4 * GIB
"""Address space of the converter beyond what torch and the mapped file take."""
CONVERT_CPU_SECONDS: Final = 300
"""Processor time of the converter, more for larger files."""
CONVERT_CPU_BYTES: Final = 20 * MIB
"""Bytes of a file for which it gets one second more."""
CONVERT_SILENCE_SECONDS: Final = 600
"""How long the converter may say nothing; importing torch from a slow disk takes minutes."""
CONVERT_INDEX_BYTES: Final = 64 * MIB
"""The index of a model in several files: about 100 bytes per tensor."""
