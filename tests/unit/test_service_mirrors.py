# SPDX-License-Identifier: Apache-2.0
"""What mirrors report to a registry: kept as states, shown to readers, believed by nothing."""

from __future__ import annotations

import pytest

from pq_registry import limits
from pq_registry.format.digest import Digest
from tests.server_harness import RunningRegistry

MIRRORS = "/v1/repos/acme/minilm/mirrors"
TARGET = "hub.example.org/acme-ai/minilm"
COMMIT = "c0" * 20


def told(release: Digest, **changes: object) -> dict[str, object]:
    return {"target": TARGET, "release": str(release), "tag": "v1", "state": "mirrored", "commit": COMMIT, **changes}


def test_a_state_is_one_row_and_what_changes_is_a_new_one(registry: RunningRegistry) -> None:
    release = registry.publish()
    publisher, reader = registry.as_role("publisher"), registry.as_role("reader")
    first = publisher.post(MIRRORS, told(release, seconds=90))
    assert (first.status, first.json) == (201, {"new": True})
    assert (publisher.post(MIRRORS, told(release)).status, len(reader.get(MIRRORS).json["items"])) == (200, 1)
    refused = told(release, state="refused", commit=None, reason="the Hub\nrefused \x1b[31mit")
    assert publisher.post(MIRRORS, refused).status == 201
    assert publisher.post(MIRRORS, told(release)).status == 201
    assert publisher.post(MIRRORS, told(release, tag=None)).status == 201
    items = reader.get(MIRRORS).json["items"]
    assert [item["state"] for item in items] == ["mirrored", "mirrored", "refused", "mirrored"]
    assert items[2]["reason"] == "the Hub refused  [31mit"
    assert items[3]["started"] < items[3]["seen"]
    assert items[0] | {"started": "", "seen": ""} == {
        **told(release, tag=None), "reason": None, "started": "", "seen": "",
    }  # fmt: skip
    page = reader.get(f"{MIRRORS}?limit=3").json
    assert [len(page["items"]), len(reader.get(f"{MIRRORS}?after={page['next']}").json["items"])] == [3, 1]


def test_the_newest_are_kept(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIRROR_RUNS_KEPT", 3)
    release = registry.publish()
    for number in range(5):
        assert registry.post(MIRRORS, told(release, commit=f"{number:040x}")).status == 201
    assert [int(item["commit"], 16) for item in registry.get(MIRRORS).json["items"]] == [4, 3, 2]


ILL_FORMED: list[dict[str, object]] = [
    {"target": "https://hub.example.org/acme/x"},
    {"target": "hub.example.org/x"},
    {"target": "hub.example.org/../x/y"},
    {"target": "javascript:alert(1)"},
    {"target": "hub.example.org/<b>/x"},
    {"target": "h/" + "a/" * 200 + "x"},
    {"state": "running"},
    {"commit": "c0"},
    {"tag": "a b"},
    {"reason": "x" * (limits.MIRROR_REASON_CHARS + 1)},
    {"seconds": -1},
    {"more": 1},
]


def test_what_is_not_of_the_form_is_refused(registry: RunningRegistry) -> None:
    release = registry.publish()
    for change in ILL_FORMED:
        assert registry.post(MIRRORS, told(release, **change)).status in (400, 422), change
    assert registry.get(MIRRORS).json["items"] == []


def test_only_releases_of_the_repository_by_those_who_may_publish(registry: RunningRegistry) -> None:
    release = registry.publish()
    assert registry.as_role("reader").post(MIRRORS, told(release)).code == "access-denied"
    assert registry.as_role("publisher", "other").post(MIRRORS, told(release)).code in ("access-denied", "not-found")
    assert registry.with_token(None).post(MIRRORS, told(release)).code == "not-authenticated"
    assert registry.post(MIRRORS, told(Digest.of(b"another"))).code == "not-found"
    assert registry.post("/v1/repos/acme/other/mirrors", told(release)).code == "not-found"
