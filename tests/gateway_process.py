# SPDX-License-Identifier: Apache-2.0
"""``pqreg gateway`` as a node runs it, in front of a running registry that its trust file knows the publisher of."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pq_registry.format.instant import utc_now
from tests.e2e.shell import Shell
from tests.hub_site import HubSite
from tests.samples import YEAR, trust_file


@contextmanager
def serving_gateway(root: Path, site: HubSite) -> Iterator[str]:
    """A gateway with a cache of its own below ``root``; answers its URL."""
    now = utc_now()
    trust = root / "trust.json"
    trust.write_bytes(trust_file(created=now, expires=now + YEAR).encode())
    node = Shell(root, "node", PQREG_REGISTRY=site.url, PQREG_TOKEN=site.token_of("reader"), PQREG_TRUST=str(trust))
    log = root / "gateway.log"
    words = ("gateway", "--listen", "127.0.0.1:0", "--cache", str(root / "cache"), "--json")
    with log.open("w") as out, (root / "ready").open("w") as ready:
        process = node.start(*words, stdout=out, stderr=ready)
        try:
            yield _url_of(process, root / "ready")
        finally:
            process.terminate()
            process.wait(60)
    assert "Traceback" not in log.read_text()


def _url_of(process: subprocess.Popen[str], ready: Path) -> str:
    """The URL a gateway says it listens on, once it does."""
    deadline = time.monotonic() + 60
    while not (text := ready.read_text()).endswith("\n"):
        assert process.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.02)  # between two looks at the file; the deadline above decides
    return str(json.loads(text.splitlines()[0])["url"])
