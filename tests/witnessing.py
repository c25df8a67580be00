# SPDX-License-Identifier: Apache-2.0
"""Witnesses for tests: one in memory, one served in a thread, one in a process of its own, and hostile ones."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from pq_registry.crypto.notesigning import NoteSigner
from pq_registry.format.addcheckpoint import AddCheckpoint
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.log.watchedlog import WatchedLog
from pq_registry.log.witness import Witness
from pq_registry.server.config import LOOPBACK_HOSTS
from pq_registry.server.serve import bind, make_server, url_of
from pq_registry.server.witness import WitnessConfig, create_witness_app
from pq_registry.storage.witnessstate import WitnessState
from tests.logsamples import MemoryLog, witness_signers
from tests.samples import NOW

ROOT = Path(__file__).resolve().parents[1]
READY = re.compile(r"pqreg: witnessing on (http://\S+) state (.+)")


@dataclass
class MemoryStore:
    """A ``WitnessStore`` in memory; ``failing`` is raised by the next ``store``."""

    notes: dict[str, bytes] = field(default_factory=dict)
    evidence: list[tuple[str, str, tuple[bytes, ...]]] = field(default_factory=list)
    failing: Exception | None = None

    def load(self, origin: str) -> bytes | None:
        return self.notes.get(origin)

    def store(self, origin: str, note: bytes) -> None:
        if self.failing is not None:
            raise self.failing
        self.notes[origin] = note

    def keep_evidence(self, origin: str, kind: str, notes: Sequence[bytes]) -> None:
        self.evidence.append((origin, kind, tuple(notes)))


@dataclass
class Hand:
    """A clock that is moved by hand; wall and monotonic time go together unless told otherwise."""

    seconds: float = 0.0
    offset: float = 0.0

    def now(self) -> Any:
        return NOW + timedelta(seconds=int(self.seconds + self.offset))

    def monotonic(self) -> float:
        return self.seconds


def watched(log: MemoryLog) -> WatchedLog:
    """``log`` as a witness is told of it, with both keys."""
    policy = log.policy()
    return WatchedLog([policy.log, policy.log_pq])


def make_witness(
    *logs: MemoryLog, store: Any = None, clock: Hand | None = None, signers: Sequence[NoteSigner] | None = None
) -> Witness:
    """A witness of ``logs``, number 1 unless told otherwise."""
    hand = clock or Hand()
    return Witness(
        signers or witness_signers(1),
        [watched(log) for log in logs],
        MemoryStore() if store is None else store,
        clock=hand.now,
        monotonic=hand.monotonic,
    )


def request_of(log: MemoryLog, old: int, *, note: bytes | None = None, proof_from: int | None = None) -> AddCheckpoint:
    """What the log sends to a witness that last saw ``old`` leaves; the log's own lines only."""
    note = log.publish(cosigned=False) if note is None else note
    size = parse_checkpoint_note(note)[0].size
    start = old if proof_from is None else proof_from
    proof = log.tree(note).consistency_proof(start) if 0 < start < size else ()
    return AddCheckpoint(old, proof, note)


def grown(count: int, **options: Any) -> MemoryLog:
    """A log of ``count`` leaves."""
    log = MemoryLog(**options)
    log.append_raw(*(f"leaf {number}".encode() for number in range(count)))
    return log


def grow(log: MemoryLog, count: int) -> MemoryLog:
    """``count`` leaves more."""
    log.append_raw(*(f"more {number}".encode() for number in range(count)))
    return log


@contextmanager
def serving(witness: Witness, state: WitnessState) -> Iterator[str]:
    """Serve in a thread; answers the URL."""
    listener = bind("127.0.0.1", 0)
    ready = threading.Event()
    config = WitnessConfig(host="127.0.0.1", port=0, hosts=LOOPBACK_HOSTS)
    server = make_server(create_witness_app(witness, state, config), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@contextmanager
def replying(reply: Callable[[AddCheckpoint], tuple[int, str, bytes] | None]) -> Iterator[str]:
    """A server that answers add-checkpoint as ``reply`` says; None breaks the connection off."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = reply(AddCheckpoint.parse(body)) if self.path == "/add-checkpoint" else (404, "text/plain", b"")
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer[0])
            self.send_header("Content-Type", answer[1])
            self.send_header("Content-Length", str(len(answer[2])))
            if 300 <= answer[0] < 400:
                self.send_header("Location", answer[2].decode())
            self.end_headers()
            self.wfile.write(answer[2])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(30)


def post(url: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Ask a witness; status, headers, body."""
    return exchange(url, "POST", "/add-checkpoint", body)


def exchange(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """One request; status, headers, body."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


class WitnessProcess:
    """``pqreg witness serve`` in a process of its own."""

    def __init__(self, state: Path, *options: str) -> None:
        self.state = state
        self.options = options
        self.url = ""
        self.errors = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self, *prefix: str) -> Self:
        listen = self.url.removeprefix("http://") or "127.0.0.1:0"
        words = ["witness", "serve", "--state", str(self.state), "--listen", listen, *self.options]
        with self.state.with_suffix(".log").open("a") as output:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "pqreg_cli", *words],
                stdout=output, stderr=subprocess.PIPE, text=True, env=environment(),
            )  # fmt: skip
        assert self._process.stderr is not None
        self.errors = ""
        for line in self._process.stderr:
            self.errors += line
            match = READY.match(line)
            if match:
                self.url = match[1]
                return self
        raise AssertionError(f"the witness did not start: {self.errors}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(60)
        finally:
            assert self._process.stderr is not None
            self._process.stderr.close()


def environment() -> dict[str, str]:
    """That of a command of this tree."""
    path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    return {**os.environ, "PYTHONPATH": path}
