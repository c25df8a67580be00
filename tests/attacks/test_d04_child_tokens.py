# SPDX-License-Identifier: Apache-2.0
"""D4: a token that makes a stronger one (harbor #18636, CVE-2022-31667), and fields smuggled in (CVE-2019-16097)."""

from __future__ import annotations

from itertools import product

import pytest

from tests.server_harness import RunningRegistry

ROLES = ("reader", "publisher", "owner", "admin")


@pytest.mark.parametrize("parent_spaces", [["acme"], ["acme", "lab"], ["*"]], ids=str)
@pytest.mark.parametrize("parent_role", ROLES)
def test_a_child_never_exceeds_its_parent(
    shared_registry: RunningRegistry, parent_role: str, parent_spaces: list[str]
) -> None:
    if parent_role == "admin" and parent_spaces != ["*"]:
        body = {"role": "admin", "namespaces": parent_spaces, "expires_days": 1}
        assert shared_registry.post("/v1/tokens", body).code == "format-error"
        return
    parent = shared_registry.as_role(parent_role, *parent_spaces)
    for role, spaces in product(ROLES, (["acme"], ["ACME"], ["lab"], ["acme", "lab"], ["acme", "other"], ["*"])):
        if role == "admin" and spaces != ["*"]:
            continue
        answer = parent.post("/v1/tokens", {"role": role, "namespaces": spaces, "expires_days": 1})
        keys = {space.lower() for space in spaces}
        inside = parent_spaces == ["*"] or keys <= set(parent_spaces)
        allowed = ROLES.index(parent_role) >= 2 and ROLES.index(role) <= ROLES.index(parent_role) and inside
        assert answer.status == (201 if allowed else 403), (role, spaces, answer)


def test_a_child_does_not_outlive_its_parent(shared_registry: RunningRegistry) -> None:
    parent = shared_registry.with_token(shared_registry.make_token("owner", "acme", days=10))
    body = {"role": "reader", "namespaces": ["acme"]}
    assert parent.post("/v1/tokens", {**body, "expires_days": 11}).code == "access-denied"
    assert parent.post("/v1/tokens", {**body, "expires_days": 10}).status in (201, 403)  # 403 when a second passed
    assert parent.post("/v1/tokens", {**body, "expires_days": 9}).status == 201


@pytest.mark.parametrize(
    "extra",
    [{"id": "0" * 16}, {"parent": None}, {"token": "pqreg_x"}, {"expires": "2099-01-01T00:00:00Z"}, {"Role": "admin"},
     {"admin": True}, {"namespaces ": ["*"]}, {"__proto__": {"role": "admin"}}],
    ids=lambda extra: next(iter(extra)),
)  # fmt: skip
def test_unknown_fields_are_refused(shared_registry: RunningRegistry, extra: dict[str, object]) -> None:
    body = {"role": "reader", "namespaces": ["acme"], "expires_days": 1, **extra}
    assert shared_registry.post("/v1/tokens", body).code == "format-error"


@pytest.mark.parametrize(
    "changes",
    [{"role": "root"}, {"role": "Admin"}, {"role": ["admin"]}, {"role": None}, {"namespaces": []}, {"namespaces": "*"},
     {"namespaces": ["*", "acme"]}, {"namespaces": ["a/b"]}, {"namespaces": ["acme lab"]}, {"namespaces": [""]},
     {"expires_days": 0}, {"expires_days": -1}, {"expires_days": 3651}, {"expires_days": True}, {"expires_days": "7"},
     {"note": "a" * 201}, {"note": "bell\x07"}],
    ids=str,
)  # fmt: skip
def test_malformed_wishes_are_refused(shared_registry: RunningRegistry, changes: dict[str, object]) -> None:
    body = {"role": "reader", "namespaces": ["acme"], "expires_days": 1, **changes}
    answer = shared_registry.post("/v1/tokens", body)
    assert answer.code in ("format-error", "name-syntax-error")


def test_a_field_given_twice_is_refused(shared_registry: RunningRegistry) -> None:
    body = b'{"role":"reader","role":"admin","namespaces":["*"],"expires_days":1}'
    answer = shared_registry.post("/v1/tokens", body, {"Content-Type": "application/json"})
    assert answer.code == "format-error"


def test_an_owner_neither_sees_nor_revokes_stronger_tokens(registry: RunningRegistry) -> None:
    owner = registry.as_role("owner", "acme")
    registry.make_token("reader", "lab")
    items = registry.get("/v1/tokens").json["items"]
    (admin_id,) = (item["id"] for item in items if item["role"] == "admin")
    seen = owner.get("/v1/tokens").json["items"]
    assert [item["namespaces"] for item in seen] == [["acme"]]
    assert owner.request("DELETE", f"/v1/tokens/{admin_id}").code == "not-found"
    assert registry.get("/v1/whoami").status == 200


def test_revoking_a_token_revokes_what_it_made(registry: RunningRegistry) -> None:
    made = registry.post("/v1/tokens", {"role": "owner", "namespaces": ["acme"], "expires_days": 30}).json
    parent = registry.with_token(made["token"])
    child = parent.as_role("owner", "acme")
    grandchild = child.as_role("reader", "acme")
    assert registry.request("DELETE", f"/v1/tokens/{made['id']}").status == 204
    for token in (parent, child, grandchild):
        assert token.get("/v1/whoami").code == "not-authenticated"


def test_lists_hold_no_secrets(registry: RunningRegistry) -> None:
    token = registry.make_token("reader", "acme")
    assert token.removeprefix("pqreg_") not in registry.get("/v1/tokens").body.decode()
