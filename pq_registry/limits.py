# SPDX-License-Identifier: Apache-2.0
"""Every bound of the system, with its unit and its reason. No other module defines one.

A reader that meets more than a limit refuses before it allocates, parses or writes anything.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# -- documents -------------------------------------------------------------------------------------------------------
STATEMENT_BYTES: Final = 32 * MIB
"""A statement's payload: 100 000 resources of about 300 bytes."""
MANIFEST_BYTES: Final = 64 * MIB
"""pqreg.json: 64 bytes per 3 MiB of weights, so about 2.5 TB of them."""
ENVELOPE_BYTES: Final = 64 * MIB
"""A DSSE envelope: a statement in base64 and two signatures."""
SIGNATURE_BYTES: Final = 8 * KIB
"""One half of a signature: ML-DSA-87 has 4627 bytes, ECDSA at most 104."""
TAG_LIFETIME_DAYS: Final = 3650
"""Longest a publisher may let a tag go without renewing it; beyond that a rollback would go unnoticed for good."""
TAG_STATEMENT_BYTES: Final = 16 * KIB
"""A tag statement's payload: about 900 bytes."""
INNER_BYTES: Final = MANIFEST_BYTES + ENVELOPE_BYTES
"""pqreg.inner's plaintext: what a manifest holds, and a bundle around the plaintext's statement."""
GRANT_STATEMENT_BYTES: Final = 16 * KIB
"""A grant statement's payload: about 3 KiB, of which the wrapped content key is 2.3."""
GRANT_ENVELOPE_BYTES: Final = 64 * KIB
"""An envelope around a grant or key statement, in a request."""
KEY_STATEMENT_BYTES: Final = 16 * KIB
"""A key statement's payload: about 3 KiB, of which the public key is 2.2."""
RECIPIENT_FILE_BYTES: Final = 8 * KIB
"""A recipient's .pqpub file: about 2.3 KiB."""
NODE_NAME_CHARS: Final = 253
"""The name of a node in a key statement: as long as a DNS name can be."""
TRUST_FILE_BYTES: Final = 4 * MIB
"""trust.json: a few thousand identities of about 4 KiB."""
SLH_SIGNATURE_BYTES: Final = 32 * KIB
"""The third signature of a trust file: SLH-DSA-SHA2-256s has 29 792 bytes."""
TRUST_SIGNATURE_BYTES: Final = TRUST_FILE_BYTES // 3 * 4 + 128 * KIB
"""trust.json.sig: the trust file in base64 and three signatures."""
IDENTITY_FILE_BYTES: Final = 16 * KIB
"""A .pqpub file: two SPKI blocks as PEM (at most 4 KiB)."""
KEY_FILE_BYTES: Final = 16 * KIB
"""A .pqkey file: a few hundred bytes of sealed seeds."""
DESCRIPTOR: Final = 2**20
"""Number of a file descriptor somebody may name; more than any process has."""
KEY_BACKUP_BYTES: Final = 2 * KEY_FILE_BYTES
"""A key backup: a .pqkey file in base64."""
PKCS11_URI_BYTES: Final = KIB
"""The PKCS#11 URI of a signing half; a token's labels have at most 32 characters."""
PASSPHRASE_BYTES: Final = 4 * KIB
"""A passphrase, or the file whose first line is one."""
PASSPHRASE_MEMORY_KIB: Final = 2**20
"""Argon2id memory a .pqkey file may ask for (1 GiB); we write 256 MiB. More is a memory bomb."""
PASSPHRASE_PASSES: Final = 10
"""Argon2id passes a .pqkey file may ask for; we write 3. With the bound above, under a minute."""
PASSPHRASE_LANES: Final = 16
"""Argon2id lanes (threads) a .pqkey file may ask for; we write 4."""
PROBLEM_BYTES: Final = 64 * KIB
"""An RFC 9457 problem document read from a server."""
JSON_RESPONSE_BYTES: Final = 64 * MIB
"""Any other JSON answer of a server."""
JSON_DEPTH: Final = 32
"""Nesting of any JSON document; ours need 7."""
JSON_INTEGER: Final = 2**53 - 1
"""Largest integer every JSON implementation carries exactly (RFC 7493)."""

# -- releases --------------------------------------------------------------------------------------------------------
FILES: Final = 100_000
"""Files in a release; the Hub recommends the same."""
PATH_BYTES: Final = 1024
"""A path in UTF-8; below PATH_MAX of every system we know."""
PATH_COMPONENT_BYTES: Final = 255
"""One component of a path: NAME_MAX of common file systems."""
FILE_BYTES: Final = 16 * 1024 * GIB
"""One file: 16 TiB, the largest an ext4 file can be."""
SHARD_BYTES: Final = 2 * MIB
"""Unit of hashing and sealing. Fixed in version 1 of the manifest; threads x shard fits half of a usual L3 cache."""
SEAL_TAG_BYTES: Final = 16
"""AES-GCM's tag at the end of a sealed shard."""
SEALED_FILES: Final = FILES - 1
"""Files a sealed release can hold: their stored names have five digits, and pqreg.inner is a file too."""
LINEAGE: Final = 64
"""Base releases one release may name."""
LICENSE_CHARS: Final = 256
"""An SPDX expression or a short name."""

# -- safetensors -----------------------------------------------------------------------------------------------------
SAFETENSORS_HEADER_BYTES: Final = 16 * MIB
"""The format allows 100 MB; no published model comes near 16 MiB and a larger one is a memory bomb."""
TENSORS: Final = 1_000_000
"""Tensors in one file."""
TENSOR_RANK: Final = 16
"""Dimensions of a tensor; numpy stops at 64, models at 6."""
TENSOR_NAME_BYTES: Final = 512
"""A tensor's name in UTF-8."""
TENSOR_DTYPE_CHARS: Final = 16
"""A dtype's name; the longest is F8_E4M3FNUZ."""
SAFETENSORS_METADATA: Final = 1024
"""Entries of ``__metadata__``."""

# -- files of other formats ------------------------------------------------------------------------------------------
HEAD_BYTES: Final = 64 * KIB
"""Start of a file that is read to recognise its format: the magic numbers we know lie in the first 512 bytes."""

# -- trust -----------------------------------------------------------------------------------------------------------
NAMESPACES: Final = 10_000
"""Namespaces in a trust file."""
IDENTITIES_PER_NAMESPACE: Final = 64
"""Identities of one namespace: each costs a verification of both halves."""
PINNED_DIGESTS: Final = 10_000
"""Pinned releases of one namespace."""
LOG_POLICIES: Final = 16
"""Log policies of a trust file: one in force, and those that were before it."""
GRACE_DAYS: Final = 366
"""Longest grace an operator may give an expired trust file or tag."""
CLOCK_SKEW_SECONDS: Final = 300
"""How far in the future a statement may claim to have been issued."""
DSSE_SIGNATURES: Final = 2
"""A hybrid envelope has exactly two: EC first, post-quantum second."""

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
DRAINED_BODY_BYTES: Final = 32 * MIB
"""How much of a refused body is read and dropped so that its sender gets to see the answer; twice PART_BYTES."""
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
MINIMUM_RATE_BYTES: Final = 2 * KIB
"""Bytes per second below which, over TIMEOUT_SECONDS of waiting, a peer counts as stalled: a drip must end too."""
HANDSHAKE_SECONDS: Final = 60
"""Longest a connection may take to be set up, all addresses and the TLS handshake together."""
RESPONSE_OVERHEAD_BYTES: Final = MIB
"""What a server may send besides a body: headers, interim responses, chunk framing, trailers."""
LOCATION_CHARS: Final = 8 * KIB
"""Length of a redirect's target; presigned URLs are about 1 KiB."""
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

# -- loader ----------------------------------------------------------------------------------------------------------
LOADER_RING_BYTES: Final = 128 * MIB
"""Read ahead of what the caller of iter_tensors has taken: keeps every thread busy while a few tensors wait."""
LOADER_ARENA_BYTES: Final = 512 * MIB
"""Memory that iter_tensors uses again: the ring, and the tensors held and being read of all but the largest models."""
LOADER_THREADS: Final = 16
"""Threads that read a local release; a few saturate memory on every machine seen."""
SHORT_RESPONSE_BYTES: Final = MIB
"""An answer of a server that lists nothing long, e.g. to a commit or a tag's envelope."""
PROGRESS_BYTES: Final = 256 * KIB
"""What a try must bring for a range to be granted new tries; so a range of 16 MiB ends after 64 x ATTEMPTS of them."""

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
