# SPDX-License-Identifier: Apache-2.0
"""E1: the n-th system call of a push, or of the service while it is pushed to, fails with EIO or is the last one.

For each kind of call n counts up until there is no n-th call any more (strace counts per thread); a sample of them, and
always of the writes, which are mostly SQLite's, takes the Fibonacci numbers. Afterwards the same push, undisturbed,
succeeds: one release, one tag statement, no part sent twice, no leftovers; and the registry's own check finds nothing.
Only small data: what is swept is the order of the steps, not the transfer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from pq_registry.client.tagging import Publisher
from pq_registry.errors import PqregError
from pq_registry.format.instant import utc_now
from pq_registry.storage.fsck import check_registry
from pq_registry.storage.stores import opened
from pqreg_keys.custody import load
from tests.faults.depth import numbers
from tests.faults.service import Service, publishing_shell, run_below
from tests.faults.tracing import MODES, attached, injecting, needs_strace, was_hit
from tests.publishing import Registry, make_model, publisher_at, push_as
from tests.stack import store_config

BOUND = 1000
"""More calls of one kind than one thread makes."""
CLIENT_CALLS = {
    "fsync": "fsync,fdatasync",
    "link": "?link,linkat",
    "rename": "?rename,renameat,renameat2",
    "unlink": "?unlink,unlinkat",
    "mkdir": "?mkdir,mkdirat",
    "write": "write,pwrite64",
    "openat": "openat",
}
SERVICE_CALLS = {
    "fsync": "fsync,fdatasync",
    "link": "?link,linkat",
    "rename": "?rename,renameat,renameat2",
    "unlink": "?unlink,unlinkat",
    "write": "pwrite64,pwritev",
    "truncate": "ftruncate,fallocate",
}

pytestmark = [needs_strace, pytest.mark.slow]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("strace"))
    assert service.start()
    try:
        yield service
    finally:
        service.close()


def check(registry: Registry, publisher: Publisher, model: Path, name: str, what: str) -> None:
    """The undisturbed rerun, and what it must leave."""
    result = push_as(publisher, model, f"{name}:v1")
    assert registry.releases(name) == [result.release], what
    assert [statement.target for statement in registry.tag_chain(f"{name}:v1")] == [result.release], what
    assert max(registry.acknowledged_parts().values()) == 1, what
    assert not [path for path in (publisher.state_dir / "plans").iterdir() if path.suffix != ".lock"], what


def halted(service: Service) -> bool:
    """Whether the service runs and its log does not go on."""
    return service.running and urllib3.request("GET", f"{service.registry().url}/readyz", retries=False).status != 200


def findings(service: Service) -> list[object]:
    with opened(store_config(service.data)) as stores:
        return [
            finding
            for finding in check_registry(stores.catalogue, stores.blobs, tiles=stores.tiles)
            if not finding.note
        ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CLIENT_CALLS)
def test_e1_a_call_of_the_client_fails(service: Service, tmp_path: Path, kind: str, mode: str) -> None:
    registry = service.registry()
    hits = 0
    for number in numbers(every=kind != "write"):
        assert number < BOUND
        name = f"acme/client-{kind}-{mode}-{number}"
        root = tmp_path / str(number)
        model = make_model(root / "model", name, size=5000)
        shell = publishing_shell(service.root, "alice", registry.url, registry.token)
        state = root / "state" / "pqreg"
        shell.export(XDG_STATE_HOME=str(state.parent))
        places = [model, model / "sub", state / "plans", state / "tags"] if kind == "openat" else []
        trace = root / "trace"
        saboteur = injecting(trace, CLIENT_CALLS[kind], mode, number, places)
        ended = run_below(shell, saboteur, "push", model, f"{name}:v1", "--json")
        visible = len(registry.releases(name))
        if not was_hit(trace):
            assert ended.status == 0, ended
            break
        hits += 1
        if mode == "EIO":
            assert ended.status in (0, 1, 3), ended
        assert visible <= 1
        publisher = Publisher(
            client=registry.client(), signer=load(service.root / "keys" / "alice.pqkey"), state_dir=state, now=utc_now()
        )
        check(registry, publisher, model, name, f"{kind} {number}: {ended}")
    assert hits >= {"link": 1, "rename": 1}.get(kind, 2)
    assert findings(service) == []


@pytest.mark.directory_only("calls of a data directory fail")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SERVICE_CALLS)
def test_e1_a_call_of_the_service_fails(service: Service, tmp_path: Path, kind: str, mode: str) -> None:
    for number in numbers(every=kind != "write"):
        assert number < BOUND
        if not service.running:
            assert service.start(), service.log.read_text()[-2000:]
        name = f"acme/service-{kind}-{mode}-{number}"
        model = make_model(tmp_path / str(number) / "model", name, size=5000)
        trace = tmp_path / str(number) / "trace"
        registry = service.registry()
        publisher = publisher_at(registry, tmp_path / str(number) / "state")
        failed = ""
        with attached(service.pid, trace, SERVICE_CALLS[kind], mode, number):
            try:
                push_as(publisher, model, f"{name}:v1")
            except PqregError as error:
                failed = f"{type(error).__name__}: {error}"
        if not was_hit(trace):
            assert not failed
            break
        if failed and halted(service):  # what it could not write may be there all the same: the next start finds out
            service.stop()
        if not service.running:
            assert service.start(), service.log.read_text()[-2000:]
        again = service.registry()
        check(again, publisher_at(again, tmp_path / str(number) / "state"), model, name, f"{kind} {number}: {failed}")
        assert findings(service) == [], f"{kind} {number}: {failed}"
    assert number > 1 or kind in ("rename", "truncate")
