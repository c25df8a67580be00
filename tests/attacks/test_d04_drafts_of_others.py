# SPDX-License-Identifier: Apache-2.0
"""D4: drafts are there for those who may read them. Nothing else that anybody is told says that one is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub_site import HubSite, hub_site, repository
from tests.server_harness import Answer
from tests.unit.test_server_drafts import make_draft

ONLY, SIGNED = "acme/only-drafts", "acme/minilm"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("drafts") / "registry") as site:
        for name in (ONLY, SIGNED):
            make_draft(site.registry, repository(name), "clandestine")
        yield site


def ways(name: str) -> list[str]:
    """Everything that reads of a repository, asked for a draft."""
    head = "clandestine"
    return [
        f"/v1/repos/{name}/drafts/{head}",
        f"/api/models/{name}/revision/{head}",
        f"/api/models/{name}/revision/draft%2F{head}",
        f"/api/models/{name}/tree/{head}",
        f"/api/models/{name}/commits/{head}",
        f"/{name}/resolve/{head}/notes.txt",
        f"/{name}/raw/draft%2F{head}/notes.txt",
    ]


def said(answer: Answer) -> tuple[int, bytes]:
    """What tells one refusal from another, without the request's own id."""
    return answer.status, answer.body.replace(answer.headers["x-request-id"].encode(), b"")


def test_a_publisher_finds_it_by_every_way(site: HubSite) -> None:
    publisher = site.token_of("publisher")
    for name in (ONLY, SIGNED):
        for path in ways(name):
            answer = site.get(path, publisher)
            assert answer.status in (200, 302, 307), (path, answer)
            assert answer.headers.get("x-pqreg-signed") == "false", path


@pytest.mark.parametrize("name", [ONLY, SIGNED])
def test_a_reader_hears_of_it_what_is_heard_of_nothing(site: HubSite, name: str) -> None:
    reader = site.token_of("reader")
    for path in ways(name):
        there = site.get(path, reader)
        other = name if name == SIGNED else "acme/never-was"
        absent = site.get(path.replace(name, other).replace("clandestine", "absent"), reader)
        assert there.status == 404, path
        expected = said(absent)[1].replace(b"never-was", b"only-drafts").replace(b"absent", b"clandestine")
        assert said(there) == (404, expected), path


def test_a_reader_sees_it_in_no_listing(site: HubSite) -> None:
    reader = site.token_of("reader")
    for path in ("/v1/repos", "/api/models", "/api/models?search=only", "/models", f"/models/{SIGNED}"):
        answer = site.get(path, reader)
        assert answer.status == 200, path
        assert b"only-drafts" not in answer.body, path
        assert b"clandestine" not in answer.body, path
    for path in (f"/v1/repos/{SIGNED}/drafts", f"/api/models/{SIGNED}/refs"):
        assert b"clandestine" not in site.get(path, reader).body, path


def test_a_stranger_and_nobody_are_refused_before_anything_is_looked_up(site: HubSite) -> None:
    stranger = site.token_of("owner", "else")
    for name in (ONLY, SIGNED, "acme/never-was"):
        for path in ways(name):
            assert site.get(path, stranger).status == 403, path
            assert site.get(path, "").status == 401, path
        assert site.ask("DELETE", f"/v1/repos/{name}/drafts/clandestine", token=stranger).status == 403
