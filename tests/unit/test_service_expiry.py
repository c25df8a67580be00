# SPDX-License-Identifier: Apache-2.0
"""What expires soon, as metrics: counted once a minute, and left out when the catalogue does not answer."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import update

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.service.expiry import Expiry
from pq_registry.service.tokens import TokenItem
from pq_registry.storage.catalogue.tables import TagRow
from tests.samples import YEAR
from tests.server_harness import MovableClock, RunningRegistry


def expiring(registry: RunningRegistry) -> dict[tuple[str, str], float]:
    registry.registry.expiry._until = 0.0
    text = registry.get("/metrics").body.decode()
    found = re.findall(r'^pqreg_expiring\{days="(\d+)",kind="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {(kind, days): float(count) for days, kind, count in found}


def test_what_lapses_is_counted(registry: RunningRegistry) -> None:
    digest = registry.publish()
    assert registry.put_tag(digest).status == 201
    registry.make_token("reader", "acme", days=5)
    registry.make_token("reader", "acme", days=20)
    revoked = registry.post("/v1/tokens", {"role": "reader", "namespaces": ["acme"], "expires_days": 5}).json
    assert registry.request("DELETE", f"/v1/tokens/{revoked['id']}").status == 204
    found = expiring(registry)
    assert len(found) == 8
    assert (found["token", "7"], found["token", "30"]) == (1, 2)
    assert (found["tag", "7"], found["tag", "30"]) == (0, 0)
    registry.clock.offset = YEAR - timedelta(days=3)
    found = expiring(registry)
    assert (found["tag", "7"], found["tag", "30"]) == (1, 1)
    assert found["token", "30"] == 0, "what has lapsed is not counted any more"
    with registry.registry.catalogue.writing() as session:
        session.execute(update(TagRow).values(target=None))
    assert expiring(registry)["tag", "7"] == 0, "nobody has to renew a tag that was withdrawn"


def test_tokens_from_the_host_are_counted(registry: RunningRegistry) -> None:
    assert "pqreg_root_tokens 1.0" in registry.get("/metrics").body.decode()
    registry.make_token("admin", "*")
    registry.registry.expiry._until = 0.0
    assert "pqreg_root_tokens 1.0" in registry.get("/metrics").body.decode(), "that one has a parent"


def test_the_catalogue_is_asked_once_a_minute(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [0.0]
    expiry = Expiry(registry.registry.catalogue, MovableClock(), lambda: ticks[0])
    first = expiry.outlook()
    assert first is not None
    assert expiry.outlook() is first
    ticks[0] = limits.EXPIRY_SECONDS
    assert expiry.outlook() is not first

    def fail() -> TokenItem:
        raise StorageError("no catalogue")

    monkeypatch.setattr(registry.registry.catalogue, "reading", fail)
    ticks[0] *= 2
    assert expiry.outlook() is None
