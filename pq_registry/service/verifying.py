# SPDX-License-Identifier: Apache-2.0
"""Verifications that take a while: they run here, whoever waits for them, and at one instance at a time.

Reading 50 GB takes minutes, longer than a request may. So a verification is a job of this instance's; the request
that began it waits for a bounded time and asks again, here or at another instance.

Who verifies an upload is written in its row: the instance, and until when. The claim is renewed while bytes are
hashed, with how far that is. An instance that died renews nothing, and another takes the upload over. Should two
verify the same upload all the same (clocks differ), they do the same work twice: the transaction at the end of it
happens once.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from pq_registry import limits
from pq_registry.errors import PqregError, StorageError
from pq_registry.service.clock import Clock
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import UploadRow

INSTANCE_BYTES = 16


class _TakenOver(Exception):  # internal: never leaves this module
    """The upload is another instance's by now, or completed or aborted: whoever waits looks again."""


class Job:
    """One verification under way at this instance."""

    def __init__(self) -> None:
        self.verified = 0
        self.error: BaseException | None = None
        self._done = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; whether it came.

        Raises:
            PqregError: what the verification failed with.
        """
        if not self._done.wait(seconds):
            return False
        if self.error is not None:
            raise self.error
        return True

    def end(self, error: BaseException | None) -> None:
        """It ended."""
        self.error = error
        self._done.set()


class Verifications:
    """The jobs of this instance, and its claims."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self.instance = secrets.token_hex(INSTANCE_BYTES)
        self._catalogue = catalogue
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._workers = ThreadPoolExecutor(limits.VERIFYING_TASKS, thread_name_prefix="verification")

    def is_elsewhere(self, upload: UploadRow) -> bool:
        """Whether another instance says that it is verifying this upload."""
        until = upload.verifier_until
        return upload.verifier not in ("", self.instance) and until is not None and until > self._clock()

    def find(self, upload_id: str) -> Job | None:
        """The job for an upload, if there is one here."""
        with self._guard:
            return self._jobs.get(upload_id)

    def obtain(self, upload_id: str, work: Callable[[Callable[[int], None]], None]) -> Job:
        """The job for an upload, begun if there is none here. ``work`` is given the ``Watch`` to report to.

        Raises:
            StorageError: if the service is stopping.
        """
        with self._guard:
            if self._stopping.is_set():
                raise _stopping()
            job = self._jobs.get(upload_id)
            if job is None:
                job = self._jobs[upload_id] = Job()
                self._workers.submit(self._run, upload_id, job, work)
        return job

    def pause(self, seconds: float) -> None:
        """Wait, unless the service is stopping."""
        self._stopping.wait(seconds)

    def close(self) -> None:
        """End every job soon; whoever asks next, at whichever instance, begins anew."""
        with self._guard:
            self._stopping.set()
        self._workers.shutdown(wait=True)

    # ------------------------------------------------------------------------------------------------------------------

    def _run(self, upload_id: str, job: Job, work: Callable[[Callable[[int], None]], None]) -> None:
        error: BaseException | None = None
        try:
            self._claim(upload_id, job, work)
        except BaseException as caught:  # noqa: BLE001 - handed to whoever waits, whatever it is
            error = caught
        with self._guard:
            del self._jobs[upload_id]
        job.end(error)

    def _claim(self, upload_id: str, job: Job, work: Callable[[Callable[[int], None]], None]) -> None:
        if self._stopping.is_set():
            raise _stopping()  # it was queued; each would read for a moment before it noticed
        if not self._renew(upload_id, 0, taking=True):
            return  # as for _TakenOver
        renewed = self._clock()

        def watch(verified: int) -> None:
            nonlocal renewed
            job.verified = verified
            if self._stopping.is_set():
                raise _stopping()
            now = self._clock()
            if now - renewed >= timedelta(seconds=limits.VERIFYING_RENEWAL_SECONDS):
                if not self._renew(upload_id, verified, taking=False):
                    raise _TakenOver
                renewed = now

        try:
            work(watch)
        except _TakenOver:
            return
        except BaseException:
            self._give_up(upload_id)
            raise

    def _renew(self, upload_id: str, verified: int, *, taking: bool) -> bool:
        now = self._clock()
        with self._catalogue.writing() as session:
            row = session.get(UploadRow, upload_id)
            if row is None or self.is_elsewhere(row) or (not taking and row.verifier != self.instance):
                return False
            row.verifier, row.verified = self.instance, verified
            row.verifier_until = now + timedelta(seconds=limits.VERIFYING_SECONDS)
            row.touched = now
        return True

    def _give_up(self, upload_id: str) -> None:
        try:
            with self._catalogue.writing() as session:
                row = session.get(UploadRow, upload_id)
                if row is not None and row.verifier == self.instance:
                    row.verifier, row.verifier_until = "", None
        except PqregError:
            return  # it lapses by itself


def _stopping() -> StorageError:
    return StorageError("the service is stopping", hint="ask again")
