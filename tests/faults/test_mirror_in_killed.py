# SPDX-License-Identifier: Apache-2.0
"""E1: an import that is killed again and again goes on where it was, and ends in the release it would have been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from pq_registry.format.importing import IMPORT_NAME
from pq_registry.settings import private_environment
from pqreg_keys import keyfile
from tests.fake_hub import FakeHub, fake_hub
from tests.hub_site import hub_site
from tests.samples import publisher
from tests.tensors import safetensors_bytes

TENSORS, _ = safetensors_bytes({"w": ("F32", (3000,))}, 1)
MODEL = {"a.json": b"{}", "b.txt": b"b" * 500, "c.txt": b"c" * 600, "model.safetensors": TENSORS, "sub/d.txt": b"d"}
KILLED_AT = (2, 4, 7, 3)
"""At which request of each run to the Hub: the listing, the first files, in the middle of what was left."""


def import_once(hub: FakeHub, environment: dict[str, str], kill_at: int | None) -> subprocess.CompletedProcess[str]:
    hub.asked.clear()
    words = ["mirror", "pull", "hf://org/model", "acme/model:v1", "--connections", "1", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pqreg_cli", *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    # The Hub kills whoever asks, before it answers: no clock has a part in where that is.
    hub.watch = lambda count: os.kill(process.pid, signal.SIGKILL) if count == kill_at else None
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def test_killed_imports_go_on(tmp_path: Path) -> None:
    (tmp_path / "alice.pqkey").write_bytes(bytes(keyfile.encode(publisher("alice").material(), None)))
    (tmp_path / "alice.pqkey").chmod(0o600)
    with fake_hub() as hub, hub_site(tmp_path / "data", publish=False) as site:
        hub.add(MODEL)
        environment = private_environment(
            tmp_path,
            {
                "PQREG_REGISTRY": site.url,
                "PQREG_TOKEN": site.token,
                "PQREG_KEY": str(tmp_path / "alice.pqkey"),
                "PQREG_HUB": hub.url,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            },
        )
        fetched: list[str] = []
        for kill_at in KILLED_AT:
            killed = import_once(hub, environment, kill_at)
            assert killed.returncode == -signal.SIGKILL, killed
            fetched += [line for line in hub.asked[:-1] if line.startswith("GET /org/model/resolve")]
        done = import_once(hub, environment, None)
        assert done.returncode == 0, done.stderr
        fetched += [line for line in hub.asked if line.startswith("GET /org/model/resolve")]
        made = json.loads(done.stdout)
        assert made["minted"]
        # Nothing that had come whole was fetched again.
        assert sorted(fetched) == sorted(set(fetched))
        assert len(fetched) == len(MODEL)
        shown = site.get("/v1/repos/acme/model").json
        assert len(shown["releases"]) == 1
        files = site.get(f"/models/acme/model/releases/{made['digest'].removeprefix('sha256:')}").body.decode()
        assert all(name in files for name in (*MODEL, IMPORT_NAME))
        assert not list((tmp_path / ".local/state/pqreg/imports").iterdir())
