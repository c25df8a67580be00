# SPDX-License-Identifier: Apache-2.0
"""Two instances of a registry as processes on one PostgreSQL and one object store, a balancer, and clients that go on.

The balancer passes each connection to an instance that takes it, as one in front of a real registry does. Clients do
what the documentation tells them: they send again what was not answered. What they were acknowledged is kept, and every
checkpoint readers could see; ``Fleet.judge`` compares both with what is there in the end.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg

from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import NotFound, PqregError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import RepositoryName
from pq_registry.format.recipientfile import Kem
from pq_registry.log.tree import Tree
from pq_registry.settings import Settings
from pq_registry.storage.logcheck import check_log
from pq_registry.storage.stores import StoreConfig, Stores
from tests import engines
from tests.faults.service import DEADLINE, Relay
from tests.publishing import Registry, make_model, publisher_at, push_as
from tests.samples import publisher
from tests.sealing_service import certificate, put_key
from tests.server_harness import READY, ROOT, Api
from tests.stack import Place

Answered = TypeVar("Answered")


class Instance:
    """``pqreg serve`` on a data directory of its own; port and log stay the same across restarts."""

    def __init__(self, root: Path, name: str, place: Place) -> None:
        self.data = root / name
        self.log = root / f"{name}.log"
        self.port = 0
        path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
        self._environment = {**os.environ, **place.variables, "PYTHONPATH": path}
        self._begin = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and return when requests are answered."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start."""
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        words = ("serve", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}")
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pqreg_cli", *words], stdout=log, stderr=log, env=self._environment
            )

    def await_ready(self) -> None:
        """Return when requests are answered."""
        assert self._process is not None
        pause, deadline, begin = threading.Event(), time.monotonic() + DEADLINE, self._begin
        while True:
            with self.log.open() as log:
                log.seek(begin)
                found = [match for line in log if (match := READY.match(line))]
            if found:
                self.port = int(found[0][1].rsplit(":", 1)[1])
                return
            assert self._process.poll() is None, self.log.read_text()[begin:]
            assert time.monotonic() < deadline, self.log.read_text()[begin:]
            pause.wait(0.1)

    def end(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(DEADLINE)


class Balancer(Relay):
    """A relay to whichever instance takes the connection, in turns."""

    def __init__(self, instances: list[Instance]) -> None:
        self._turns = itertools.cycle(instances)
        self._width = len(instances)
        super().__init__(0)

    @property
    def target(self) -> int:
        """The port of the next instance that listens."""
        for instance in itertools.islice(self._turns, self._width):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", instance.port), timeout=1):
                return instance.port
        return 1

    @target.setter
    def target(self, _port: int) -> None:
        return


_UNLOGGED = "SELECT digest FROM statements WHERE digest NOT IN (SELECT statement FROM log_entries)"


class Fleet:
    """The instances, their stores, the clients, and what was seen."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = Place(engines.fresh_bucket(), engines.fresh_database())
        self.instances = [Instance(root, name, self.place) for name in ("one", "two")]
        self.released: dict[str, str] = {}
        self.certified: list[str] = []
        self.shown: list[Checkpoint] = []
        self.repeated = 0
        self.failovers: list[float] = []
        self.ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def start(self) -> None:
        """Both instances, the second with the keys of the first, and the balancer."""
        one, two = self.instances
        one.start()
        two.data.mkdir(mode=0o700)
        (two.data / "log.key").write_bytes((one.data / "log.key").read_bytes())
        (two.data / "log.key").chmod(0o600)
        two.start()
        settings = Settings({**self.place.bucket.settings, "data": str(one.data), "database": self.place.database})
        self.stores = Stores.open(StoreConfig.from_settings(settings), upgrade=False)
        self.balancer = Balancer(self.instances)
        self.token = (one.data / "admin.token").read_text().strip()
        assert Api(self.balancer.url, self.token).register(publisher()).status in (200, 201)

    def work(self) -> None:
        """Start the clients: one that pushes releases, two that certify keys, and a reader of checkpoints."""
        for run in (self._push, self._certify, self._certify, self._read):
            thread = threading.Thread(target=self._guarded, args=(run,))
            thread.start()
            self._threads.append(thread)

    def finish(self) -> None:
        """Let every client end what it is doing."""
        self.ended.set()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        if self._failures:
            raise self._failures[0]

    def leader(self) -> Instance | None:
        """The instance that holds the lease, if it is a living one."""
        with psycopg.connect(self.place.database, autocommit=True) as connection:
            row = connection.execute("SELECT holder FROM leases WHERE name = 'log'").fetchone()
        holder = None if row is None else int(row[0].split(":")[1])
        return next((each for each in self.instances if each._process is not None and each.pid == holder), None)

    def kill(self, victim: Instance) -> None:
        """SIGKILL, and start it again; if it led, measure how long nothing was added to the log."""
        led = victim is self.leader()
        victim.end()
        killed, before = time.monotonic(), self._note()
        victim.launch()
        if led:
            self.until(lambda: self._note() != before and self.leader() is not None)
            self.failovers.append(time.monotonic() - killed)
        victim.await_ready()

    def until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds."""
        pause, deadline = threading.Event(), time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline
            pause.wait(0.1)

    def judge(self) -> None:
        """Everything acknowledged is there, once; readers saw one history; the registry's own check finds nothing.

        What was recorded and not acknowledged, because the database went away in between, the leader logs within a
        minute.
        """
        assert set(self.certified) <= self._statements("SELECT statement FROM log_entries"), (
            "acknowledged and not logged"
        )
        self.until(lambda: self._statements(_UNLOGGED) == set())
        assert [item for item in check_log(self.stores.catalogue, self.stores.tiles) if not item.note] == []
        final, _ = parse_checkpoint_note(self.stores.tiles.read("checkpoint"))
        tree = Tree(self.stores.tiles, final.size, final.root)
        sizes = [checkpoint.size for checkpoint in self.shown]
        assert sizes == sorted(sizes)
        for checkpoint in {each.size: each for each in self.shown if each.size}.values():
            assert tree.root_at(checkpoint.size) == checkpoint.root
        with psycopg.connect(self.place.database) as connection:
            leaves = [row[0] for row in connection.execute("SELECT statement FROM log_entries ORDER BY index")]
            recorded = {row[0] for row in connection.execute("SELECT digest FROM statements")}
            releases = {row[0] for row in connection.execute("SELECT digest FROM releases")}
        assert len(leaves) == len(set(leaves)) == final.size
        assert set(leaves) == recorded
        assert set(self.released.values()) <= releases
        assert len(releases) == len(self.released)
        assert set(self.certified) <= recorded

    def _statements(self, query: str) -> set[str]:
        with psycopg.connect(self.place.database) as connection:
            return {row[0] for row in connection.execute(query)}

    def close(self) -> None:
        """End everything."""
        self.ended.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        for instance in self.instances:
            instance.end()
        self.balancer.close()
        self.stores.close()
        engines.drop_database(self.place.database)

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - raised again by finish
            self._failures.append(error)

    def _push(self) -> None:
        registry = Registry(self.balancer.url, self.token, self.instances[0].data, self.instances[0].log)
        for number in itertools.count():
            if self.ended.is_set():
                break
            name = f"acme/model-{number}"
            model = make_model(self.root / f"model-{number}", number, size=2_500_000)
            released = self._persistent(partial(self._push_one, registry, model, name))
            self.released[name] = released.hex
            with registry.client() as client:
                shown = self._persistent(partial(client.repository, RepositoryName.parse(name)))
            assert [item.digest.hex for item in shown.releases] == [self.released[name]]
        for client in registry.clients:
            client.close()

    def _push_one(self, registry: Registry, model: Path, name: str) -> Digest:
        return push_as(publisher_at(registry, self.root / "state"), model, f"{name}:v1").release

    def _certify(self) -> None:
        api = Api(self.balancer.url, self.token)
        while not self.ended.is_set():
            node = SecretRecipient.generate(Kem.MLKEM768_X25519)
            statement = certificate(node, issued=utc_now())
            envelope = sign_envelope(statement.encode(), publisher())

            def put(envelope: object = envelope, recipient: str = statement.recipient) -> None:
                answer = put_key(api, envelope, recipient)  # type: ignore[arg-type]
                if answer.status >= 500:
                    raise ConnectionError(answer.status)
                assert answer.status in (200, 201), answer
                assert answer.json["receipt"]

            self._persistent(put)
            self.ended.wait(0.05)  # not to measure the machine: what is shown needs requests under way, not all of them
            self.certified.append(envelope.payload_digest.hex)

    def _read(self) -> None:
        pause = threading.Event()
        while not self.ended.is_set():
            with contextlib.suppress(NotFound):
                self.shown.append(parse_checkpoint_note(self.stores.tiles.read("checkpoint"))[0])
            pause.wait(0.05)

    def _persistent(self, act: Callable[[], Answered]) -> Answered:
        """What a client does that does not give up."""
        pause, deadline = threading.Event(), time.monotonic() + DEADLINE
        while True:
            try:
                return act()
            except (PqregError, OSError, http.client.HTTPException):
                self.repeated += 1
                if time.monotonic() > deadline:
                    raise
                pause.wait(0.2)

    def _note(self) -> bytes:
        with psycopg.connect(self.place.database, autocommit=True) as connection:
            row = connection.execute("SELECT note FROM log_state").fetchone()
        assert row is not None
        return bytes(row[0])


@contextlib.contextmanager
def fleet(root: Path) -> Iterator[Fleet]:
    """A fleet at work, which ends with the block."""
    found = Fleet(root)
    found.start()
    try:
        found.work()
        yield found
    finally:
        found.close()
