# SPDX-License-Identifier: Apache-2.0
"""Signing in to the page: what the cookie can do and cannot, where it is given, and who may ask for it (CSRF)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from pq_registry import limits
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Role
from pq_registry.service.tokens import SESSION_NOTE, host_caller
from tests.page_site import Site, site
from tests.server_harness import Answer, Api, RunningRegistry

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("private") / "registry") as made:
        yield made


def host(api: Api) -> str:
    return api.url.removeprefix("http://")


def sign_in(api: Api, token: str, **headers: str) -> Answer:
    sent = {"Origin": api.url, "Sec-Fetch-Site": "same-origin", **FORM}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return api.with_token(None).request("POST", "/session", f"token={token}".encode(), sent)


def cookie_of(answer: Answer) -> str:
    assert answer.status == 303, answer
    return answer.headers["set-cookie"].split(";")[0]


def browse(api: Api, path: str, cookie: str, method: str = "GET") -> Answer:
    return api.with_token(None).request(method, path, headers={"Cookie": cookie})


def test_the_cookie_reads_what_the_token_reads(private: Site) -> None:
    registry = private.registry
    cookie = cookie_of(sign_in(registry, registry.make_token("owner", "acme")))
    assert browse(registry, "/models", cookie).status == 200
    assert browse(registry, "/models/acme/minilm", cookie).status == 200
    assert browse(registry, "/models/lab/eurollm-9b", cookie).status == 403
    assert b"lab/eurollm" not in browse(registry, "/models", cookie).body


def test_the_cookie_is_another_token_that_reads_and_does_nothing_else(private: Site) -> None:
    registry = private.registry
    token = registry.make_token("owner", "acme")
    answer = sign_in(registry, token)
    text = cookie_of(answer).partition("=")[2]
    assert text != token
    assert token not in str(answer.headers)
    caller = registry.registry.tokens.authenticate(text, public_read=False, request_id="x")
    assert caller.rights is not None
    assert (caller.rights.role, caller.rights.namespaces) == (Role.READER, frozenset({"acme"}))
    assert caller.expires is not None
    assert caller.expires <= registry.clock() + timedelta(seconds=limits.SESSION_SECONDS)
    assert registry.with_token(text).request("POST", "/v1/tokens", {"role": "reader"}).status == 403


def test_publishers_who_signed_in_see_drafts_on_pages_and_nowhere_else(private: Site) -> None:
    registry = private.registry
    name = RepositoryName.parse("acme/only-a-draft")
    registry.registry.drafts.create(host_caller(), name, exist_ok=True)
    statuses = {}
    for role in ("reader", "publisher"):
        cookie = cookie_of(sign_in(registry, registry.make_token(role, "acme")))
        read = registry.with_token(cookie.partition("=")[2]).get(f"/v1/repos/{name}/drafts").status
        statuses[role] = (browse(registry, f"/models/{name}", cookie).status, read)
    assert statuses == {"reader": (404, 404), "publisher": (200, 404)}
    elsewhere = cookie_of(sign_in(registry, registry.make_token("publisher", "lab")))
    assert browse(registry, f"/models/{name}", elsewhere).status == 403


def test_nobody_makes_a_token_that_is_taken_for_a_sign_in(private: Site) -> None:
    wanted = {"role": "reader", "namespaces": ["acme"], "expires_days": 1, "note": SESSION_NOTE}
    answer = private.registry.request("POST", "/v1/tokens", wanted)
    assert answer.status == 422, answer


def test_the_api_takes_no_cookie(private: Site) -> None:
    registry = private.registry
    cookie = cookie_of(sign_in(registry, registry.admin_token))
    for method, path in (
        ("GET", "/v1/repos"), ("GET", "/v1/whoami"), ("GET", f"/v1/statements/{private.sealed.hex}"),
        ("GET", "/metrics"),
        ("POST", "/v1/tokens"), ("PUT", "/v1/namespaces/acme/status"), ("GET", "/openapi.json"),
    ):  # fmt: skip
        assert browse(registry, path, cookie, method).status == 401, path


def test_the_cookie_is_hidden_from_scripts_and_other_sites(private: Site) -> None:
    attributes = sign_in(private.registry, private.registry.admin_token).headers["set-cookie"].lower()
    assert attributes.startswith("pqreg=pqreg_")
    for part in ("httponly", "samesite=strict", "path=/", f"max-age={limits.SESSION_SECONDS}"):
        assert part in attributes
    assert "domain" not in attributes


def test_over_tls_the_cookie_belongs_to_this_host_alone(private: Site) -> None:
    answer = sign_in(private.registry, private.registry.admin_token, Origin=f"https://{host(private.registry)}")
    attributes = answer.headers["set-cookie"]
    assert attributes.startswith("__Host-pqreg=")
    assert "; Secure" in attributes
    assert "domain" not in attributes.lower()
    assert browse(private.registry, "/models", cookie_of(answer)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
    ids=str,
)
def test_a_form_elsewhere_signs_nobody_in(private: Site, headers: dict[str, str]) -> None:
    answer = sign_in(private.registry, private.registry.admin_token, **headers)
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


def test_a_form_that_is_none_of_ours_is_refused(private: Site) -> None:
    registry = private.registry.with_token(None)
    own = {"Origin": registry.url, **FORM}
    for body in (b"", b"token", b"token=a&token=b", b"other=x", b"token=\xff", b"a=1&b=2&c=3&d=4&e=5"):
        assert registry.request("POST", "/session", body, own).status in (401, 422), body
    assert registry.request("POST", "/session", b"x" * (limits.PAGE_FORM_BYTES + 1), own).status == 413
    assert registry.request("POST", "/session", b"{}", {**own, "Content-Type": "application/json"}).status == 415


def test_in_the_clear_from_another_machine_no_token_is_taken(tmp_path_factory: pytest.TempPathFactory) -> None:
    with site(tmp_path_factory.mktemp("lan") / "registry", hosts=frozenset({"models.example", "127.0.0.1"})) as made:
        registry = made.registry
        there = {"Host": "models.example", "Origin": "http://models.example", **FORM}
        answer = registry.with_token(None).request("POST", "/session", f"token={registry.admin_token}".encode(), there)
        assert answer.status == 403
        page = registry.with_token(None).get("/session", {"Host": "models.example"}).body.decode()
        assert 'name="token"' not in page
        assert "HTTPS" in page
        behind_proxy = {"Host": "models.example", "Sec-Fetch-Site": "none"}
        assert 'name="token"' in registry.with_token(None).get("/session", behind_proxy).body.decode()
        there = {"Host": "models.example", "Origin": "https://models.example", "Sec-Fetch-Site": "same-origin", **FORM}
        answer = registry.with_token(None).request("POST", "/session", f"token={registry.admin_token}".encode(), there)
        assert answer.headers["set-cookie"].startswith("__Host-pqreg=")
        # A neighbour in the domain can set a cookie for it, but none with this prefix.
        name, _, text = cookie_of(answer).partition("=")
        for cookie, status in ((f"{name}={text}", 200), (f"pqreg={text}", 401)):
            sent = {"Host": "models.example", "Cookie": cookie}
            assert registry.with_token(None).request("GET", "/models", headers=sent).status == status


def test_signing_out_ends_it_and_a_token_made_otherwise_lives_on(private: Site) -> None:
    registry = private.registry
    cookie = cookie_of(sign_in(registry, registry.admin_token))
    elsewhere = {"Cookie": cookie, "Origin": "https://evil.example"}
    assert registry.with_token(None).request("POST", "/session/end", headers=elsewhere).status == 403
    assert browse(registry, "/models", cookie).status == 200
    here = {"Cookie": cookie, "Origin": registry.url}
    assert registry.with_token(None).request("POST", "/session/end", headers=here).status == 303
    assert browse(registry, "/models", cookie).status == 401
    by_hand = {"Cookie": f"pqreg={registry.admin_token}", "Origin": registry.url}
    assert registry.with_token(None).request("POST", "/session/end", headers=by_hand).status == 303
    assert registry.get("/v1/whoami").status == 200
    assert registry.with_token(None).request("POST", "/session/end").status == 303, "nobody is signed in"


def test_it_ends_with_the_token_it_came_from_and_after_a_working_day(private: Site) -> None:
    registry = private.registry
    made = registry.post("/v1/tokens", {"role": "reader", "namespaces": ["acme"], "expires_days": 1}).json
    cookie = cookie_of(sign_in(registry, made["token"]))
    assert registry.request("DELETE", f"/v1/tokens/{made['id']}").status == 204
    assert browse(registry, "/models", cookie).status == 401
    assert browse(registry, "/", cookie).status == 200, "what is there for everybody stays there"


def test_it_outlives_neither_its_day_nor_its_token(registry: RunningRegistry) -> None:
    short = registry.make_token("reader", "acme", days=1)
    cookie = cookie_of(sign_in(registry, registry.admin_token))
    registry.clock.offset = timedelta(hours=20)
    late = cookie_of(sign_in(registry, short))
    assert browse(registry, "/models", cookie).status == 401
    assert browse(registry, "/models", late).status == 200
    registry.clock.offset = timedelta(hours=25)
    assert browse(registry, "/models", late).status == 401


def test_a_wrong_token_is_told_on_the_page_and_not_repeated(private: Site) -> None:
    answer = sign_in(private.registry, "pqreg_" + "B" * 43)
    assert answer.status == 401
    assert "set-cookie" not in answer.headers
    assert b"BBBB" not in answer.body
    assert b'role="alert"' in answer.body
