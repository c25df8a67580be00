# SPDX-License-Identifier: Apache-2.0
"""The command lines with weights in an object store on another host: refused until ``pqreg login`` has named it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pq_registry.settings import Settings
from tests.e2e.shell import Shell
from tests.e2e.story import REFERENCE, files_below, make_model
from tests.engines import Bucket


@pytest.mark.directory_only("this test says itself where weights are kept")
def test_weights_on_another_host_after_login(tmp_path: Path, s3_bucket: Bucket) -> None:
    make_model(tmp_path / "model")
    operator, alice = Shell(tmp_path, "operator"), Shell(tmp_path, "alice")
    # To clients the same server under another name: another host, as far as they can see.
    elsewhere = s3_bucket.server.endpoint.replace("127.0.0.1", "localhost")
    operator.export(
        PQREG_STORAGE=s3_bucket.url, PQREG_S3_ENDPOINT=s3_bucket.server.endpoint, PQREG_S3_PUBLIC_ENDPOINT=elsewhere,
        **s3_bucket.server.credentials.variables,
    )  # fmt: skip
    alice.run("key", "generate", "alice", "--dir", "keys", "--no-passphrase")
    alice.run("trust", "init", "trust.json", "--publisher", "acme=keys/alice.pqpub")
    with operator.serving("data") as (url, log):
        token = (tmp_path / "data" / "admin.token").read_text().strip()
        alice.export(PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_TRUST="trust.json")
        push = ("push", "model", REFERENCE, "--key", "keys/alice.pqkey", "--json")
        refused = alice.run(*push, expect=3).problem
        assert refused["type"] == "/problems/origin-not-allowed"
        assert f"PQREG_STORAGE_ORIGINS={elsewhere}" in refused["hint"]

        told = alice.run("login", url, stdin=token + "\n").out
        assert f"weights may be read from and written to {elsewhere}" in told
        config = alice.home / ".config" / "pqreg" / "config.toml"
        assert Settings(environment={}, config_file=config).get("storage_origins") == elsewhere
        assert alice.run(*push).json["bytes_sent_before"] >= 0
        alice.run("pull", REFERENCE, "out")
        assert files_below(tmp_path / "out").items() >= files_below(tmp_path / "model").items()

        node = Shell(tmp_path, "node", PQREG_REGISTRY=url, PQREG_TOKEN=token, PQREG_TRUST="trust.json")
        assert node.run("pull", REFERENCE, "node", "--json", expect=3).problem["type"] == refused["type"]
        assert not (tmp_path / "node" / "model.safetensors").exists()
        node.export(PQREG_STORAGE_ORIGINS=f"https://models.example.org,{elsewhere}")
        node.run("pull", REFERENCE, "node")
        node.run("verify", "node", "--expect", "acme/minilm", "--full")

        alice.run("logout")
        assert "storage_origins" not in config.read_text()
        assert "X-Amz" not in log.read_text()
