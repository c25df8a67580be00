# SPDX-License-Identifier: Apache-2.0
"""A registry on a real object store behind a proxy that can fail, a publisher, and a node.

Requests of clients and requests of the service go through the same proxy; ``of_clients`` and ``of_service`` tell them
apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pq_registry.client.pull import PullResult, pull
from pq_registry.client.push import PushOptions, PushResult, push
from pq_registry.client.resolve import resolve
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.tagging import Publisher
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Reference
from pq_registry.storage.stores import StoreConfig
from tests import samples
from tests.engines import Bucket
from tests.faultproxy import FaultProxy, Request
from tests.server_harness import RunningRegistry, running


@dataclass
class ObjectSite:
    """``api`` is the registry, ``proxy`` what stands before the object store."""

    home: Path
    api: RunningRegistry
    proxy: FaultProxy
    bucket: Bucket

    def client(self, **options: Any) -> RegistryClient:
        return RegistryClient(self.api.url, self.api.token, **{"sleep": lambda _: None, **options})

    def push(self, directory: Path, **options: Any) -> PushResult:
        with self.client(**options) as client:
            publisher = Publisher(
                client=client, signer=samples.publisher(), state_dir=self.home / "state", now=utc_now(), trust=None
            )
            return push(
                directory, Reference.parse("acme/minilm:v1"), publisher=publisher, options=PushOptions(connections=2)
            )

    def pull(self, release: PushResult, to: Path, **options: Any) -> PullResult:
        verifier = Verifier(samples.trust_file().encode(), utc_now(), online=True)
        wanted = Reference.parse(f"acme/minilm@{release.release}")
        with self.client(**options) as client, RemoteSource(client) as source:
            resolved = resolve(wanted, client, verifier, SeenTags(self.home / "seen"))
            return pull(resolved, source, to, connections=2)

    def sent_by_service(self) -> float:
        """Bytes in bodies of the service's answers so far."""
        return float(self.api.app.state.metrics.sent._value.get())


def of_clients(request: Request) -> bool:
    """Whether a publisher or a node asks."""
    return request.headers.get("User-Agent", "").startswith("pqreg/")


def of_service(request: Request) -> bool:
    """Whether the service asks."""
    return not of_clients(request)


@contextmanager
def object_site(home: Path, bucket: Bucket, **settings: str) -> Iterator[ObjectSite]:
    """Serve while the block runs."""
    with FaultProxy(bucket.server.endpoint) as proxy:
        stores = StoreConfig(data=home / "registry", s3=bucket.config(s3_endpoint=proxy.url, **settings))
        with running(home / "registry", stores=stores) as api:
            yield ObjectSite(home, api, proxy, bucket)
