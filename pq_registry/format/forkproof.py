# SPDX-License-Identifier: Apache-2.0
r"""A fork proof: that the larger of two signed trees does not begin with the smaller one (docs/spec/evidence.md).

Two checkpoints of one size with different roots speak for themselves. For different sizes it takes the root that the
larger tree had at the smaller size, and an RFC 6962 consistency proof that it had. The file is ASCII::

    pq-registry/fork-proof@v1\n
    old <sha256 of the smaller tree's note, hex>\n
    new <sha256 of the larger tree's note, hex>\n
    root <base64>\n               what the larger tree's root was at the smaller size
    <base64 hash>\n ...           RFC 6962 §2.1.2

``ForkProof.parse(data).encode() == data``. Whether it proves anything is for ``log.misbehaviour``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.checkpoint import HASH_BYTES, parse_hash
from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import encode_base64

HEADER: Final = "pq-registry/fork-proof@v1"


@dataclass(frozen=True, slots=True)
class ForkProof:
    """The notes by their digests, the larger tree's root at the smaller size, and the proof of that."""

    old: Digest
    new: Digest
    root: bytes
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if there are too many hashes, or one has not 32 bytes.
        """
        if len(self.hashes) > limits.PROOF_HASHES or any(len(one) != HASH_BYTES for one in (self.root, *self.hashes)):
            raise FormatError("a fork proof's hashes are impossible",
                              expected=f"at most {limits.PROOF_HASHES} of {HASH_BYTES} bytes")  # fmt: skip

    def encode(self) -> bytes:
        """The exact bytes of the file."""
        lines = [HEADER, f"old {self.old.hex}", f"new {self.new.hex}", f"root {encode_base64(self.root)}"]
        return "".join(f"{line}\n" for line in (*lines, *map(encode_base64, self.hashes))).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> ForkProof:
        """Read a fork proof; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is none.
        """
        what = "the fork proof"
        if len(data) > limits.FORK_PROOF_BYTES:
            raise FormatError(f"{what} is too large", expected=f"at most {limits.FORK_PROOF_BYTES} bytes")
        try:
            header, old, new, root, *hashes, end = data.decode("ascii").split("\n")
            fields = [line.split(" ") for line in (old, new, root)]
            if header != HEADER or end or [name for name, _ in fields] != ["old", "new", "root"]:
                raise ValueError("another line is expected")
            proof = cls(
                Digest(fields[0][1]),
                Digest(fields[1][1]),
                parse_hash(fields[2][1], what),
                tuple(parse_hash(line, what) for line in hashes),
            )
        except (ValueError, NameSyntaxError) as error:
            raise FormatError(f"{what} is malformed", expected=f"{HEADER} and its lines", found=str(error)) from None
        return proof
