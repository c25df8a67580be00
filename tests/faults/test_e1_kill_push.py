# SPDX-License-Identifier: Apache-2.0
"""E1 and the promise of push: kill -9 the client, or the service, at 20 random points each, and run it again.

The points are spread over the bytes of a whole push, both directions, so every request is hit sooner or later. After
each kill nothing of an uncommitted release is visible; the rerun finishes; the service has acknowledged no part twice;
there is one release; and at the end the registry's own check finds nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pq_registry import limits
from tests.e2e.shell import Shell
from tests.faults.depth import points
from tests.faults.service import DEADLINE, Relay, Service, committed, publishing_shell
from tests.publishing import make_model

POINTS = points(thorough=20, sample=5)
SIZE = limits.PART_BYTES + 2_000_000
"""Of the weights: two parts."""


@dataclass
class Bench:
    """A service behind a relay, a publisher, and how many bytes a whole push moves."""

    root: Path
    service: Service
    relay: Relay
    shell: Shell
    whole: int

    def model(self, name: str) -> Path:
        return make_model(self.root / name, name, size=SIZE)

    def push(self, model: Path, name: str) -> subprocess.Popen[str]:
        return self.shell.start(
            "push", model, f"acme/{name}:v1", "--json", "--connections", "2",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("kill")
    service = Service(root)
    assert service.start()
    relay = Relay(service.port)
    shell = publishing_shell(root, "alice", relay.url, service.token)
    bench = Bench(root, service, relay, shell, 0)
    shell.run("push", bench.model("measured"), "acme/measured:v1")
    bench.whole = relay.count
    assert bench.whole > SIZE
    try:
        yield bench
        service.stop()
        assert service.fsck() == ""
    finally:
        service.close()
        relay.close()


def finish(bench: Bench, model: Path, name: str) -> None:
    """Run the push again, to its end, and check what the module promises."""
    registry = bench.service.registry()
    visible = registry.releases(f"acme/{name}")
    assert len(visible) <= committed(registry, f"acme/{name}"), "something was visible before the commit"
    result = bench.shell.run("push", model, f"acme/{name}:v1", "--json", "--connections", "2").json
    assert [str(release) for release in registry.releases(f"acme/{name}")] == [result["digest"]]
    assert [str(statement.target) for statement in registry.tag_chain(f"acme/{name}:v1")] == [result["digest"]]
    assert max(registry.acknowledged_parts().values()) == 1
    assert not list((bench.shell.home / ".local/state/pqreg/plans").glob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("point", range(POINTS))
def test_e1_the_client_is_killed_and_run_again(bench: Bench, point: int) -> None:
    name = f"client-{point}"
    model = bench.model(name)
    running: list[subprocess.Popen[str]] = []
    at = int(bench.whole * (point + random.Random(name).random()) / POINTS)
    bench.relay.when(at, lambda: os.kill(running[0].pid, signal.SIGKILL))
    running.append(bench.push(model, name))
    running[0].communicate(timeout=DEADLINE)
    assert running[0].returncode in (-signal.SIGKILL, 0)
    if point < POINTS - 2:
        assert running[0].returncode == -signal.SIGKILL
    finish(bench, model, name)


@pytest.mark.slow
@pytest.mark.parametrize("point", range(POINTS))
def test_e1_the_service_is_killed_and_started_again(bench: Bench, point: int) -> None:
    name = f"service-{point}"
    model = bench.model(name)
    at = int(bench.whole * (point + random.Random(name).random()) / POINTS)

    def restart() -> None:
        bench.service.kill()
        assert bench.service.start()
        bench.relay.target = bench.service.port

    bench.relay.when(at, restart)
    running = bench.push(model, name)
    out, err = running.communicate(timeout=DEADLINE)
    # Its retries may outlast the restart or not; either way it says so, and the rerun finds everything in order.
    assert running.returncode in (0, 3), err
    assert running.returncode == 0 or json.loads(err)["type"].startswith("/problems/"), (out, err)
    finish(bench, model, name)
