# SPDX-License-Identifier: Apache-2.0
"""``pqreg gateway`` as it is run: unmodified ``hf`` gets verified files by it, or none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pq_registry.format.digest import Digest
from tests.e2e.shell import Shell
from tests.hub_site import FILES, HubSite, client_environment
from tests.samples import trust_file
from tests.server_harness import RunningRegistry

EXECUTABLES = Path(sys.executable).parent


@contextmanager
def gateway_process(shell: Shell, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``pqreg gateway`` with these options, ready; answers its URL. Its log is in ``gateway.log``."""
    with (shell.root / "gateway.log").open("w") as log:
        listen = ("--listen", "127.0.0.1:0", "--json")
        process = shell.start("gateway", *listen, *words, stdout=log, stderr=subprocess.PIPE)
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line.startswith("{"), line + process.stderr.read()
            yield json.loads(line)["url"], process
        finally:
            process.kill()
            process.wait(60)
            process.stderr.close()


def node(hub: HubSite, root: Path) -> Shell:
    """The shell of a node that trusts the publisher."""
    (root / "trust.json").write_bytes(trust_file().encode())
    return Shell(root, "node", PQREG_REGISTRY=hub.url, PQREG_TOKEN=hub.token, PQREG_TRUST=str(root / "trust.json"))


def download(home: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(parents=True, exist_ok=True)
    command = [str(EXECUTABLES / "hf"), "download", *words, "--local-dir", str(home / "out")]
    environment = client_environment(home, url, "anything")
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=300)


@pytest.fixture
def hub(registry: RunningRegistry) -> HubSite:
    return HubSite(registry)


def test_hf_download_through_a_gateway(hub: HubSite, tmp_path: Path) -> None:
    hub.publish("acme/minilm:v1")
    with gateway_process(node(hub, tmp_path), "--cache", "cache") as (url, process):
        done = download(tmp_path / "one", url, "acme/minilm", "--revision", "v1")
        assert done.returncode == 0, done.stderr
        for path, content in FILES.items():
            assert (tmp_path / "one" / "out" / path).read_bytes() == content
        assert {"pqreg.json", "model.sig", "model.pq.sig"} <= {
            path.name for path in (tmp_path / "one" / "out").iterdir()
        }
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    log = [json.loads(line) for line in (tmp_path / "gateway.log").read_text().splitlines()]
    assert {line["event"] for line in log} == {"request"}
    assert hub.token not in json.dumps(log)


def test_a_cache_of_hugging_face_is_a_source_like_any_other(hub: HubSite, tmp_path: Path) -> None:
    digest = hub.publish("acme/minilm:main")
    home = tmp_path / "stock"
    home.mkdir()
    environment = client_environment(home, hub.url, hub.token)
    command = [str(EXECUTABLES / "hf"), "download", "acme/minilm"]
    subprocess.run(command, env=environment, cwd=home, capture_output=True, check=True, timeout=300)
    with gateway_process(node(hub, tmp_path), "--from", str(home / "hf" / "hub")) as (url, _):
        done = download(tmp_path / "one", url, "acme/minilm", "--revision", digest.hex[:40])
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "one" / "out" / "weights.bin").read_bytes() == FILES["weights.bin"]
    weights = home / "hf" / "hub" / "models--acme--minilm" / "blobs" / Digest.of(FILES["weights.bin"]).hex
    weights.write_bytes(b"!" + FILES["weights.bin"][1:])
    with gateway_process(node(hub, tmp_path), "--from", str(home / "hf" / "hub")) as (url, _):
        assert download(tmp_path / "two", url, "acme/minilm").returncode != 0
    assert not (tmp_path / "two" / "out" / "weights.bin").exists()


@pytest.mark.directory_only("damages a blob's file")
def test_what_the_registry_serves_damaged_arrives_from_it_and_not_through_the_gateway(
    hub: HubSite, tmp_path: Path
) -> None:
    hub.publish("acme/minilm:v1")
    digest = Digest.of(FILES["weights.bin"]).hex
    (blob,) = [path for path in hub.registry.data.rglob(f"*{digest[2:]}") if path.is_file()]
    blob.chmod(0o600)
    blob.write_bytes(FILES["weights.bin"][:-1] + b"!")
    stock = tmp_path / "stock"
    stock.mkdir()
    direct = subprocess.run(
        [str(EXECUTABLES / "hf"), "download", "acme/minilm", "--revision", "v1", "--local-dir", str(stock / "out")],
        env=client_environment(stock, hub.url, hub.token), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert direct.returncode == 0 and (stock / "out" / "weights.bin").read_bytes()[-1:] == b"!"
    with gateway_process(node(hub, tmp_path), "--cache-size", "0") as (url, _):
        done = download(tmp_path / "one", url, "acme/minilm", "--revision", "v1")
        assert done.returncode != 0
        assert "shard 0 of weights.bin" in done.stdout + done.stderr
    assert not (tmp_path / "one" / "out" / "weights.bin").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "0.0.0.0:0", "--registry", "http://127.0.0.1:1"], "listens on this machine only"),
        (["--listen", "192.0.2.1:0", "--registry", "http://127.0.0.1:1"], "listens on this machine only"),
        (["--listen", "127.0.0.1:0"], "or give --registry URL, --from DIR or --hub URL"),
        (["--hub-organisation", "acme", "--registry", "http://127.0.0.1:1"], "gateway_hub_organisation is of no use"),
        (["--listen", "127.0.0.1:0", "--registry", "http://127.0.0.1:1"], "no trust file"),
        (["--from", "nowhere", "--trust", "trust.json"], "nowhere is no directory"),
    ],
)
def test_what_cannot_be_served_is_said_at_the_start(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "trust.json").write_bytes(trust_file().encode())
    done = Shell(tmp_path, "node").run("gateway", *words, expect=None)
    assert done.status in (1, 2)
    assert said in done.err


def test_one_cache_serves_one_gateway(hub: HubSite, tmp_path: Path) -> None:
    shell = node(hub, tmp_path)
    with gateway_process(shell, "--cache", "cache"):
        done = shell.run("gateway", "--listen", "127.0.0.1:0", "--cache", "cache", expect=1)
        assert "another gateway uses the cache" in done.err
