# SPDX-License-Identifier: Apache-2.0
"""D9: questions of the Hub's protocol that cost more to answer than to ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pq_registry import limits
from tests.hub_site import HubSite, hub_site

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("costly") / "registry") as site:
        yield site


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/models?search=" + "a" * 300, 422),
        ("/api/models?" + "&".join(f"filter=f{number}" for number in range(50)), 400),
        ("/api/models?search=" + "+".join("abcdefghijklmnopqrstuvwxyz") * 2, 400),
        ("/api/models?after=" + "a" * 300, 422),
        ("/api/models?after=%00", 422),
        ("/api/models/acme/minilm/tree/main?cursor=-1", 422),
        ("/api/models/acme/minilm/tree/main?cursor=" + "9" * 30, 422),
        ("/api/models/acme/minilm/commits/main?after=zz", 400),
        ("/api/models/acme/minilm/tree/main?recursive=perhaps", 422),
    ],
)
def test_questions_are_bounded(site: HubSite, path: str, status: int) -> None:
    answer = site.get(path)
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"


def test_pages_are_bounded_whatever_is_asked_for(site: HubSite) -> None:
    for limit in ("0", "-5", "1000000000"):
        assert site.get(f"/api/models?limit={limit}").status == 200
        assert site.get(f"/api/models/acme/minilm/commits/main?limit={limit}").status == 200
    beyond = site.get(f"/api/models/acme/minilm/tree/main?cursor={limits.FILES}")
    assert (beyond.status, beyond.json) == (200, [])


def test_a_question_about_too_much(site: HubSite) -> None:
    body = b"paths=" + b"a" * limits.REQUEST_BODY_BYTES
    path = "/api/models/acme/minilm/paths-info/main"
    assert site.ask("POST", path, body, Content_Type=FORM).status == 413
    deep = b'{"paths": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert site.ask("POST", path, deep, Content_Type="application/json").status == 422
    assert site.ask("POST", path, b"paths=a", Content_Type=FORM, Content_Encoding="gzip").status == 415


def test_many_ranges(site: HubSite) -> None:
    ranges = "bytes=" + ",".join(f"{start}-{start}" for start in range(1000))
    answer = site.get("/acme/minilm/resolve/main/model.sig", Range=ranges)
    assert answer.status == 416
    assert len(answer.body) < 1000
