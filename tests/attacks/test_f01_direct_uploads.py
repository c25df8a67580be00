# SPDX-License-Identifier: Apache-2.0
"""F1 on the way to storage: a push sends no token there, follows no redirect from there, and goes nowhere else.

A registry that was taken over chooses the URLs parts are sent to and the headers sent with them. It must not be able
to have a publisher's machine talk to hosts of its choice, or say there what it likes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.client.places import parse_origins
from pq_registry.errors import OriginNotAllowed, PqregError, ResponseInvalid, ServerRefused
from tests.direct_site import PART, SECRET, TOKEN, DirectSite, direct_site, spoil
from tests.fake_registry import FakeRegistry, Handler, serving
from tests.tls_server import Authority, serving_tls

CONTENT = os.urandom(PART + 5)
STATUSES = (301, 302, 303, 307, 308)
pytestmark = pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2", "::1"])


@pytest.fixture
def site() -> Iterator[DirectSite]:
    with direct_site() as made:
        yield made


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    with serving(host="127.0.0.2") as server:
        yield server


def signs(site: DirectSite, url: str, headers: dict[str, str] | None = None) -> None:
    """The registry signs this for every part."""

    def rule(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        part = {"number": 0, "url": url, "headers": headers or {}, "expires": "2026-11-22T00:00:00Z"}
        return handler.json({"parts": [part]})

    spoil(site.registry, "/urls", rule)


@pytest.mark.parametrize("allowed", [True, False])
def test_f01_parts_go_to_allowed_origins_only_and_without_the_token(allowed: bool) -> None:
    with direct_site(storage_host="127.0.0.2") as site:
        if allowed:
            site.push(CONTENT, storage_origins=parse_origins(site.storage.url))
            assert TOKEN not in str(site.strangers())
            assert all("authorization" not in headers for headers in site.strangers())
            return
        with pytest.raises(OriginNotAllowed) as caught:
            site.push(CONTENT)
        assert not site.storage.seen
        assert f"PQREG_STORAGE_ORIGINS={site.storage.url}" in str(caught.value.hint)
        assert SECRET not in f"{caught.value} {caught.value.hint} {caught.value.__dict__}"


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("target", ["other host", "same"])
def test_f01_no_redirect_of_the_storage_is_followed(
    site: DirectSite, elsewhere: FakeRegistry, status: int, target: str
) -> None:
    to = elsewhere if target == "other host" else site.storage

    def rule(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        return handler.send(status, b"", headers={"Location": f"{to.url}/again?{SECRET}"})

    spoil(site.storage, "PUT /bucket/", rule)
    with pytest.raises(ServerRefused) as caught:
        site.push(CONTENT, storage_origins=parse_origins(elsewhere.url))
    assert not elsewhere.seen
    assert not [seen for seen in site.storage.seen if "/again" in seen.line]
    assert SECRET not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer x"}, {"authorization": "x"}, {"Cookie": "a=b"}, {"Host": "127.0.0.2"}, {"host": "x"},
        {"X-Forwarded-For": "1"}, {"transfer-encoding": "chunked"}, {"content-type": "text/html"}, {"expect": "100"},
        {"x-amz-meta-a": "a\r\nAuthorization: b"}, {"x-amz-meta-a\r\nHost": "b"}, {"x-amz-é": "b"}, {"x-amz-a": ""},
        {"x-amz-a": "b" * 513}, {"X-Amz-Upper": "b"},
    ],
)  # fmt: skip
def test_f01_no_header_of_the_registrys_choice_is_sent(site: DirectSite, headers: dict[str, str]) -> None:
    signs(site, f"{site.storage.url}/bucket/key?partNumber=0", headers)
    with pytest.raises(ResponseInvalid):
        site.push(CONTENT[:PART])
    assert not site.storage.seen


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/", "/bucket/key", "//127.0.0.2/", "ftp://127.0.0.1/", f"https://u:{TOKEN}@127.0.0.1/",
        "file:///etc/passwd", "https://", "https://127.0.0.1:70000/", "https://127.0.0.1/\x7f", "https://127.0.0.2/",
    ],
)  # fmt: skip
def test_f01_from_tls_nothing_leads_to_less_and_odd_targets_lead_nowhere(tmp_path: Path, url: str) -> None:
    authority = Authority(tmp_path / "ca")
    with direct_site() as site, serving_tls(authority.issue("127.0.0.1")) as home:
        signs(site, url)
        home.rules = site.registry.rules
        site.registry = home
        with pytest.raises(PqregError) as caught:
            site.push(CONTENT[:PART], ca=authority.ca)
        assert isinstance(caught.value, ResponseInvalid | OriginNotAllowed)
        assert TOKEN not in str(caught.value)
