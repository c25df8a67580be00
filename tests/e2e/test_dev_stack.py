# SPDX-License-Identifier: Apache-2.0
"""The full stack on one machine by one command: what is pushed to it is there again after a restart."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.format.instant import utc_now
from tests.e2e.shell import Shell
from tests.publishing import make_model, publisher_at, push_as, running_registry
from tests.releases import write_trust

STACK = ("--dev-s3", "--dev-postgres")


@pytest.mark.directory_only("it brings stores of its own")
def test_what_is_pushed_survives_a_restart_and_nothing_is_left_running(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", 1, size=9_000_000)
    write_trust(tmp_path / "trust.json", created=utc_now(), expires=utc_now() + timedelta(days=1))
    with running_registry(tmp_path, *STACK) as registry:
        push_as(publisher_at(registry, tmp_path / "state"), model, "acme/model:v1")
        variables = dict(
            re.findall(r"^export (\w+)=(\S+)$", (registry.data / "dev-stack.env").read_text(), re.MULTILINE)
        )
        assert (registry.data / "dev-stack.env").stat().st_mode & 0o777 == 0o600
        shell = Shell(tmp_path, "operator", **variables)
        shell.run("fsck")
        assert not (registry.data / "blobs").exists()
        assert not (registry.data / "catalogue.sqlite3").exists()
    assert not (registry.data / "dev-stack.env").exists()
    with running_registry(tmp_path, *STACK) as registry:
        settings = {"PQREG_REGISTRY": registry.url, "PQREG_TOKEN": registry.token, "PQREG_TRUST": "trust.json"}
        Shell(tmp_path, "user", **settings).run("pull", "acme/model:v1", "out")
    for path in model.rglob("*"):
        assert path.is_dir() or (tmp_path / "out" / path.relative_to(model)).read_bytes() == path.read_bytes()
    log = registry.log.read_text()
    for secret in (variables["AWS_SECRET_ACCESS_KEY"], variables["PQREG_DATABASE"].split(":")[2].split("@")[0]):
        assert secret not in log


@pytest.mark.parametrize(
    "words", [("--dev-s3", "--storage", "s3://b"), ("--dev-postgres", "--database", "postgresql://h/n")]
)
def test_a_store_is_given_or_brought(tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = Shell(tmp_path, "operator").run("serve", "--data", "data", *words, expect=2)
    assert "cannot be given together" in ended.err
