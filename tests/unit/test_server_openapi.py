# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document: complete, honest about rights, and what the service answers conforms to it."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest

from pq_registry.server.guard import policies
from tests.samples import publisher
from tests.server_harness import Answer, RunningRegistry


@pytest.fixture(scope="module")
def document(shared_registry: RunningRegistry) -> dict[str, Any]:
    found: dict[str, Any] = shared_registry.get("/openapi.json").json
    return found


def conforms(document: dict[str, Any], template: str, method: str, answer: Answer) -> None:
    """The answer's JSON is what the document says about its status (or about problems)."""
    responses = document["paths"][template][method]["responses"]
    described = responses.get(str(answer.status), responses["default"])
    kind = answer.headers["content-type"]
    schema = described["content"][kind]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json)


def test_every_route_is_described_with_its_policy(shared_registry: RunningRegistry, document: dict[str, Any]) -> None:
    described = {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    stated = policies(shared_registry.app)
    found = {(verb, path.replace(":path}", "}")): policy for (verb, path), policy in stated.items()}
    assert set(described) == set(found)
    for key, policy in found.items():
        operation = described[key]
        assert operation["description"], key
        assert operation["x-permission"] == (None if policy.permission is None else policy.permission.value)
        assert operation["security"] == ([] if policy.permission is None else [{"token": []}])
        in_path = {item["name"] for item in operation.get("parameters", ()) if item["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", key[1]))
        assert ("requestBody" in operation) == (policy.body > 0 and not key[1].endswith("/complete"))
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}


def test_answers_conform(registry: RunningRegistry) -> None:
    document = registry.get("/openapi.json").json
    digest = registry.publish()
    registry.put_tag(digest)
    repository = "/v1/repos/{ns}/{name}"
    here = "/v1/repos/acme/minilm"
    item = registry.get(f"{here}/releases/{digest.hex}")
    for template, path in (
        ("/v1/whoami", "/v1/whoami"),
        ("/v1/tokens", "/v1/tokens"),
        ("/v1/repos", "/v1/repos"),
        (repository, here),
        (repository + "/releases", f"{here}/releases?content={item.json['content']}"),
        (repository + "/releases/{hex}", f"{here}/releases/{digest.hex}"),
        ("/v1/statements/{hex}", f"/v1/statements/{digest.hex}"),
        ("/v1/namespaces/{ns}/identities", "/v1/namespaces/acme/identities"),
        ("/v1/repos", "/v1/repos?limit=0"),
        (repository, "/v1/repos/acme/absent"),
    ):
        conforms(document, template, "get", registry.get(path))
    made = registry.post("/v1/tokens", {"role": "reader", "namespaces": ["acme"], "expires_days": 1})
    conforms(document, "/v1/tokens", "post", made)
    conforms(document, "/v1/namespaces/{ns}/identities", "post", registry.register(publisher("bob")))
    missing = registry.post(f"{here}/missing", {"digests": [str(digest)]})
    conforms(document, repository + "/missing", "post", missing)
    opened = registry.open_upload(b"conforming")
    conforms(document, repository + "/uploads", "post", opened)
    upload = opened.json["id"]
    conforms(document, repository + "/uploads/{id}", "get", registry.get(f"{here}/uploads/{upload}"))
    conforms(document, repository + "/uploads/{id}/complete", "post", registry.complete(upload))
    registry.put_part(upload, 0, b"conforming")
    conforms(document, repository + "/uploads/{id}/complete", "post", registry.complete(upload))
    conforms(document, repository + "/tags/{tag}", "put", registry.put_tag(digest, sequence=5, previous=digest))


def test_the_documentation_pages_of_the_framework_are_off(shared_registry: RunningRegistry) -> None:
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert shared_registry.get(path).status == 404


def test_pages_lead_from_one_to_the_next(registry: RunningRegistry) -> None:
    from pq_registry.format.name import RepositoryName

    names = [f"acme/model{number}" for number in range(5)] + ["lab/other"]
    for name in names:
        registry.publish({"a.json": b"{}"}, RepositoryName.parse(name))
    seen: list[str] = []
    after = ""
    while True:
        page = registry.get(f"/v1/repos?limit=2{after}").json
        seen += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == names
    assert [item["name"] for item in registry.get("/v1/repos?namespace=LAB").json["items"]] == ["lab/other"]
    assert [item["name"] for item in registry.as_role("reader", "lab").get("/v1/repos").json["items"]] == ["lab/other"]

    releases = [registry.publish({"a.json": str(number).encode()}) for number in range(5)]
    found: list[str] = []
    after = ""
    while True:
        view = registry.get(f"/v1/repos/acme/minilm?limit=2{after}").json
        found += [item["digest"] for item in view["releases"]]
        if view["next"] is None:
            break
        after = f"&after={view['next']}"
    assert found == [str(digest) for digest in reversed(releases)]
    assert registry.get(f"/v1/repos/acme/minilm?after={'sha256:' + '0' * 64}").code == "not-found"
