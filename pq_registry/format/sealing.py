# SPDX-License-Identifier: Apache-2.0
"""What a manifest says of a sealed release, and where everything lies in one (docs/spec/sealing.md).

A sealed release stores ``pqreg.inner`` and ``sealed/00000``, ``sealed/00001``, … : neutral names, in the order of the
plaintext's files. Each is its plaintext cut into shards of ``limits.SHARD_BYTES``, every shard followed by a tag of
``limits.SEAL_TAG_BYTES``; so shard i of a stored file starts at ``i * SLICE_BYTES``, and an empty file stays empty.

>>> stored_path(3).text
'sealed/00003'
>>> sealed_size(0), sealed_size(1), sealed_size(2097153)
(0, 17, 2097185)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.path import ReleasePath
from pq_registry.format.strict_json import Fields, Value, encode_base64

INNER_NAME: Final = "pqreg.inner"
SLICE_BYTES: Final = limits.SHARD_BYTES + limits.SEAL_TAG_BYTES
"""Bytes of a stored shard, its tag included; only a file's last one may be shorter."""
COMMITMENT_BYTES: Final = 32
_STORED_NAME: Final = "sealed/{:05d}"


@dataclass(frozen=True, slots=True)
class Sealing:
    """The manifest's field ``sealing``: commitments to the content key and to pqreg.inner's plaintext."""

    commitment: bytes
    inner_sha256: Digest

    def __post_init__(self) -> None:
        """Refuse a commitment of another length.

        Raises:
            FormatError: if it has not 32 bytes.
        """
        if len(self.commitment) != COMMITMENT_BYTES:
            raise FormatError(
                "the commitment to the content key has a wrong length",
                expected=f"{COMMITMENT_BYTES} bytes",
                found=f"{len(self.commitment)} bytes",
            )

    def to_value(self) -> Value:
        """The JSON value of the field."""
        return {"commitment": encode_base64(self.commitment), "inner_sha256": str(self.inner_sha256)}

    @classmethod
    def from_value(cls, value: Value, where: str) -> Sealing:
        """Read the JSON value of the field; ``where`` names it in messages.

        Raises:
            FormatError: if it is not exactly what ``to_value`` writes.
        """
        fields = Fields(value, where)
        sealing = cls(fields.base64("commitment", limit=COMMITMENT_BYTES), fields.parsed("inner_sha256", Digest.parse))
        fields.done()
        return sealing


def stored_path(index: int) -> ReleasePath:
    """The stored name of the plaintext's file number ``index``, from 0.

    Raises:
        FormatError: if a release cannot have so many files.
    """
    if not 0 <= index < limits.SEALED_FILES:
        raise FormatError(
            "a sealed release cannot have so many files", expected=f"at most {limits.SEALED_FILES}", found=index + 1
        )
    return ReleasePath(_STORED_NAME.format(index))


def sealed_size(size: int) -> int:
    """Stored bytes of a file of ``size`` plaintext bytes."""
    return size + limits.SEAL_TAG_BYTES * -(-size // limits.SHARD_BYTES)


def plaintext_size(stored: int) -> int:
    """Plaintext bytes of a file of ``stored`` bytes.

    Raises:
        FormatError: if no file has that stored size: its last shard would be empty or less than a tag.
    """
    size = stored - limits.SEAL_TAG_BYTES * -(-stored // SLICE_BYTES)
    if stored < 0 or sealed_size(size) != stored:
        raise FormatError(
            "the size cannot be that of a sealed file",
            expected=f"shards of {limits.SEAL_TAG_BYTES + 1} to {SLICE_BYTES} bytes, all but the last of the latter",
            found=f"{stored} bytes",
        )
    return size


def check_stored_paths(paths: Sequence[ReleasePath]) -> None:
    """Refuse the files of a sealed release unless they are pqreg.inner, then sealed/00000 and so on without a gap.

    Raises:
        FormatError: naming the first path that is out of place.
    """
    expected = [INNER_NAME, *(_STORED_NAME.format(index) for index in range(max(1, len(paths) - 1)))]
    for found, wanted in zip((path.text for path in paths), expected, strict=False):
        if found != wanted:
            raise FormatError(
                "a sealed release holds a file that is none of it", expected=wanted, found=repr(found)[:200]
            )
    if len(paths) < len(expected):
        raise FormatError("a sealed release lacks a file", expected=expected[len(paths)], found=f"{len(paths)} files")
