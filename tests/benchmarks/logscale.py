# SPDX-License-Identifier: Apache-2.0
"""A large log without its bytes: how many files, bytes and requests, how long its proofs, how fast its sequencer.

``python -m tests.benchmarks.logscale [--leaves N] …`` prints one JSON object; docs/operations/log-scale.md explains it.
What is stored and written is counted exactly, checkpoint by checkpoint, by the rules of c2sp.org/tlog-tiles; a test
holds the counts against a real tree. Leaves and notes have the sizes that ours really have. The sequencer is simulated
from two times, of a batch and of a leaf in it, which are assumptions until they are measured on the machine in
question; prices are assumptions altogether.
"""

from __future__ import annotations

import argparse
import json
import random
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from pq_registry.format.digest import Digest
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.strict_json import encode_base64
from pq_registry.format.tile import ENTRIES, HASH_BYTES, WIDTH, encode_entries, level_sizes
from pq_registry.format.tlogproof import HEADER

CHUNK = 1_000_000
"""Checkpoints counted at once."""
NOTE_BYTES = {"text": 80, "log": 3400, "witness": 3392}
"""A checkpoint: its text, the log's two lines, and both lines of one witness."""
SAMPLE = 2000


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a provider of object storage charges; the defaults are of the order of large providers' list prices."""

    put_per_1000: float = 0.005
    get_per_1000: float = 0.0004
    gb_month: float = 0.023
    egress_gb: float = 0.09


@dataclass(frozen=True)
class Files:
    """Files and their bytes."""

    files: int
    bytes: int

    def __add__(self, other: Files) -> Files:
        return Files(self.files + other.files, self.bytes + other.bytes)


NONE = Files(0, 0)


def unit(level: int, entry: int) -> int:
    """Bytes of one hash or leaf in a tile of a level; ``entry`` is those of a leaf with its length."""
    return entry if level == ENTRIES else HASH_BYTES


def level_counts(size: int) -> dict[int, int]:
    """Leaves and hashes of a tree of ``size`` leaves, by level."""
    return {ENTRIES: size, **dict(enumerate(level_sizes(size)))} if size else {}


def stored(size: int, entry: int) -> tuple[Files, Files]:
    """Full tiles of a tree, and the partial ones at its edge: what has to be kept."""
    full, edge = NONE, NONE
    for level, count in level_counts(size).items():
        tiles, width = divmod(count, WIDTH)
        full += Files(tiles, tiles * WIDTH * unit(level, entry))
        edge += Files(int(width > 0), width * unit(level, entry))
    return full, edge


def written(size: int, entry: int, batch: int) -> tuple[Files, Files]:
    """Full and partial tiles that are ever written if each checkpoint adds ``batch`` leaves; the last adds the rest."""
    partial = NONE
    checkpoints = -(-size // batch)
    for first in range(1, checkpoints + 1, CHUNK):
        numbers = np.arange(first, min(first + CHUNK, checkpoints + 1), dtype=np.int64)
        after, before = np.minimum(numbers * batch, size), (numbers - 1) * batch
        for level in level_counts(size):
            shift = 8 * max(level, 0)
            widths = (after >> shift) % WIDTH
            changed = (after >> shift) != (before >> shift)
            partial += Files(
                int(np.count_nonzero(widths * changed)), int(np.sum(widths * changed)) * unit(level, entry)
            )
    return stored(size, entry)[0], partial


def proof_length(index: int, size: int) -> int:
    """Hashes of an inclusion proof."""
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


def receipt_bytes(index: int, size: int, leaf: int, witnesses: int) -> int:
    """A receipt, to within a few bytes: leaf, proof, checkpoint with the log's and the witnesses' lines."""
    head = len(f"{HEADER}\nextra \nindex {index}\n\n") + (leaf + 2) // 3 * 4
    line = len(encode_base64(bytes(HASH_BYTES))) + 1
    note = NOTE_BYTES["text"] + NOTE_BYTES["log"] + witnesses * NOTE_BYTES["witness"]
    return head + proof_length(index, size) * line + note


def sample_bundle(seed: int = 4) -> tuple[int, float]:
    """Bytes of a leaf with its length, and how small gzip makes a bundle of leaves as different as real ones."""
    source = random.Random(seed)
    signers = [source.randbytes(32).hex() for _ in range(20)]
    leaves = [
        Leaf(
            identity=source.choice(signers), kind=source.choice([Kind.RELEASE, Kind.TAG, Kind.TAG, Kind.GRANT]),
            name=f"acme/model-{source.randrange(200)}", time=1795262400 + 7 * number,
            payload=Digest(source.randbytes(32).hex()), ec=Digest(source.randbytes(32).hex()),
            pq=Digest(source.randbytes(32).hex()),
        ).encode()
        for number in range(WIDTH)
    ]  # fmt: skip
    bundle = encode_entries(leaves)
    return round(len(bundle) / WIDTH), len(zlib.compress(bundle, 6)) / len(bundle)


def sequencing(publishers: int, *, batch_ms: float, leaf_ms: float, publish_ms: float) -> dict[str, float]:
    """Publishers who each wait for their receipt before the next leaf; a batch takes whoever is there.

    A batch takes ``batch_ms`` and ``leaf_ms`` for each leaf; publishing, with or without witnesses, takes
    ``publish_ms`` and goes on beside the next batches, one checkpoint after the other.
    """
    ready = [0.0] * publishers
    clock = published = 0.0
    latencies: list[float] = []
    waiting: list[tuple[float, float]] = []
    while len(latencies) < max(SAMPLE, 20 * publishers):
        here = [time for time in ready if time <= clock]
        if not here:
            # Either somebody comes back by himself, or the next publication sends some back.
            clock = min([time for time in ready if time > clock], default=max(published, clock) + publish_ms)
        else:
            ready = [time for time in ready if time > clock]
            clock += batch_ms + leaf_ms * len(here)
            waiting += [(begun, clock) for begun in here]
        while waiting and published <= clock:
            started = max(published, min(done for _, done in waiting))
            published = started + publish_ms
            answered = [begun for begun, done in waiting if done <= started]
            waiting = [(begun, done) for begun, done in waiting if done > started]
            latencies += [published - begun for begun in answered]
            ready += [published] * len(answered)
    latencies.sort()
    return {
        "appends_per_s": round(1000 * len(latencies) / published, 1),
        "p50_ms": round(latencies[len(latencies) // 2], 1),
        "p99_ms": round(latencies[len(latencies) * 99 // 100], 1),
    }


def plan(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about a log of ``arguments.leaves`` leaves."""
    size, batch, prices = arguments.leaves, arguments.batch, arguments.prices
    entry, ratio = sample_bundle()
    full, edge = stored(size, entry)
    fulls, partials = written(size, entry, batch)
    checkpoints = -(-size // batch)
    source = random.Random(size)
    indexes = [source.randrange(size) for _ in range(SAMPLE)]
    lengths = [proof_length(index, size) for index in indexes]
    puts = fulls.files + partials.files + checkpoints
    gigabytes = (full.bytes + edge.bytes) / 1e9
    bundles = -(-size // WIDTH)
    return {
        "leaves": size,
        "leaf_bytes": entry - 2,
        "gzip_ratio_of_bundles": round(ratio, 3),
        "levels": len(list(level_sizes(size))),
        "kept": {"full": asdict(full), "edge": asdict(edge)},
        "written": {"checkpoints": checkpoints, "full": asdict(fulls), "partial": asdict(partials), "puts": puts},
        "proof": {
            "mean_hashes": round(sum(lengths) / len(lengths), 2),
            "most_hashes": (size - 1).bit_length(),
            "receipt_bytes": {
                f"{witnesses} witnesses": max(receipt_bytes(i, size, entry - 2, witnesses) for i in indexes)
                for witnesses in (0, 1, 3)
            },
        },
        "auditor": {
            "requests": 2 * bundles,
            "gigabytes": round((size * (entry + HASH_BYTES)) / 1e9, 1),
            "gigabytes_gzip": round((size * (entry * ratio + HASH_BYTES)) / 1e9, 1),
            "hours_at_20000_leaves_per_s": round(size / 20_000 / 3600, 2),
        },
        "cost": {
            "puts_once": round(puts / 1000 * prices.put_per_1000, 2),
            "storage_per_month": round(gigabytes * prices.gb_month, 2),
            "storage_per_month_with_all_partial_tiles": round(
                (gigabytes + partials.bytes / 1e9) * prices.gb_month, 2
            ),
            "one_audit_from_origin": round(
                2 * bundles / 1000 * prices.get_per_1000 + size * (entry + HASH_BYTES) / 1e9 * prices.egress_gb, 2
            ),
        },
        "sequencer": {
            f"{publishers} publishers": {
                "alone": sequencing(publishers, batch_ms=arguments.batch_ms, leaf_ms=arguments.leaf_ms,
                                    publish_ms=arguments.publish_ms),
                "with witnesses": sequencing(publishers, batch_ms=250 + arguments.batch_ms, leaf_ms=arguments.leaf_ms,
                                             publish_ms=arguments.publish_ms + arguments.witness_ms),
            }
            for publishers in (1, 10, 100, 1000)
        },
    }  # fmt: skip


def arguments_of(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.logscale", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--leaves", type=int, default=100_000_000)
    parser.add_argument("--batch", type=int, default=10, help="leaves that a checkpoint adds")
    parser.add_argument("--batch-ms", type=float, default=8, help="time of a batch without its leaves")
    parser.add_argument("--leaf-ms", type=float, default=0.2, help="time of one leaf in a batch")
    parser.add_argument("--publish-ms", type=float, default=6, help="time to publish a checkpoint")
    parser.add_argument("--witness-ms", type=float, default=60, help="until the quorum of witnesses has answered")
    for field in fields(Prices):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    parsed = parser.parse_args(words)
    parsed.prices = Prices(**{field.name: getattr(parsed, field.name) for field in fields(Prices)})
    return parsed


if __name__ == "__main__":
    print(json.dumps(plan(arguments_of()), indent=2))
