# SPDX-License-Identifier: Apache-2.0
"""A gateway that runs in a thread, on a free port, over whatever sources a test gives it; and an HTTP client for it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.gateway.app import Gateway
from pq_registry.gateway.cache import ShardCache
from pq_registry.gateway.origins import Origin
from pq_registry.gateway.origins.registry import RegistryOrigin
from pq_registry.server.listening import LOOPBACK_HOSTS, bind, make_server, url_of

FOREVER = 3600.0


@dataclass(frozen=True)
class Answer:
    """A response, whole or as far as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RunningGateway:
    """A gateway that answers at ``url``."""

    url: str
    gateway: Gateway

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request; what was sent before the connection was closed counts too."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            try:
                data, complete = response.read(), True
            except http.client.IncompleteRead as error:
                data, complete = error.partial, False
            return Answer(response.status, received, data, complete)
        finally:
            connection.close()

    def value(self, metric: str) -> float:
        """A metric of the gateway, with its labels as they are written."""
        lines = self.get("/metrics").body.decode().splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{metric} ")))


@contextmanager
def running_gateway(
    origins: Sequence[Origin],
    cache: Path | None = None,
    *,
    size: int = 1 << 30,
    token: str | None = None,
    patience: float = FOREVER,
    verified_seconds: float = FOREVER,
    connections: int = 3,
) -> Iterator[RunningGateway]:
    """Serve from ``origins`` while the block runs.

    Patience without end: an answer whose first shard is wrong then always says so by its status.
    """
    kept = None if cache is None else ShardCache(cache, size=size)
    gateway = Gateway(
        origins, kept, connections=connections, patience=patience, verified_seconds=verified_seconds
    )  # fmt: skip
    listener = bind("127.0.0.1", 0)
    ready = threading.Event()
    server = make_server(gateway.application(hosts=LOOPBACK_HOSTS, token=token), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        assert ready.wait(60)
        yield RunningGateway(url_of(listener), gateway)
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
        gateway.close()
        assert not thread.is_alive()


def registry_origin(
    url: str, home: Path, trust: bytes, now: Callable[[], datetime], *, key: RecipientKey | None = None
) -> RegistryOrigin:
    """A registry as a source, for a node whose memory is below ``home``."""
    client = RegistryClient(url, "token", timeout=20, sleep=lambda _seconds: None)
    return RegistryOrigin(
        client, verifier=lambda: Verifier(trust, now(), online=True), state_dir=home / "state", key=key
    )  # fmt: skip
