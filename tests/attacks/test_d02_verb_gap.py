# SPDX-License-Identifier: Apache-2.0
"""D2: a verb that slips through under another verb's permission (TOB-PYPI26-8). Role x verb x route, all of them."""

from __future__ import annotations

import pytest

from pq_registry.server.guard import policies
from tests.attacks.test_d01_routes_without_policy import example
from tests.server_harness import Api, RunningRegistry

VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
ROLES = ("reader", "publisher", "owner", "admin")
ANYONE, NOBODY = "anyone", "nobody"

# The least role that gets past the policy; written here by hand, not derived from the code under test.
TABLE = {
    ("GET", "/livez"): ANYONE,
    ("GET", "/startupz"): ANYONE,
    ("GET", "/v1/namespaces/{ns}/usage"): "publisher",
    ("GET", "/readyz"): ANYONE,
    ("GET", "/openapi.json"): "reader",
    ("GET", "/metrics"): "everywhere",
    ("GET", "/v1/whoami"): "reader",
    ("GET", "/v1/about"): "reader",
    ("GET", "/v1/tokens"): "owner",
    ("POST", "/v1/tokens"): "owner",
    ("DELETE", "/v1/tokens/{id}"): "owner",
    ("GET", "/v1/namespaces/{ns}/identities"): "reader",
    ("POST", "/v1/namespaces/{ns}/identities"): "owner",
    ("GET", "/v1/namespaces/{ns}/keys"): "reader",
    ("GET", "/v1/namespaces/{ns}/keys/{recipient}"): "reader",
    ("PUT", "/v1/namespaces/{ns}/keys/{recipient}"): "owner",
    ("GET", "/v1/repos"): "reader",
    ("GET", "/v1/repos/{ns}/{name}"): "reader",
    ("GET", "/v1/repos/{ns}/{name}/mirrors"): "reader",
    ("POST", "/v1/repos/{ns}/{name}/mirrors"): "publisher",
    ("GET", "/v1/repos/{ns}/{name}/drafts"): "reader",
    ("GET", "/v1/repos/{ns}/{name}/drafts/{branch:path}"): "reader",
    ("DELETE", "/v1/repos/{ns}/{name}/drafts/{branch:path}"): "publisher",
    ("GET", "/v1/repos/{ns}/{name}/releases"): "reader",
    ("POST", "/v1/repos/{ns}/{name}/releases"): "publisher",
    ("GET", "/v1/repos/{ns}/{name}/releases/{hex}"): "reader",
    ("GET", "/v1/repos/{ns}/{name}/tags/{tag}"): "reader",
    ("PUT", "/v1/repos/{ns}/{name}/tags/{tag}"): "publisher",
    ("POST", "/v1/repos/{ns}/{name}/tags/{tag}/history"): "publisher",
    ("POST", "/v1/repos/{ns}/{name}/grants/{release}/{recipient}/history"): "publisher",
    ("POST", "/v1/namespaces/{ns}/status/history"): "owner",
    ("GET", "/v1/repos/{ns}/{name}/grants"): "reader",
    ("GET", "/v1/repos/{ns}/{name}/grants/{release}/{recipient}"): "reader",
    ("PUT", "/v1/repos/{ns}/{name}/grants/{release}/{recipient}"): "publisher",
    ("GET", "/v1/namespaces/{ns}/status"): "reader",
    ("PUT", "/v1/namespaces/{ns}/status"): "owner",
    ("GET", "/v1/statements/{hex}"): "reader",
    ("GET", "/v1/log/entries"): ANYONE,
    ("GET", "/log/checkpoint"): ANYONE,
    ("HEAD", "/log/checkpoint"): ANYONE,
    ("GET", "/log/vkey"): ANYONE,
    ("HEAD", "/log/vkey"): ANYONE,
    ("GET", "/log/tile/{path:path}"): ANYONE,
    ("HEAD", "/log/tile/{path:path}"): ANYONE,
    ("GET", "/v1/blobs/sha256/{hex}"): "reader",
    ("HEAD", "/v1/blobs/sha256/{hex}"): "reader",
    ("POST", "/v1/repos/{ns}/{name}/missing"): "reader",
    ("POST", "/v1/repos/{ns}/{name}/uploads"): "publisher",
    ("GET", "/v1/repos/{ns}/{name}/uploads/{id}"): "publisher",
    ("DELETE", "/v1/repos/{ns}/{name}/uploads/{id}"): "publisher",
    ("PUT", "/v1/repos/{ns}/{name}/uploads/{id}/parts/{n}"): "publisher",
    ("POST", "/v1/repos/{ns}/{name}/uploads/{id}/urls"): "publisher",
    ("POST", "/v1/repos/{ns}/{name}/uploads/{id}/complete"): "publisher",
    ("GET", "/"): ANYONE,
    ("GET", "/models"): "reader",
    ("GET", "/models/{ns}/{name}"): "reader",
    ("GET", "/models/{ns}/{name}/releases/{hex}"): "reader",
    ("GET", "/models/{ns}/{name}/releases/{hex}/files/{path:path}"): "reader",
    ("GET", "/models/{ns}/{name}/tags/{tag}"): "reader",
    ("GET", "/namespaces/{ns}"): "reader",
    ("GET", "/audit/log"): ANYONE,
    ("GET", "/audit/log/{index}"): ANYONE,
    ("GET", "/audit/checkpoint"): ANYONE,
    ("GET", "/audit/envelopes/{hex}"): "reader",
    ("GET", "/session"): ANYONE,
    ("POST", "/session"): ANYONE,
    ("POST", "/session/end"): ANYONE,
    ("GET", "/static/{build}/{file}"): ANYONE,
    ("POST", "/api/repos/create"): "publisher",
    ("DELETE", "/api/repos/delete"): "publisher",
    ("POST", "/api/repos/move"): "publisher",
    ("POST", "/api/validate-yaml"): "publisher",
    ("PUT", "/api/models/{ns}/{name}/settings"): "publisher",
    ("POST", "/api/models/{ns}/{name}/preupload/{rev}"): "publisher",
    ("POST", "/api/models/{ns}/{name}/commit/{rev}"): "publisher",
    ("POST", "/api/models/{ns}/{name}/branch/{branch}"): "publisher",
    ("DELETE", "/api/models/{ns}/{name}/branch/{branch}"): "publisher",
    ("POST", "/api/models/{ns}/{name}/tag/{tag}"): "publisher",
    ("DELETE", "/api/models/{ns}/{name}/tag/{tag}"): "publisher",
    ("POST", "/api/models/{ns}/{name}/super-squash/{rev}"): "publisher",
    ("POST", "/{ns}/{name}.git/info/lfs/objects/batch"): "publisher",
    ("PUT", "/api/lfs/{ns}/{name}/objects/{hex}"): "publisher",
    ("PUT", "/api/lfs/{ns}/{name}/uploads/{id}/parts/{n}"): "publisher",
    ("POST", "/api/lfs/{ns}/{name}/uploads/{id}"): "publisher",
    ("POST", "/api/lfs/{ns}/{name}/verify"): "publisher",
    ("GET", "/api/models/{ns}/{name}/xet-write-token/{rev}"): "publisher",
    ("POST", "/api/xet/{ns}/{name}/{place}/v1/xorbs/default/{hash}"): "publisher",
    ("POST", "/api/xet/{ns}/{name}/{place}/v1/shards"): "publisher",
    ("GET", "/api/models"): "reader",
    ("GET", "/api/whoami-v2"): "reader",
    ("GET", "/api/models/{ns}/{name}"): "reader",
    ("GET", "/api/models/{ns}/{name}/revision/{rev}"): "reader",
    ("GET", "/api/models/{ns}/{name}/refs"): "reader",
    ("GET", "/api/models/{ns}/{name}/commits/{rev}"): "reader",
    ("GET", "/api/models/{ns}/{name}/auth-check"): "reader",
    ("GET", "/api/models/{ns}/{name}/auth-check/write"): "publisher",
    ("GET", "/api/models/{ns}/{name}/tree/{rev}"): "reader",
    ("GET", "/api/models/{ns}/{name}/tree/{rev}/{path:path}"): "reader",
    ("POST", "/api/models/{ns}/{name}/paths-info/{rev}"): "reader",
    ("GET", "/{ns}/{name}/resolve/{rev}/{path:path}"): "reader",
    ("HEAD", "/{ns}/{name}/resolve/{rev}/{path:path}"): "reader",
    ("GET", "/{ns}/{name}/raw/{rev}/{path:path}"): "reader",
    ("HEAD", "/{ns}/{name}/raw/{rev}/{path:path}"): "reader",
    ("GET", "/{ns}/{name}"): ANYONE,
    ("GET", "/{ns}/{name}/tree/{path:path}"): ANYONE,
    ("GET", "/{ns}/{name}/blob/{path:path}"): ANYONE,
    ("GET", "/{ns}/{name}/commit/{path:path}"): ANYONE,
    ("GET", "/{ns}/{name}/commits/{path:path}"): ANYONE,
    ("GET", "/api/models/{name}"): ANYONE,
    ("GET", "/api/models/{name}/revision/{rev}"): ANYONE,
    ("GET", "/api/models/{ns}/{name}/discussions"): "reader",
    ("POST", "/api/models/{ns}/{name}/discussions"): "publisher",
    ("POST", "/api/models/{ns}/{name}/duplicate"): "publisher",
    ("GET", "/api/settings/repositories"): ANYONE,
    ("GET", "/api/datasets"): ANYONE,
    ("GET", "/api/spaces"): ANYONE,
    ("GET", "/api/datasets/{path:path}"): ANYONE,
    ("GET", "/api/spaces/{path:path}"): ANYONE,
    ("GET", "/datasets/{path:path}"): ANYONE,
    ("GET", "/spaces/{path:path}"): ANYONE,
    ("GET", "/{name}/resolve/{rev}/{path:path}"): ANYONE,
    ("HEAD", "/{name}/resolve/{rev}/{path:path}"): ANYONE,
}
PATHS = sorted({path for _, path in TABLE})


@pytest.fixture(scope="module")
def callers(shared_registry: RunningRegistry) -> dict[tuple[str, str], Api]:
    """A caller per role: of the path's namespace, and of another one."""
    found = {(role, "acme"): shared_registry.as_role(role, "acme") for role in ROLES[:3]}
    found |= {(role, "lab"): shared_registry.as_role(role, "lab") for role in ROLES[:3]}
    found |= {("reader", "*"): shared_registry.as_role("reader", "*"), ("admin", "*"): shared_registry.with_token(
        shared_registry.admin_token)}  # fmt: skip
    return found | {("nobody", ""): shared_registry.with_token(None)}


def expected(verb: str, path: str, role: str, namespaces: str) -> set[int]:
    """Statuses this request may get. What gets past the policy is refused for its content."""
    need = TABLE.get((verb, path), NOBODY)
    if need == NOBODY:
        return {405}
    past = set(range(200, 500)) - {401, 403, 405}
    if need == ANYONE:
        return past
    if role == "nobody":
        return {401}
    if need == "everywhere":
        return past if namespaces == "*" else {403}
    if "{ns}" in path and namespaces not in ("acme", "*"):
        return {403}
    return past if ROLES.index(role) >= ROLES.index(need) else {403}


def test_the_table_names_every_route(shared_registry: RunningRegistry) -> None:
    assert set(policies(shared_registry.app)) == set(TABLE)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("verb", VERBS)
def test_matrix(callers: dict[tuple[str, str], Api], verb: str, path: str) -> None:
    for (role, namespaces), caller in callers.items():
        answer = caller.request(verb, example(path))
        assert answer.status in expected(verb, path, role, namespaces), (role, namespaces, answer)


def test_the_namespace_is_compared_without_regard_to_case(callers: dict[tuple[str, str], Api]) -> None:
    assert callers["reader", "acme"].get("/v1/repos/ACME/minilm").status == 404
    assert callers["reader", "lab"].get("/v1/repos/Acme/minilm").status == 403


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"])
def test_no_header_changes_the_verb(callers: dict[tuple[str, str], Api], header: str) -> None:
    answer = callers["reader", "acme"].request("POST", "/v1/repos/acme/minilm/uploads", {}, {header: "GET"})
    assert answer.status == 403
