# SPDX-License-Identifier: Apache-2.0
"""A registry service that dies and comes back on the same data, a relay in front of it, and publishers as processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.shell import READY, Ended, Shell
from tests.publishing import Registry

DEADLINE = 120
"""Seconds after which a process that should have done something has not."""


class Service:
    """``pqreg serve`` on ``root/name``; port and log stay the same across restarts."""

    def __init__(self, root: Path, name: str = "data") -> None:
        self.root = root
        self.data = root / name
        self.log = root / f"{name}.log"
        self._shell = Shell(root, "operator")
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self._registries: list[Registry] = []

    def start(self, *prefix: str) -> bool:
        """Start, below ``prefix`` (strace and its options) if given; False if it ended before it was ready."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as log:
            words = ("serve", "--data", self.data, "--listen", f"127.0.0.1:{self.port}")
            self._process = subprocess.Popen(
                [*prefix, *self._shell.command(*words)], text=True, cwd=self.root, stdout=log, stderr=log,
                env=self._shell.environment_of(*words),
            )  # fmt: skip
        deadline = time.monotonic() + DEADLINE
        while (ready := READY.search(self.log.read_text()[begin:])) is None:
            if self._process.poll() is not None:
                return False
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)  # between two looks at the log; the deadline above decides
        self.port = int(ready[1].rsplit(":", 1)[1])
        return True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """As a power cut would, but for what the kernel has already taken over."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def registry(self) -> Registry:
        """What the tests talk to; its clients are closed when the service is killed for good."""
        registry = Registry(f"http://127.0.0.1:{self.port}", self.token, self.data, self.log)
        self._registries.append(registry)
        return registry

    def close(self) -> None:
        self.kill()
        for registry in self._registries:
            for client in registry.clients:
                client.close()

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def fsck(self) -> str:
        """What the registry's own check prints; empty if nothing is damaged. Notes about waste do not count."""
        ended = self._shell.run("fsck", "--data", self.data, "--quiet", expect=None)
        return "" if ended.status == 0 else ended.out + ended.err

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        for pid in [*_children(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if number is signal.SIGTERM and pid != process.pid:
                break  # strace ends with what it traces
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        self._process = None


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class Relay:
    """Passes connections on to a service and counts the bytes, both ways; does something once at a given count."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.count = 0
        self._trigger: tuple[int, Callable[[], None]] | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def when(self, count: int, action: Callable[[], None]) -> None:
        """Start counting anew; do ``action`` before the byte after ``count`` is passed on."""
        with self._lock:
            self.count = 0
            self._trigger = (count, action)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            _end(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                server.settimeout(None)
            except OSError:
                _end(client)
                continue
            with self._lock:
                self._sockets += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(16384):
                self._counted(len(data))
                sink.sendall(data)
        except OSError:
            pass
        _end(source)
        _end(sink)

    def _counted(self, length: int) -> None:
        action = None
        with self._lock:
            self.count += length
            if self._trigger is not None and self.count > self._trigger[0]:
                action, self._trigger = self._trigger[1], None
        if action is not None:
            action()


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


def publishing_shell(root: Path, name: str, url: str, token: str) -> Shell:
    """A publisher's shell with a key at ``keys/NAME.pqkey``."""
    shell = Shell(root, name, PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_KEY=f"keys/{name}.pqkey")
    if not (root / "keys" / f"{name}.pqkey").exists():
        shell.run("key", "generate", name, "--dir", "keys", "--no-passphrase")
    return shell


def run_below(shell: Shell, prefix: list[str], *words: str | Path) -> Ended:
    """Run a command of ``shell`` below another program."""
    done = subprocess.run(
        [*prefix, *shell.command(*words)], check=False, capture_output=True, text=True, timeout=DEADLINE,
        cwd=shell.root, env=shell.environment,
    )  # fmt: skip
    ended = Ended(tuple(map(str, words)), done.returncode, done.stdout, done.stderr)
    ended.check_presentable()
    return ended


def committed(registry: Registry, repository: str) -> int:
    """How often the service's log says that a new release was committed to ``repository``."""
    path = re.compile(f"^/v1/repos/{re.escape(repository)}/releases$")
    return sum(
        1
        for line in registry.requests()
        if line["method"] == "POST" and path.match(line["path"]) and line["status"] == 201
    )
