# SPDX-License-Identifier: Apache-2.0
"""Receipts: proofs, checked offline, that a statement is in the log (DESIGN §5, step 4; C2SP tlog-proof).

A receipt carries the leaf in ``extra``. Nothing in it is believed:

1. The leaf is rebuilt from the envelope that is being verified, the kind of statement, the name and the identity under
   which it verified; only the time is taken from ``extra``. The two must be the same bytes, so a receipt of another
   payload, signature, key, kind or name is of another leaf (CVE-2022-36056).
2. The leaf is included in the tree of the checkpoint (RFC 9162 §2.1.3.2).
3. A policy accepts the checkpoint, its window contains the attested time T, and T lies between the leaf's time and an
   hour after it. Without an independent witness there is no T; the window is then held against the leaf's time, which
   only the log vouches for, and the caller sees ``attested`` None.

Receipts do not age: whether the log still stands by the checkpoint is asked with a consistency proof, elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import CheckpointInvalid, LogError, QuorumNotMet, ReceiptInvalid
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import format_instant, from_unix, in_window
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.tlogpolicy import LogPolicy, Policy
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.judge import Judged, attesting_first, judge
from pq_registry.log.merkle import leaf_hash, verify_inclusion
from pq_registry.log.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A receipt that was verified: the leaf, where it stands, who vouches for that and since when.

    ``cosigners`` are the key names of the independent witnesses of ``policy`` whose cosignatures verified; ``attested``
    is None if there are none. ``proof`` holds the exact bytes.
    """

    index: int
    checkpoint: Checkpoint
    attested: datetime | None
    cosigners: frozenset[str]
    leaf: Leaf
    policy: Policy
    proof: bytes


def make_receipt(tree: Tree, index: int, *, entry: bytes, note: bytes) -> bytes:
    """The receipt of leaf ``index``, whose bytes are ``entry``, under the checkpoint ``note`` of ``tree``.

    Raises:
        UsageError: if the tree has no such leaf.
        NotFound: if a tile is missing.
        TileMismatch: if a tile is not of the tree.
        FormatError: if ``entry`` or ``note`` is too large.
    """
    return TlogProof(index, tree.inclusion_proof(index), note, entry).encode()


def verify_receipt(
    data: bytes, *, envelope: Envelope, kind: Kind, name: str, identity: str, policies: Sequence[LogPolicy]
) -> Receipt:
    """Check a receipt against the envelope it is presented with.

    Args:
        data: the tlog-proof.
        envelope: the envelope, whose signatures verified under ``identity``.
        kind: what its payload was parsed as.
        name: repository, or for key and status statements namespace, as the payload writes it.
        identity: id of the signer.
        policies: the trust file's.

    Raises:
        FormatError: if ``data``, the leaf or the checkpoint in it is malformed.
        ReceiptInvalid: if it is of another leaf, proves nothing, or was attested outside of the time allowed.
        CheckpointInvalid: if no policy knows the log, or a signature on its checkpoint is wrong.
        QuorumNotMet: if the checkpoint lacks cosignatures.
    """
    proof = TlogProof.parse(data)
    leaf = _rebuilt(proof.extra, envelope, kind, name, identity)
    checkpoint, _ = parse_checkpoint_note(proof.checkpoint)
    verify_inclusion(
        index=proof.index,
        size=checkpoint.size,
        leaf=leaf_hash(leaf.encode()),
        proof=proof.hashes,
        root=checkpoint.root,
    )
    policy, judged = _accepted(proof.checkpoint, checkpoint, leaf, policies)
    return Receipt(
        index=proof.index,
        checkpoint=checkpoint,
        attested=None if judged.attested is None else from_unix(judged.attested),
        cosigners=judged.cosigners,
        leaf=leaf,
        policy=policy,
        proof=data,
    )


def _rebuilt(extra: bytes | None, envelope: Envelope, kind: Kind, name: str, identity: str) -> Leaf:
    if extra is None:
        raise ReceiptInvalid("the receipt does not carry its leaf", expected="a line 'extra'")
    found = Leaf.parse(extra)
    leaf = Leaf.of(envelope, kind=kind, name=name, identity=identity, time=found.time)
    if leaf.encode() != extra:
        differing = [field for field in Leaf.__dataclass_fields__ if getattr(leaf, field) != getattr(found, field)]
        raise ReceiptInvalid(
            f"the receipt is of another leaf: {', '.join(differing)} differ",
            expected=leaf.encode().decode(),
            found=found.encode().decode(),
        )
    return leaf


def _accepted(note: bytes, checkpoint: Checkpoint, leaf: Leaf, policies: Sequence[LogPolicy]) -> tuple[Policy, Judged]:
    """The first policy that accepts the checkpoint at a time in its window; else the refusal that came furthest.

    A policy with an independent witness is tried before one without: what witnesses attested is not to be lost because
    the trust file would have been content with less.
    """
    refusals: list[LogError] = []
    for entry in attesting_first(policies):
        if entry.policy.origin != checkpoint.origin:
            continue
        try:
            judged = judge(note, entry.policy)
            _check_time(judged, leaf, entry)
        except (CheckpointInvalid, QuorumNotMet, ReceiptInvalid) as error:
            refusals.append(error)
        else:
            return entry.policy, judged
    if refusals:
        raise max(refusals, key=lambda error: (CheckpointInvalid, QuorumNotMet, ReceiptInvalid).index(type(error)))
    raise CheckpointInvalid(
        "the receipt is of a log that no policy of the trust file names",
        expected=", ".join(sorted({entry.policy.origin for entry in policies})),
        found=checkpoint.origin,
        hint="pqreg trust log add FILE --from URL adds a log",
    )


def _check_time(judged: Judged, leaf: Leaf, entry: LogPolicy) -> None:
    attested = leaf.time if judged.attested is None else judged.attested
    if not leaf.time <= attested <= leaf.time + limits.ATTESTATION_SECONDS:
        raise ReceiptInvalid(
            "the witnesses saw the leaf at another time than it claims",
            expected=f"attested from {format_instant(from_unix(leaf.time))} to {limits.ATTESTATION_SECONDS} s later",
            found=format_instant(from_unix(attested)),
            hint="the log makes a new leaf after an outage of its witnesses; get the newer receipt",
        )
    if not in_window(from_unix(attested), entry.not_before, entry.not_after):
        raise ReceiptInvalid(
            f"the policy of {entry.policy.origin} does not hold for the time of the receipt",
            expected=f"{_side(entry.not_before)} to {_side(entry.not_after)}",
            found=format_instant(from_unix(attested)),
        )


def _side(instant: datetime | None) -> str:
    return "any time" if instant is None else format_instant(instant)
