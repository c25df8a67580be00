# SPDX-License-Identifier: Apache-2.0
"""Writes the vectors of the log beside it (``make vectors``): keys, leaves, a cosigned checkpoint, a receipt, a policy.

Everything is made from labels, so that running it again gives the same. ML-DSA is hedged: a note that is there already
and whose lines all verify is kept.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from pq_registry.crypto.notesigning import NoteSigner, verify_line
from pq_registry.errors import PqregError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.cosignature import ed25519_message, subtree_message
from pq_registry.format.digest import Digest
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.name import Namespace
from pq_registry.format.note import Note, NoteKeyType
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.receipt import make_receipt
from pq_registry.log.tree import Edge, Tree
from tests.logsamples import Files
from tests.samples import NOW

HERE = Path(__file__).resolve().parent
NAME = "log.json"
ORIGIN, WITNESS = "log.example/vectors", "witness.example/vectors"
TIME = int(NOW.timestamp())
INDEX = 2


def labelled(label: str) -> bytes:
    """Bytes that everybody can make again: SHAKE256 of the label."""
    return hashlib.shake_256(label.encode()).digest(32)


def hex_of(label: str) -> str:
    """An id or digest that everybody can make again."""
    return hashlib.sha256(label.encode()).hexdigest()


def signers() -> list[NoteSigner]:
    """The log's two keys, then the witness's two."""
    kinds = (
        (ORIGIN, NoteKeyType.ED25519),
        (ORIGIN, NoteKeyType.MLDSA44_COSIGNATURE),
        (WITNESS, NoteKeyType.ED25519_COSIGNATURE),
        (WITNESS, NoteKeyType.MLDSA44_COSIGNATURE),
    )
    return [NoteSigner(name, kind, labelled(f"{name} {kind.value}")) for name, kind in kinds]


def leaves() -> list[Leaf]:
    """One leaf of each kind, and one again later."""
    made = []
    for number, kind in enumerate((*Kind, Kind.TAG)):
        name = "acme" if kind.of_namespace else "acme/minilm"
        payload, ec, pq = (Digest(hex_of(f"{number} {what}")) for what in ("payload", "ec", "pq"))
        made.append(
            Leaf(identity=hex_of("alice"), kind=kind, name=name, payload=payload, ec=ec, pq=pq, time=TIME - 10 + number)
        )
    return made


def status() -> StatusStatement:
    """A status statement with an entry of each kind."""
    entries = []
    for kind in RevocationKind:
        is_id = kind in {RevocationKind.IDENTITY, RevocationKind.RECIPIENT}
        entries.append(Revocation(kind, hex_of(kind.value) if is_id else f"sha256:{hex_of(kind.value)}", NOW))
    return StatusStatement(
        namespace=Namespace("Acme"), signer=hex_of("revoker"), sequence=2, previous=Digest(hex_of("previous")),
        revoked=tuple(sorted(entries, key=lambda entry: entry.key)), issued=NOW, expires=NOW + timedelta(days=30),
    )  # fmt: skip


def signed(checkpoint: Checkpoint, known: str) -> bytes:
    """The note that is there, if all four lines verify; else a fresh one."""
    keys = signers()
    try:
        found, note = parse_checkpoint_note(known.encode())
        times = [verify_line(signer.key, found, note.lines_of(signer.key)[0]) for signer in keys]
    except (PqregError, IndexError):
        found, times = None, []
    if found == checkpoint and times == [None, TIME, TIME + 5, TIME + 5]:
        return known.encode()
    lines = tuple(signer.sign(checkpoint, TIME + (5 if signer.key.name == WITNESS else 0)) for signer in keys)
    return Note(checkpoint.encode(), lines).encode()


def document(known: dict[str, Any]) -> dict[str, Any]:
    """All of it."""
    entries = [leaf.encode() for leaf in leaves()]
    growth = Edge().grow(entries)
    files = Files()
    files.update(growth.tiles)
    checkpoint = Checkpoint(ORIGIN, growth.edge.size, growth.edge.root)
    note = signed(checkpoint, known.get("note", ""))
    keys = signers()
    policy = Policy.compose(keys[0].key, keys[1].key, [("w", [signer.key for signer in keys[2:]], None)], 1)
    message = {"timestamp": TIME + 5, "origin": ORIGIN, "start": 0, "end": checkpoint.size, "root": checkpoint.root}
    return {
        "keys": [
            {"type": int(signer.key.type), "seed": labelled(f"{signer.key.name} {int(signer.key.type)}").hex(),
             "vkey": str(signer.key), "secret": signer.to_text()}
            for signer in keys
        ],
        "leaves": [entry.decode() for entry in entries],
        "checkpoint": checkpoint.encode().decode(),
        "ed25519_message": ed25519_message(checkpoint.encode(), TIME + 5).hex(),
        "mldsa44_message": subtree_message(cosigner=WITNESS, **message).hex(),  # type: ignore[arg-type]
        "note": note.decode(),
        "index": INDEX,
        "receipt": make_receipt(
            Tree(files, checkpoint.size, checkpoint.root), INDEX, entry=entries[INDEX], note=note
        ).decode(),
        "policy": policy.text,
        "attested": TIME + 5,
        "status": status().encode().decode(),
    }  # fmt: skip


def main() -> None:
    """Write them."""
    path = HERE / NAME
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(document(known), indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
