# SPDX-License-Identifier: Apache-2.0
"""Asking witnesses for cosignatures (C2SP tlog-witness), from the log's side.

``WitnessPool.cosign`` asks every witness of a policy that has a URL, all at once, and answers as soon as the quorum is
met, or after ``limits.WITNESS_WAIT_SECONDS`` with what there is. It raises for no witness. What each did is counted:

========== ===============================================================================================
cosigned   its lines verify, under the keys the policy names, over this checkpoint, with a sensible time
busy       it has not answered the last request yet, and is not asked again meanwhile
unreachable no connection, no answer in time, an answer that breaks off
refused    it answered with an error; the status and its first words are in the log
ahead      it has cosigned a larger tree of this log: either it lies, or this log has lost leaves
lying      a line of a key of the policy that does not verify, no line of one at all, or an answer nobody understands
clock      a cosignature dated before the checkpoint, or in the future: it could not vouch for the leaves' time
========== ===============================================================================================

A witness is sent a consistency proof from the size it is thought to have; if it says 409 and another size, a proof
from there. A restarted witness, one that lags and one that somebody else has told meanwhile are all served that way.

Witnesses are not believed. A line counts only if it verifies; redirects are not followed, answers are bounded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import urllib3

from pq_registry import limits
from pq_registry.crypto.notesigning import verify_line
from pq_registry.errors import PqregError, WitnessRefused
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.note import Note, SignatureLine
from pq_registry.format.tlogpolicy import LOG_PQ, Policy
from pq_registry.service.clock import Clock
from pq_registry.service.cosigning import Asked, Consistency, Exchange, NotCosignedError, Outcome, has_line

_LOGGER = logging.getLogger("pq_registry.service.witnessing")


@dataclass(frozen=True, slots=True)
class WitnessView:
    """What is known of one witness: for metrics and the audit page."""

    name: str
    url: str
    size: int | None
    cosigned: datetime | None
    outcomes: Mapping[str, int]
    problem: str | None


class WitnessPool:
    """The witnesses of one log. Implements ``log.stores.WitnessPool``; used by one publishing thread."""

    def __init__(self, policy: Policy, clock: Clock, *, wait_seconds: float = limits.WITNESS_WAIT_SECONDS) -> None:
        """Take the witnesses of ``policy`` that have a URL; those without are never asked.

        Raises:
            WitnessRefused: if a URL is none of http or https.
        """
        self._policy = policy
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._witnesses: dict[str, Asked] = {}
        for name, member in policy.witnesses.items():
            if name == LOG_PQ or member.url is None:
                continue
            url = _submission_url(member.url)
            self._witnesses.setdefault(url, Asked(url, {})).keys[name] = member.key
        self._http = urllib3.PoolManager(num_pools=max(1, len(self._witnesses)), maxsize=1, retries=False)
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._witnesses)

    def cosign(self, note: bytes, checkpoint: Checkpoint, consistency: Consistency) -> Sequence[SignatureLine]:
        """Ask for cosignatures until the policy's quorum is met or the time is up; a witness that fails adds nothing.

        Args:
            note: the checkpoint as the log signed it, with its own lines only.
            checkpoint: the same, parsed.
            consistency: answers the proof from a tree of the given size to this one; called from several threads.
        """
        deadline = time.monotonic() + self._wait_seconds
        asked: dict[Future[tuple[SignatureLine, ...]], Asked] = {}
        signed_at = _signed_at(note, checkpoint, self._policy)
        guarded = _serialised(consistency)
        for witness in self._witnesses.values():
            if witness.running is not None and not witness.running.done():
                self._count(witness, Outcome.BUSY, "it has not answered the last request yet")
                continue
            exchange = Exchange(self._http, witness, note, checkpoint, guarded, deadline, (signed_at, self._clock))
            witness.running = _begun(exchange)
            asked[witness.running] = witness
        return self._gathered(asked, deadline)

    def _gathered(self, asked: dict[Future[tuple[SignatureLine, ...]], Asked], deadline: float) -> list[SignatureLine]:
        lines: list[SignatureLine] = []
        names: set[str] = {LOG_PQ}
        pending = set(asked)
        while pending and not (lines and self._policy.satisfied(names)):
            done, pending = wait(pending, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
            if not done:
                break
            for future in done:
                witness = asked[future]
                found = self._judged(witness, future)
                lines += found
                names |= {name for name, key in witness.keys.items() if has_line(found, key)}
        for future in pending:
            witness = asked[future]
            future.add_done_callback(lambda done, witness=witness: self._judged(witness, done))  # type: ignore[misc]
        return lines

    def _judged(self, witness: Asked, future: Future[tuple[SignatureLine, ...]]) -> tuple[SignatureLine, ...]:
        try:
            lines = future.result()
        except NotCosignedError as error:
            self._count(witness, error.outcome, str(error))
            return ()
        except PqregError as error:
            self._count(witness, Outcome.REFUSED, f"no consistency proof: {error}")
            return ()
        except Exception as error:  # noqa: BLE001 - nothing a witness answers may stop the log
            self._count(witness, Outcome.LYING, f"its answer led to {type(error).__name__}")
            return ()
        witness.cosigned = self._clock()
        self._count(witness, Outcome.COSIGNED, None)
        return lines

    def _count(self, witness: Asked, outcome: Outcome, problem: str | None) -> None:
        with self._lock:
            changed = problem is not None and witness.problem is None
            witness.outcomes[outcome] += 1
            witness.problem = problem
        if problem is not None:
            level = logging.WARNING if changed or outcome in {Outcome.AHEAD, Outcome.LYING} else logging.INFO
            fields = {"witness": witness.name, "url": witness.url, "outcome": outcome.value, "problem": problem[:300]}
            _LOGGER.log(level, "a witness did not cosign", extra={"pqreg": fields})

    def view(self) -> tuple[WitnessView, ...]:
        """What is known of each witness."""
        with self._lock:
            return tuple(
                WitnessView(
                    witness.name,
                    witness.url,
                    witness.size,
                    witness.cosigned,
                    MappingProxyType({outcome.value: witness.outcomes[outcome] for outcome in Outcome}),
                    witness.problem,
                )
                for witness in self._witnesses.values()
            )

    @property
    def failures(self) -> dict[str, int]:
        """By witness, how often it did not cosign when it was asked."""
        return {view.name: sum(view.outcomes.values()) - view.outcomes[Outcome.COSIGNED] for view in self.view()}

    def close(self) -> None:
        """Ask nobody any more; what is under way is left behind, and the process does not wait for it."""
        self._http.clear()


def witness_pool(policy: Policy, clock: Clock) -> WitnessPool | None:
    """The witnesses of ``policy`` that can be asked; None if there are none.

    Raises:
        WitnessRefused: if a URL cannot be asked.
    """
    pool = WitnessPool(policy, clock)
    return pool or None


def _begun(exchange: Exchange) -> Future[tuple[SignatureLine, ...]]:
    """Run it in a thread of its own, of which there is one per witness at most.

    Not in an executor: the interpreter waits for the threads of those when it ends, and a witness that sends its answer
    byte by byte would keep the service from stopping.
    """
    future = Future[tuple[SignatureLine, ...]]()

    def run() -> None:
        try:
            future.set_result(exchange.run())
        except BaseException as error:  # noqa: BLE001 - the future's reader judges it
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="log-witness", daemon=True).start()
    except RuntimeError as error:  # the system has no thread to give
        future.set_exception(NotCosignedError(Outcome.UNREACHABLE, f"it was not asked: {error}"))
    return future


def _submission_url(url: str) -> str:
    parsed = urllib3.util.parse_url(url)
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query or parsed.fragment or parsed.auth:
        raise WitnessRefused(
            "a witness's URL cannot be asked", expected="http(s)://host[:port][/prefix]", found=url[:200]
        )
    return url.rstrip("/")


def _serialised(consistency: Consistency) -> Consistency:
    lock, known = threading.Lock(), dict[int, tuple[bytes, ...]]()

    def proof(old_size: int) -> tuple[bytes, ...]:
        # Usually all witnesses have the same size: one reading of the tiles serves them all.
        with lock:
            if old_size not in known:
                known[old_size] = consistency(old_size)
            return known[old_size]

    return proof


def _signed_at(note: bytes, checkpoint: Checkpoint, policy: Policy) -> int:
    times = [verify_line(policy.log_pq, checkpoint, line) or 0 for line in Note.parse(note).lines_of(policy.log_pq)]
    return max(times, default=0)
