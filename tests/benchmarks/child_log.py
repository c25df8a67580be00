# SPDX-License-Identifier: Apache-2.0
"""The log, measured in a process of its own; prints one JSON object.

``append DIR PUBLISHERS COUNT``   each publisher hands in a leaf, waits for its receipt, hands in the next
``grow DIR LEAVES``               prepares a log of as many leaves in DIR, for the audit
``audit DIR leaves|index``        follows that log: verified alone, or recorded in an auditor's state as well
``audit DIR statements``          ``pqreg audit``'s work on a log of signed statements that it makes first
``receipts N WITNESSES ours|proofbundle``   verifies N receipts
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pq_registry.format.leaf import Kind, Leaf

SYNCS = 50


def append(directory: str, publishers: str, count: str) -> dict[str, Any]:
    """Durable appends with receipts, through the service's sequencer and receipts on real files."""
    from pq_registry.service.receipts import Receipts
    from tests.local_log import IDENTITY, NAME, TIMEOUT, LocalLog, envelope, open_catalogue, record_statements
    from tests.logsamples import compose_policy

    root, total = Path(directory), int(count)
    catalogue = open_catalogue(root)
    record_statements(catalogue, total)
    catalogue.close()
    # What the service has when it logs a statement: its digest, and its leaf but for the time.
    leaves = [Leaf.of(envelope(number), kind=Kind.TAG, name=NAME, identity=IDENTITY, time=0) for number in range(total)]
    syncs = _syncs(root)
    log = LocalLog.open(root, monotonic=time.monotonic)
    receipts = Receipts(log.lock, log.tiles, compose_policy())
    numbers, latencies, problems = iter(range(total)), [], []
    turn, ready = threading.Lock(), threading.Barrier(int(publishers) + 1)

    def publish() -> None:
        ready.wait()
        try:
            while True:
                with turn:
                    number = next(numbers, None)
                if number is None:
                    return
                begun = time.perf_counter()
                leaf = leaves[number]
                pending = log.sequencer.append(partial(_encoded, leaf), statement=leaf.payload)
                done = pending.result(TIMEOUT)
                log.sequencer.wait_published(done.index, TIMEOUT)
                proof = receipts.of(replace(leaf, time=done.time), done.index)
                assert proof is not None and proof.quorum
                latencies.append(time.perf_counter() - begun)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            problems.append(error)

    threads = [threading.Thread(target=publish) for _ in range(int(publishers))]
    for thread in threads:
        thread.start()
    ready.wait()
    begun, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    size = log.shown.size
    log.close()
    if problems or size != total:
        raise SystemExit(f"{size} of {total} leaves; {problems[:1]}")
    latencies.sort()
    return {
        "seconds": seconds,
        "appends_per_s": total / seconds,
        "p50_ms": 1000 * latencies[total // 2],
        "p99_ms": 1000 * latencies[min(total - 1, total * 99 // 100)],
        "cpu_us_per_append": 1e6 * cpu / total,
        "disk_syncs_per_s": syncs,
    }


def _encoded(leaf: Leaf, time: int) -> bytes:
    return replace(leaf, time=time).encode()


def _syncs(directory: Path) -> float:
    """How often a second this disk makes 4 KiB durable: what one publisher alone is bound by."""
    path = directory / "syncs"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    begun = time.perf_counter()
    for _ in range(SYNCS):
        os.write(descriptor, bytes(4096))
        os.fsync(descriptor)
    seconds = time.perf_counter() - begun
    os.close(descriptor)
    path.unlink()
    return SYNCS / seconds


def grow(directory: str, leaves: str) -> dict[str, Any]:
    """Tiles and a checkpoint, written without care: nothing here is measured."""
    from tests.local_log import leaf_of
    from tests.logsamples import TIME, MemoryLog

    log = MemoryLog(witnesses=1)
    log.append_raw(*(leaf_of(number)(TIME) for number in range(int(leaves))))
    log.publish()
    for name, data in log.files.items():
        path = Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {"leaves": log.size, "files": len(log.files), "bytes": sum(map(len, log.files.values()))}


def audit(directory: str, mode: str) -> dict[str, Any]:
    """Follow a log from nothing to its checkpoint."""
    from tests.benchmarks.logaudit import index, leaves, statements

    return {"leaves": leaves, "index": index, "statements": statements}[mode](Path(directory))


def receipts(count: str, witnesses: str, who: str) -> dict[str, Any]:
    """Verify receipts of a log of 10 000 leaves, each from its bytes."""
    from pq_registry.log.receipt import verify_receipt
    from tests.local_log import IDENTITY, NAME, envelope, leaf_of
    from tests.logsamples import ORIGIN, TIME, MemoryLog, log_signers, witness_signers

    number, members = int(count), int(witnesses)
    log = MemoryLog(witnesses=members)
    log.append_raw(*(leaf_of(index)(TIME) for index in range(10_000)))
    log.publish()
    step = log.size // number
    chosen = [index * step for index in range(number)]
    made = [(index, log.receipt(index)) for index in chosen]
    if who == "proofbundle":
        from proofbundle.tlogproof import verify_tlog_proof

        log_key = str(log_signers()[0].key)
        keys = [str(witness_signers(witness + 1)[1].key) for witness in range(members)]

        def verify(index: int, receipt: bytes) -> None:
            verdict = verify_tlog_proof(
                receipt.decode(), log.entries[index], log_key, keys, threshold=members, expected_origin=ORIGIN
            )
            assert verdict["ok"] is True

    else:
        policies = log.policies()

        def verify(index: int, receipt: bytes) -> None:
            verify_receipt(
                receipt, envelope=envelope(index), kind=Kind.TAG, name=NAME, identity=IDENTITY, policies=policies
            )

    begun = time.perf_counter()
    for index, receipt in made:
        verify(index, receipt)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "receipts_per_s": number / seconds, "receipt_bytes": len(made[-1][1])}


MODES: dict[str, Callable[..., dict[str, Any]]] = {
    "append": append,
    "grow": grow,
    "audit": audit,
    "receipts": receipts,
}

if __name__ == "__main__":
    result = MODES[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(result | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
