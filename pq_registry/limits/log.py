# SPDX-License-Identifier: Apache-2.0
"""Bounds of the log, its witnesses and its audit."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import KIB, MIB

# -- log -------------------------------------------------------------------------------------------------------------
TREE_SIZE: Final = 2**63 - 1
"""Leaves of a log (C2SP tlog-cosignature: less than 2^63)."""
TIMESTAMP: Final = 2**63 - 1
"""Largest time in a cosignature, in seconds since 1970 (the same source)."""
NOTE_SIGNATURES: Final = 100
"""Signature lines of one note; Go's note.Open stops there too."""
NOTE_BYTES: Final = 512 * KIB
"""A signed note: NOTE_SIGNATURES lines of ML-DSA-44, 3.3 kB each."""
NOTE_NAME_BYTES: Final = 255
"""A key's name, and so an origin: their length is one byte of what an ML-DSA-44 cosignature signs."""
LOG_ENTRY_BYTES: Final = 2**16 - 1
"""One leaf: its length has 16 bits in an entry bundle (C2SP tlog-tiles). Ours have about 500 bytes."""
ATTESTATION_SECONDS: Final = 3600
"""Longest from a leaf's time to its attestation by witnesses: a log cannot hold a leaf back and date it earlier."""
ENTRY_BUNDLE_BYTES: Final = 256 * (LOG_ENTRY_BYTES + 2)
"""A full entry bundle, the largest file of a log; ours have about 130 KiB."""
TREE_TILES: Final = 256
"""Full hash tiles one reader of a tree keeps, with the hashes inside them: 16 KiB each."""
PROOF_HASHES: Final = 63
"""Hashes of an inclusion or consistency proof: the height of the largest tree."""
TLOG_PROOF_BYTES: Final = NOTE_BYTES + LOG_ENTRY_BYTES // 3 * 4 + 4 * KIB
"""A receipt: leaf, inclusion proof and checkpoint; about 10 KiB."""
TLOG_POLICY_BYTES: Final = 256 * KIB
"""The text of a log's policy; a witness with both keys takes 2 KiB."""
POLICY_NAMES: Final = 100
"""Witnesses and groups of one policy; no checkpoint carries more lines than NOTE_SIGNATURES."""
STATUS_STATEMENT_BYTES: Final = MIB
"""A status statement's payload: REVOCATIONS entries of about 100 bytes."""
STATUS_ENVELOPE_BYTES: Final = 2 * MIB
"""An envelope around a status statement: the statement in base64 and two signatures."""
REVOCATIONS: Final = 8000
"""Entries of one namespace's status statement; the list only grows."""
NOTE_KEY_FILE_BYTES: Final = 4 * KIB
"""A file of note keys: a line of at most 400 bytes for each."""
ADD_CHECKPOINT_BYTES: Final = 16 * KIB
"""A witness's request body, as in the reference implementation: a log sends its own signatures only."""
WITNESS_ANSWER_BYTES: Final = 16 * KIB
"""A witness's answer: the lines of two keys have 3.4 kB."""
WITNESS_WAIT_SECONDS: Final = 10
"""How long a checkpoint waits for cosignatures before it is published without a quorum."""
WITNESS_ATTEMPTS: Final = 3
"""Requests to one witness for one checkpoint: the guess of its size, its answer, and one race with another sender."""
WITNESS_LOGS: Final = 1000
"""Logs of one witness; the newest checkpoint of each is kept in memory (7 kB)."""
WITNESS_EVIDENCE: Final = 256
"""Notes kept as evidence against one log; two are proof, and a log that signs at will must not fill the disk."""
CHECKPOINT_STALE_SECONDS: Final = 24 * 3600
"""Age at which the newest checkpoint to be had counts as frozen; a log renews its own every LOG_HEARTBEAT_SECONDS."""
STATUS_LIFETIME_DAYS: Final = 366
"""Longest for which `pqreg status` issues one; beyond that a withheld revocation would go unnoticed for too long."""
MONITOR_BATCH_LEAVES: Final = 4096
"""Leaves a monitor holds and records at once: 16 entry bundles, about 2 MiB of ours."""
LOG_HEARTBEAT_SECONDS: Final = 600
"""An unchanged tree is signed again this often, so that readers can tell an idle log from a frozen one."""
LOG_CLOCK_LAG_SECONDS: Final = 60
"""How far the clock may fall behind the monotonic one before the log halts; far below the hour a receipt may take."""
LOG_RETRY_SECONDS: Final = 5
"""Pause before a tile or checkpoint that could not be written is tried again."""
LOG_WITNESS_RETRY_SECONDS: Final = 30
"""Pause before witnesses whose cosignatures are lacking are asked again about the same tree."""
LOG_RECENT_CHECKPOINTS: Final = 64
"""The newest published checkpoints are all kept, about 500 kB; older ones are thinned out."""
LOG_CHECKPOINT_SPACING_SECONDS: Final = 900
"""Time between older checkpoints that are kept: each leaf still has one that attests it well within its hour."""
LOG_BATCH_ENTRIES: Final = 4096
"""Leaves of one batch: 16 tiles, and with leaves of usual length 2 MiB to stage."""
LOG_BATCH_BYTES: Final = 16 * MIB
"""The same for long leaves: what one transaction of the lock may write."""
LOG_QUEUE_ENTRIES: Final = 20_000
"""Statements that wait for their batch; ten seconds of a full load. More are refused at once."""
RECEIPT_WAIT_SECONDS: Final = 25
"""How long a request waits for its receipt before it is answered 503: twice WITNESS_WAIT_SECONDS, as witnesses may be
asked about the checkpoint before; and less than the TIMEOUT_SECONDS of clients."""
LOG_KNOWN_CHECKPOINTS: Final = 64
"""Published checkpoints whose signatures were verified, kept with the tiles read under them."""
LOG_WAITERS: Final = 256
"""Requests that wait for their receipts at once, in threads of their own that mostly sleep."""
LOG_COMPRESSED_BUNDLES: Final = 64
"""Entry bundles kept compressed: 64 KiB each."""
LOG_CATCH_UP_SECONDS: Final = 60
"""How often a service looks for statements that are not in the log though they should be."""
LOG_LINGER_SECONDS: Final = 0.25
"""Longest a batch may wait for more leaves."""

# -- audit -----------------------------------------------------------------------------------------------------------
AUDIT_CHECK_STATEMENTS: Final = 256
"""Statements an audit judges between two commits of its state: what a kill makes it judge again."""
AUDIT_THREADS: Final = 8
"""Statements an audit fetches and verifies at once; each may hold an envelope and a manifest."""
AUDIT_FINDINGS_SHOWN: Final = 1000
"""Findings in one report; the CSV and the state directory have them all."""
AUDIT_NOTE_CHARS: Final = 500
"""The words with which a finding is acknowledged."""
AUDIT_INTERVAL_SECONDS: Final = 24 * 3600
"""Longest pause of a following audit; after more than that a frozen log would not be noticed on the same day."""
WEBHOOK_FINDINGS: Final = 100
"""Findings of one call of a webhook; chat services cut longer messages."""
FORK_PROOF_BYTES: Final = 4 * KIB
"""A fork proof: PROOF_HASHES hashes in base64 and four lines."""
EVIDENCE_INDEX_BYTES: Final = 64 * MIB
"""evidence.json: EVIDENCE_STATEMENTS entries and EVIDENCE_FILES files of about 200 bytes."""
EVIDENCE_STATEMENTS: Final = 50_000
"""Statements of one evidence bundle; more go into several bundles (--since)."""
EVIDENCE_FILES: Final = 200_000
"""Files of one evidence bundle: envelope, receipt and manifest of each statement, and a few."""
EVIDENCE_FINDINGS: Final = 10_000
"""Findings an evidence bundle repeats."""
EVIDENCE_SIGNATURE_BYTES: Final = EVIDENCE_INDEX_BYTES // 3 * 4 + 32 * KIB
"""evidence.json.sig: the index in base64 and two signatures."""
