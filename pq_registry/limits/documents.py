# SPDX-License-Identifier: Apache-2.0
"""Bounds of what is read from files and messages, whoever reads it."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import GIB, KIB, MIB

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
