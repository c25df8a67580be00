# SPDX-License-Identifier: Apache-2.0
r"""What a witness is asked: the body of ``add-checkpoint`` (C2SP tlog-witness).

::

    old <size of the newest checkpoint the witness cosigned>\n
    <base64 hash>\n ...     the consistency proof from there, at most 63 (RFC 6962 §2.1.2)
    \n
    <checkpoint>
"""

from __future__ import annotations

from dataclasses import dataclass

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.checkpoint import parse_decimal, parse_hash
from pq_registry.format.strict_json import encode_base64


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The body of an ``add-checkpoint`` request."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """The bytes that are sent."""
        lines = [f"old {self.old_size}", *(encode_base64(value) for value in self.proof), ""]
        return "".join(f"{line}\n" for line in lines).encode("ascii") + self.note

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Read a body; the note is not looked into.

        Raises:
            FormatError: if ``body`` is none.
        """
        head, separator, note = body.partition(b"\n\n")
        try:
            first, *rest = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise FormatError("not an add-checkpoint request", expected="ASCII before the checkpoint") from None
        if not separator or not first.startswith("old ") or len(rest) > limits.PROOF_HASHES:
            raise FormatError(
                "not an add-checkpoint request",
                expected=f"old <size>, at most {limits.PROOF_HASHES} hashes, an empty line, a checkpoint",
            )
        old_size = parse_decimal(first.removeprefix("old "), "the old size")
        return cls(old_size, tuple(parse_hash(line, "a hash of the consistency proof") for line in rest), note)
