# SPDX-License-Identifier: Apache-2.0
"""D1: a route nobody thought of guarding (CVE-2026-2652, CVE-2026-0545). Every route states a policy or none exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from pq_registry.server.app import create_app
from pq_registry.server.guard import PAGE_SOMEWHERE, PUBLIC, READ, Policy, policies
from pq_registry.server.routes import health
from tests.server_harness import RunningRegistry, running

PROBES = {("GET", "/livez"), ("GET", "/readyz"), ("GET", "/startupz")}
LOG = {
    *((verb, f"/log/{file}") for verb in ("GET", "HEAD") for file in ("checkpoint", "vkey", "tile/{path:path}")),
    ("GET", "/v1/log/entries"),
}
"""The log is public, unless its operator keeps it private."""
OPEN_PAGES = {
    ("GET", "/"),
    ("GET", "/session"),
    ("POST", "/session"),
    ("POST", "/session/end"),
    ("GET", "/static/{build}/{file}"),
}
"""The overview, which shows what its reader may see; how to sign in and out; what pages are made of."""
LOG_PAGES = {("GET", f"/audit/{page}") for page in ("log", "log/{index}", "checkpoint")}
HUB_PAGES = {("GET", "/{ns}/{name}")}
HUB_PAGES |= {("GET", f"/{{ns}}/{{name}}/{kind}/{{path:path}}") for kind in ("tree", "blob", "commit", "commits")}
"""Where the Hub has a model's page: they lead to ours, if the model is there for whoever asks."""
NOT_HERE = {("GET", f"/{kind}/{{path:path}}") for kind in ("api/datasets", "api/spaces", "datasets", "spaces")}
NOT_HERE |= {("GET", "/api/models/{name}"), ("GET", "/api/models/{name}/revision/{rev}")}
NOT_HERE |= {("GET", f"/api/{what}") for what in ("datasets", "spaces", "settings/repositories")}
NOT_HERE |= {(verb, "/{name}/resolve/{rev}/{path:path}") for verb in ("GET", "HEAD")}
"""What a Hub has and we have not, for nobody."""
ANONYMOUS = PROBES | LOG | OPEN_PAGES | LOG_PAGES | HUB_PAGES | NOT_HERE
"""What anyone may call. A change of this set is a decision, not an accident."""
PUBLIC_READING = {
    ("GET", "/openapi.json"),
    ("GET", "/v1/about"),
    ("GET", "/v1/repos"),
    ("GET", "/v1/repos/{ns}/{name}"),
    ("GET", "/v1/repos/{ns}/{name}/drafts"),
    ("GET", "/v1/repos/{ns}/{name}/drafts/{branch:path}"),
    ("GET", "/v1/repos/{ns}/{name}/releases"),
    ("GET", "/v1/repos/{ns}/{name}/releases/{hex}"),
    ("GET", "/v1/repos/{ns}/{name}/tags/{tag}"),
    ("GET", "/v1/statements/{hex}"),
    ("GET", "/v1/blobs/sha256/{hex}"),
    ("HEAD", "/v1/blobs/sha256/{hex}"),
    ("GET", "/v1/repos/{ns}/{name}/grants"),
    ("GET", "/v1/repos/{ns}/{name}/mirrors"),
    ("GET", "/v1/repos/{ns}/{name}/grants/{release}/{recipient}"),
    ("GET", "/v1/namespaces/{ns}/identities"),
    ("GET", "/v1/namespaces/{ns}/status"),
    ("GET", "/v1/namespaces/{ns}/keys"),
    ("GET", "/v1/namespaces/{ns}/keys/{recipient}"),
    ("POST", "/v1/repos/{ns}/{name}/missing"),
    ("GET", "/api/models/{ns}/{name}/discussions"),
    ("GET", "/models"),
    ("GET", "/models/{ns}/{name}"),
    ("GET", "/models/{ns}/{name}/releases/{hex}"),
    ("GET", "/models/{ns}/{name}/releases/{hex}/files/{path:path}"),
    ("GET", "/models/{ns}/{name}/tags/{tag}"),
    ("GET", "/namespaces/{ns}"),
    ("GET", "/audit/envelopes/{hex}"),
    ("GET", "/api/models"),
    *(
        ("GET", f"/api/models/{{ns}}/{{name}}{rest}")
        for rest in ("", "/revision/{rev}", "/refs", "/commits/{rev}", "/tree/{rev}", "/auth-check")
    ),
    ("GET", "/api/models/{ns}/{name}/tree/{rev}/{path:path}"),
    ("POST", "/api/models/{ns}/{name}/paths-info/{rev}"),
    *(
        (verb, f"/{{ns}}/{{name}}/{kind}/{{rev}}/{{path:path}}")
        for verb in ("GET", "HEAD")
        for kind in ("resolve", "raw")
    ),
}
"""What ``public_read`` adds. whoami is not in it: nobody is nobody."""
OF_THE_HUB = ("/api/", "/{ns}/{name}")
"""Where refusals are of the Hub's form."""
HEX = "0" * 64


def nothing() -> dict[str, str]:
    """A handler."""
    return {}


def example(path: str) -> str:
    """A path that matches the template."""
    values = {"ns": "acme", "name": "minilm", "hex": HEX, "tag": "v1", "id": "0" * 32, "n": "0"}
    values |= {
        "release": HEX,
        "recipient": HEX,
        "index": "0",
        "build": "0",
        "file": "page.css",
        "rev": "main",
        "hash": HEX,
        "place": "0",
        "branch": "dev",
    }
    path = path.replace("{path:path}", "0/000.p/1")
    for name, value in values.items():
        path = path.replace("{" + name + "}", value)
    return path + "?content=sha256:" + HEX if path.endswith("/releases") else path


def test_every_route_states_exactly_one_policy(shared_registry: RunningRegistry) -> None:
    found = policies(shared_registry.app)
    walked = {(method, route.path) for route in shared_registry.app.routes if isinstance(route, APIRoute)
              for method in route.methods or ()}  # fmt: skip
    assert len(shared_registry.app.routes) == len(walked), "a route of another kind"
    assert set(found) == walked
    unguarded = {key for key, policy in found.items() if policy.permission is None}
    assert unguarded == PROBES | OPEN_PAGES | HUB_PAGES | NOT_HERE
    assert {key for key, policy in found.items() if policy.log} == LOG | LOG_PAGES
    by_cookie = {key for key, policy in found.items() if policy.session}
    assert {method for method, _ in by_cookie} <= {"GET", "HEAD"}
    assert not {path for _, path in by_cookie if path.startswith("/v1/")}


def test_anonymous_requests_reach_the_allow_list_only(shared_registry: RunningRegistry) -> None:
    anonymous = shared_registry.with_token(None)
    let_in = set()
    for method, path in policies(shared_registry.app):
        answer = anonymous.request(method, example(path))
        if answer.status != 401:
            let_in.add((method, path))
        elif method != "HEAD":
            if path.startswith(OF_THE_HUB):
                assert answer.json["type"] == "/problems/not-authenticated"
                assert answer.headers["content-type"] == "application/json"
                assert answer.headers["x-error-message"]
            else:
                assert answer.code == "not-authenticated"
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert let_in == ANONYMOUS


def test_public_reading_opens_reading_only(tmp_path: Path) -> None:
    with running(tmp_path / "registry", public_read=True) as registry:
        anonymous = registry.with_token(None)
        statuses = {key: anonymous.request(key[0], example(key[1])).status for key in policies(registry.app)}
    assert {key for key, status in statuses.items() if status not in (401, 403)} == ANONYMOUS | PUBLIC_READING


def test_a_private_log_is_for_readers(tmp_path: Path) -> None:
    with running(tmp_path / "registry", private_log=True) as registry:
        anonymous, reader = registry.with_token(None), registry.as_role("reader")
        for method, path in LOG:
            assert anonymous.request(method, example(path)).status == 401
            assert reader.request(method, example(path)).status in (200, 404)


def test_a_wrong_token_is_not_anonymous(tmp_path: Path) -> None:
    with running(tmp_path / "registry", public_read=True) as registry:
        assert registry.with_token("pqreg_" + "A" * 43).get("/v1/repos").status == 401


@pytest.mark.parametrize("unguarded", ["plain", "unmarked", "two"])
def test_an_application_with_an_unguarded_route_is_not_created(
    monkeypatch: pytest.MonkeyPatch, registry: RunningRegistry, unguarded: str
) -> None:
    from fastapi import Depends

    router = APIRouter()
    if unguarded == "plain":
        from starlette.responses import Response

        router.add_route("/v1/forgotten", lambda _request: Response())
    elif unguarded == "unmarked":
        router.add_api_route("/v1/forgotten", nothing)
    else:
        dependencies = [Depends(PUBLIC), Depends(READ)]
        router.add_api_route("/v1/{ns}/forgotten", nothing, dependencies=dependencies)
    monkeypatch.setattr(health, "router", router)
    with pytest.raises(RuntimeError, match=r"forgotten|cannot state"):
        create_app(registry.registry, registry.app.state.config)


def test_a_route_that_does_more_than_read_cannot_take_a_cookie() -> None:
    from fastapi import Depends

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/v1/changes", nothing, methods=["POST"], dependencies=[Depends(PAGE_SOMEWHERE)])
    with pytest.raises(RuntimeError, match="lets a cookie do more than read"):
        policies(app)


def test_a_namespace_policy_needs_a_namespace_in_the_path() -> None:
    from fastapi import Depends

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/v1/everything", nothing, dependencies=[Depends(READ)])
    assert isinstance(READ, Policy)
    with pytest.raises(RuntimeError, match="names no namespace"):
        policies(app)
