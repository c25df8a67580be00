# SPDX-License-Identifier: Apache-2.0
r"""The receipt's file form: C2SP tlog-proof (https://c2sp.org/tlog-proof).

::

    c2sp.org/tlog-proof@v1\n
    extra <base64>\n            may be left out; ours always carry it: the leaf's bytes
    index <decimal>\n
    <base64 hash>\n ...         RFC 6962 §2.1.1, the leaf's sibling first
    \n
    <checkpoint, verbatim, with its signature lines>

``TlogProof.parse(data).encode() == data``. ``extra`` is authenticated by nothing in this file: a verifier rebuilds the
leaf and compares. Whether the checkpoint is signed, and the proof proves anything, is ``pq_registry.log``'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.checkpoint import HASH_BYTES, parse_decimal, parse_hash
from pq_registry.format.note import Note
from pq_registry.format.strict_json import decode_base64, encode_base64

HEADER: Final = "c2sp.org/tlog-proof@v1"
MEDIA_TYPE: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """That an entry stands at ``index`` of the tree of ``checkpoint`` (a signed note), verified or not."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if a field is impossible.
        """
        if type(self.index) is not int or not 0 <= self.index < limits.TREE_SIZE:
            raise FormatError(
                "a proof's index is impossible", expected=f"0 to {limits.TREE_SIZE - 1}", found=repr(self.index)[:40]
            )
        if len(self.hashes) > limits.PROOF_HASHES or any(len(value) != HASH_BYTES for value in self.hashes):
            raise FormatError(
                "a proof's hashes are impossible",
                expected=f"at most {limits.PROOF_HASHES} of {HASH_BYTES} bytes",
                found=f"{len(self.hashes)} hashes",
            )
        if self.extra is not None and not 0 < len(self.extra) <= limits.LOG_ENTRY_BYTES:
            raise FormatError(
                "a proof's extra data is empty or too large",
                expected=f"1 to {limits.LOG_ENTRY_BYTES} bytes, or none",
                found=f"{len(self.extra)} bytes",
            )
        Note.parse(self.checkpoint)

    def encode(self) -> bytes:
        """The exact bytes that are stored and sent."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [encode_base64(value) for value in self.hashes]
        return "".join(f"{line}\n" for line in [*lines, ""]).encode("ascii") + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Read a receipt; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is none, or larger than one may be.
        """
        if len(data) > limits.TLOG_PROOF_BYTES:
            raise FormatError(
                "the receipt is too large",
                expected=f"at most {limits.TLOG_PROOF_BYTES} bytes",
                found=f"{len(data)} bytes",
            )
        head, separator, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            lines = []
        if not separator or not lines or lines.pop(0) != HEADER:
            raise FormatError("not a receipt", expected=f"a tlog-proof: {HEADER}, …, an empty line, a checkpoint")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(
                lines.pop(0).removeprefix("extra "), what="the receipt's extra data", limit=limits.LOG_ENTRY_BYTES
            )
        if not lines or not lines[0].startswith("index "):
            raise FormatError(
                "the receipt names no index", expected="index <decimal>", found=repr(lines[0])[:60] if lines else None
            )
        index = parse_decimal(lines.pop(0).removeprefix("index "), "the receipt's index", most=limits.TREE_SIZE - 1)
        if len(lines) > limits.PROOF_HASHES:
            raise FormatError(
                "the receipt's proof is too long", expected=f"at most {limits.PROOF_HASHES} hashes", found=len(lines)
            )
        return cls(index, tuple(parse_hash(line, "a hash of the receipt") for line in lines), checkpoint, extra)
