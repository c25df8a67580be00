# SPDX-License-Identifier: Apache-2.0
"""A download by an unmodified client of the Hub goes on after the registry was killed in the middle of it."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import pytest

from tests.cutting_proxy import CuttingProxy
from tests.hub_clients import client
from tests.hub_site import client_environment
from tests.server_harness import RegistryProcess

SIZE, CUT = 24 << 20, 15 << 20
"""The newest client begins again at multiples of 10 MiB."""
WEIGHTS = random.Random(3).randbytes(SIZE)


@pytest.mark.slow
@pytest.mark.directory_only("elsewhere the bytes come from the object store, which goes on")
@pytest.mark.parametrize("name", ["newest", "pinned"])
def test_a_download_goes_on_after_the_registry_was_killed(
    registry_process: RegistryProcess, name: str, tmp_path: Path
) -> None:
    api = registry_process.api
    assert api.put_tag(api.publish({"weights.bin": WEIGHTS, "config.json": b"{}"})).status == 201

    def restart() -> None:
        registry_process.kill()
        registry_process.start()

    with CuttingProxy(registry_process.url, after=CUT, meanwhile=restart) as proxy:
        environment = client_environment(tmp_path / "home", proxy.url, registry_process.admin_token)
        hub = client(name, tmp_path / "home", environment)
        step = ("download", {"repo_id": "acme/minilm", "filename": "weights.bin", "revision": "v1"})
        # The newest client goes on by itself, the older one when it is run again.
        first, again = hub.outcomes(step, step)
    assert proxy.is_cut
    assert name == "pinned" or first["sha256"] == again["sha256"]
    assert again["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    resumed = [int(at) for head in proxy.heads for at in re.findall(r"(?i)^range: bytes=(\d+)-", head, re.MULTILINE)]
    assert any(0 < at <= CUT + (1 << 20) for at in resumed), proxy.heads
