# SPDX-License-Identifier: Apache-2.0
"""One audit: follow the log, judge what is new, compare it with what was there, and see whether the log is fresh.

In this order; each part is durable before the next begins, and all of them continue where they were stopped:

1. The newest checkpoint is judged and must continue the last one (``log.monitor``). If it does not, both are kept and
   the audit ends here: LogRollback, LogEquivocation. Two histories are a finding as well: they stay proved when the log
   goes back to the first one. A smaller tree proves nothing later, and ends with the next checkpoint that continues.
2. New leaves are read, parsed and recorded, batch by batch; the tree is recomputed from them.
3. For every leaf that nobody has judged yet the statement is fetched and judged, several at once.
4. What was logged is compared with what was logged before (``audit.chains``).
5. The checkpoint's age is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from pq_registry import limits
from pq_registry.client.audit.chains import Comparison
from pq_registry.client.audit.finding import Code, Finding
from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.judging import Judge, Judgement, Statements
from pq_registry.client.audit.sources import LogReader
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.errors import FormatError, LogEquivocation
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant, from_unix
from pq_registry.format.leaf import Leaf
from pq_registry.format.trustfile import TrustFile
from pq_registry.log.judge import Judged
from pq_registry.log.monitor import Batch, Monitor
from pq_registry.log.tree import TileReader


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How an audit is done.

    ``statements`` is whether statements are judged at all; without, the log alone is followed, and the leaves are left
    for a later audit. ``known_recipients`` need no certificate. ``stale_seconds`` is the age of a checkpoint that is a
    finding.
    """

    statements: bool = True
    known_recipients: Collection[str] = ()
    stale_seconds: int = limits.CHECKPOINT_STALE_SECONDS
    threads: int = limits.AUDIT_THREADS


@dataclass(slots=True)
class Outcome:
    """What one audit did. ``current`` are findings about now, which are not kept: they end by themselves."""

    checkpoint: Checkpoint
    judged: Judged
    leaves: int = 0
    statements: int = 0
    current: list[Finding] = field(default_factory=list)

    @property
    def checkpoint_time(self) -> datetime:
        """When the checkpoint was last signed: by a witness if there is one, else by the log."""
        return from_unix(max(self.judged.attested or 0, self.judged.log_time or 0))


class Auditor:
    """A trust file, a log and a state, put together."""

    def __init__(
        self,
        index: AuditIndex,
        judge: Judge,
        reader: TileReader,
        statements: Statements,
        *,
        content: Callable[[Judgement], None] = lambda _judgement: None,
        options: AuditOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            index: the state.
            judge: the trust file.
            reader: the log's files.
            statements: where statements come from.
            content: looks at the files of a release and adds findings.
            options: how it is done.
            progress: told of bytes of leaves read, then of statements judged.
        """
        self._index = index
        self._judge = judge
        self._reader = reader
        self._statements = statements
        self._content = content
        self._options = options or AuditOptions()
        self._progress = progress or NullProgress()

    def audit(self, note: bytes, now: datetime) -> Outcome:
        """All five steps, for the checkpoint ``note``.

        Raises:
            LogMisbehaved: if the log contradicts itself; both checkpoints are kept.
            LogError, FormatError: if the checkpoint is not to be believed, or the log's tiles are not its own.
            TransportError, StorageError, AccessDenied: if the registry or the state cannot be used.
        """
        monitor = Monitor(self._reader, self._judge.policies, self._index)
        try:
            judged = monitor.accept(note)
        except LogEquivocation as error:
            finding = Finding(
                code=Code.LOG_EQUIVOCATION, message=error.message, expected=error.expected, found=error.found
            )
            with self._index.transaction():
                self._index.add_findings([finding], noticed=now)
            raise
        outcome = Outcome(judged.checkpoint, judged)
        self._follow(monitor, outcome, now)
        if self._options.statements:
            self._judge_all(outcome, now)
            Comparison(
                self._index, self._judge.trust, first=int(self._index.meta("compared") or b"0"),
                known_recipients=self._options.known_recipients,
            ).record(noticed=now)  # fmt: skip
        self._look_at_age(outcome, now)
        return outcome

    def _follow(self, monitor: Monitor, outcome: Outcome, now: datetime) -> None:
        """Step 2."""
        followed = self._index.load()
        assert followed is not None  # Monitor.accept has kept it
        size = outcome.checkpoint.size
        if isinstance(self._reader, LogReader):
            self._reader.expect(followed.size, size)
        self._progress.start("leaves", size - followed.size)
        for batch in monitor.remaining(followed):
            self._index.record(batch, _leaves(batch), noticed=now)
            outcome.leaves += len(batch.entries)
            self._progress.advance(len(batch.entries))
        self._progress.done()

    def _judge_all(self, outcome: Outcome, now: datetime) -> None:
        """Step 3."""
        if self._index.meta("trust") is None:
            with self._index.transaction():
                self._index.set_meta("trust", trust_mark(self._judge.trust))
        self._progress.start("statements", self._index.unchecked_count())
        with ThreadPoolExecutor(self._options.threads, thread_name_prefix="pqreg-audit") as pool:
            while some := self._index.unchecked(limits.AUDIT_CHECK_STATEMENTS):
                try:
                    judgements = list(pool.map(lambda item: self._judge_one(*item), some))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                self._index.judged(judgements, noticed=now)
                outcome.statements += len(judgements)
        self._progress.done()

    def _judge_one(self, index: int, leaf: Leaf) -> Judgement:
        judgement = self._judge.judge(index, leaf, self._statements)
        self._content(judgement)
        # What is large has been looked at; a batch of judgements is to stay small.
        judgement.envelope = judgement.receipt = judgement.manifest = None
        self._progress.advance(1)
        return judgement

    def _look_at_age(self, outcome: Outcome, now: datetime) -> None:
        """Step 5."""
        age = (now - outcome.checkpoint_time).total_seconds()
        if age > self._options.stale_seconds:
            outcome.current.append(
                Finding(
                    code=Code.CHECKPOINT_STALE,
                    message=f"the newest checkpoint of {outcome.checkpoint.origin} is {int(age)} seconds old",
                    expected=f"one of the last {self._options.stale_seconds} seconds",
                    found=f"{outcome.checkpoint.size} leaves, signed {format_instant(outcome.checkpoint_time)}",
                )
            )


def trust_mark(trust: TrustFile) -> bytes:
    """What tells trust files apart."""
    return Digest.of(trust.encode()).hex.encode()


def _leaves(batch: Batch) -> list[Leaf | Finding]:
    found: list[Leaf | Finding] = []
    for index, entry in enumerate(batch.entries, batch.start):
        try:
            leaf = Leaf.parse(entry)
            from_unix(leaf.time)
            found.append(leaf)
        except FormatError as error:
            found.append(Finding(code=Code.LEAF_UNREADABLE, index=index, message=error.message,
                                 expected=error.expected, found=error.found))  # fmt: skip
    return found
