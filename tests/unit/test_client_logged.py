# SPDX-License-Identifier: Apache-2.0
"""A node with a logged registry: what it asks for, what it keeps, and what load makes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

import pq_registry
from pq_registry.client.hfcache import HubCache
from pq_registry.client.published import read_release
from pq_registry.client.pull import pull
from pq_registry.client.source import RemoteSource
from pq_registry.client.verify import verify_directory
from pq_registry.errors import IdentityLapsed, ReceiptMissing, Revoked, ServerRefused, StatusUnavailable
from pq_registry.format.status import Revocation, RevocationKind
from tests.fake_registry import Handler, serving
from tests.logged_site import LoggedSite, acme, next_status, status_statement
from tests.samples import FILES, NOW, REPOSITORY, publisher
from tests.tensors import safetensors_bytes

WEIGHTS, TENSORS = safetensors_bytes({"w": ("F32", (10,))}, 1)
MODEL = {**FILES, "model.safetensors": WEIGHTS}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LoggedSite]:
    with serving() as registry:
        site = LoggedSite(registry, tmp_path, trust=acme())
        site.set_status(status_statement())
        yield site


def asked(site: LoggedSite) -> list[str]:
    return [item.line.split()[1].partition("?")[0] for item in site.registry.seen]


def test_status_first_then_tag_then_release_then_the_log(site: LoggedSite) -> None:
    site.set_tag(site.publish())
    site.registry.seen.clear()
    site.resolve("v1")
    kinds = [path.split("/")[2] if path.startswith("/v1") else "log" for path in asked(site)]
    assert kinds[:7] == ["namespaces", "statements", "repos", "statements", "repos", "statements", "blobs"]
    assert set(kinds[7:]) == {"log"}  # the checkpoint, and the tiles that show what it continues


def test_exempt_and_without_revokers_nothing_more_is_asked_than_before(site: LoggedSite) -> None:
    site.set_tag(site.publish())
    site.namespace = acme(revoker=False)
    site.options = {"log": "exempt"}
    site.registry.seen.clear()
    found = site.resolve("v1")
    assert found.verified.receipt is None
    assert not [path for path in asked(site) if "status" in path or path.startswith("/log/")]
    assert not (site.home / "state/logs").exists()
    site.pull("v1")
    assert not (site.home / "out/model.tlog-proof").exists()
    assert not (site.home / "out/.pqreg/status.json").exists()


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("part", ["/status", "/v1/statements/", "/log/"])
def test_what_the_policy_requires_fails_closed(site: LoggedSite, part: str, status: int) -> None:
    digest = site.publish()

    def fail(handler: Handler) -> bool:
        return handler.problem(status, "server-busy")

    site.registry.rules[part] = fail
    with pytest.raises(ServerRefused):
        site.resolve(digest)


def test_a_second_pull_replaces_receipt_and_status(site: LoggedSite) -> None:
    site.pull(site.publish())
    first = (site.home / "out/model.tlog-proof").read_bytes()
    second = site.set_status(next_status(status_statement()))
    site.pull(site.publish({"new": b"1"}))
    assert (site.home / "out/model.tlog-proof").read_bytes() != first
    verified = verify_directory(site.home / "out", site.verifier(online=False))
    assert verified.status is not None
    assert verified.status.statement == second
    site.options = {"log": "exempt"}
    site.namespace = acme(revoker=False)
    site.pull(site.publish({"new": b"2"}))
    assert not (site.home / "out/model.tlog-proof").exists()  # nothing unverified stands there
    assert not list((site.home / "out").glob(".pqreg/status*"))


def test_the_hugging_face_cache_keeps_both(site: LoggedSite) -> None:
    digest = site.publish(MODEL)
    resolved = site.resolve(digest)
    with site.client() as client, RemoteSource(client) as source:
        path = pull(resolved, source, HubCache(site.home / "hub", resolved)).path
    assert (path / "model.tlog-proof").read_bytes() == site.registry.receipts[digest.hex]
    site.options = {"offline_status": "require"}
    verify_directory(path, site.verifier(online=False))


def test_a_publisher_relies_on_a_colleagues_release_only_with_its_receipt(site: LoggedSite) -> None:
    digest = site.publish()
    with site.client() as client:

        def read(own: str) -> None:
            read_release(client, REPOSITORY, digest, own=publisher(own).identity, trust=site.trust)

        read("bob")
        del site.registry.receipts[digest.hex]
        read("alice")  # what one signed oneself needs no witness
        with pytest.raises(ReceiptMissing):
            read("bob")


class Machine:
    """``pq_registry.load`` on the node: it reads the real clock, which the test sets."""

    def __init__(self, site: LoggedSite, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = site
        monkeypatch.setenv("XDG_STATE_HOME", str(site.home / "xdg"))
        monkeypatch.setattr("pq_registry.loader.api.utc_now", self.clock)

    def clock(self) -> datetime:
        return self.site.now

    def load(self, what: str | Path) -> dict[str, object]:
        trust = self.site.home / "trust.json"
        trust.write_bytes(self.site.trust.encode())
        expect = "acme/minilm" if isinstance(what, Path) else None
        return pq_registry.load(what, framework="numpy", registry=self.site.registry.url, trust=trust, expect=expect)


@pytest.fixture
def machine(site: LoggedSite, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(site, monkeypatch)


def test_load_from_a_registry_and_from_a_directory(
    site: LoggedSite, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pq_registry")
    site.set_tag(site.publish(MODEL))
    assert set(machine.load("acme/minilm:v1")) == {"w"}
    assert "log freshness" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    site.pull("v1")
    machine.load(site.home / "out")
    (site.home / "out/model.tlog-proof").unlink()
    with pytest.raises(ReceiptMissing):
        machine.load(site.home / "out")


def test_load_without_a_status_follows_offline_status(
    site: LoggedSite, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    digest = site.publish(MODEL)
    del site.registry.statuses["acme"]
    machine.load(f"acme/minilm@{digest}")
    assert "revocation: not checked" in caplog.text
    site.options = {"offline_status": "require"}
    with pytest.raises(StatusUnavailable):
        machine.load(f"acme/minilm@{digest}")


def test_load_refuses_what_is_revoked_and_what_was_signed_too_late(site: LoggedSite, machine: Machine) -> None:
    digest = site.publish(MODEL)
    site.pull(digest)
    site.namespace = acme(window=(None, NOW))
    with pytest.raises(IdentityLapsed):
        machine.load(site.home / "out")
    site.namespace = acme()
    site.set_status(next_status(status_statement(), Revocation(RevocationKind.RELEASE, str(digest), NOW)))
    with pytest.raises(Revoked):
        machine.load(f"acme/minilm@{digest}")
    with pytest.raises(Revoked):
        machine.load(site.home / "out")  # it has seen the revocation
