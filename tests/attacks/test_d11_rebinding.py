# SPDX-License-Identifier: Apache-2.0
"""D11: a page that reaches a service on loopback through its reader's browser (CVE-2024-28224)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.errors import SettingError
from pq_registry.server.config import ServerConfig, is_loopback
from pq_registry.settings import Settings
from tests.server_harness import RunningRegistry, running

FOREIGN = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0",
           "169.254.169.254", "2130706433", "127.1", "[::ffff:7f00:1]", "localhost@evil.example", "",
           "127.0.0.1, evil"]  # fmt: skip


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """The worst case: everyone may read, so that a browser needs no token."""
    with running(tmp_path_factory.mktemp("public") / "registry", public_read=True) as registry:
        yield registry


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/v1/repos", "/livez", "/metrics", "/nowhere"])
def test_other_names_are_refused(public: RunningRegistry, host: str, path: str) -> None:
    answer = public.with_token(None).get(path, {"Host": host})
    assert answer.code == "misdirected-request"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8470", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8470", "localhost."]
)
def test_loopback_names_are_answered(public: RunningRegistry, host: str) -> None:
    assert public.with_token(None).get("/v1/repos", {"Host": host}).status == 200


def test_exactly_one_host_is_named(public: RunningRegistry) -> None:
    connection = public.connect()
    connection.putrequest("GET", "/v1/repos", skip_host=True)
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()
    connection = public.connect()
    connection.putrequest("GET", "/v1/repos")
    connection.putheader("Host", "localhost")
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "Forwarded", "X-Host", "X-Original-Host"])
def test_forwarding_headers_change_nothing(public: RunningRegistry, name: str) -> None:
    assert public.get("/v1/repos", {"Host": "evil.example", name: "localhost"}).status == 421
    assert public.get("/v1/repos", {name: "evil.example"}).status == 200


def test_no_answer_allows_another_origin(public: RunningRegistry) -> None:
    for verb in ("GET", "OPTIONS", "POST"):
        headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST",
                   "Access-Control-Request-Headers": "authorization"}  # fmt: skip
        answer = public.request(verb, "/v1/repos", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("listen", "hosts", "expected"),
    [
        ("127.0.0.1:0", None, {"localhost", "127.0.0.1", "::1"}),
        ("127.0.0.2:0", None, {"localhost", "127.0.0.1", "::1", "127.0.0.2"}),
        ("[::1]:0", None, {"localhost", "127.0.0.1", "::1"}),
        ("localhost:0", None, {"localhost", "127.0.0.1", "::1"}),
        ("0.0.0.0:0", None, None),
        ("127.0.0.1:0", "models.example.org, Other.example", {"models.example.org", "other.example"}),
        ("0.0.0.0:0", "models.example.org", {"models.example.org"}),
    ],
)
def test_which_names_are_answered(listen: str, hosts: str | None, expected: set[str] | None) -> None:
    settings = Settings({"data": "d", "listen": listen, "hosts": hosts}, environment={}, config_file=Path("/nowhere"))
    assert ServerConfig.from_settings(settings).hosts == expected


@pytest.mark.parametrize("hosts", ["a,,b", " ", "http://a", "a/b", "a b"])
def test_malformed_names_are_refused(hosts: str) -> None:
    settings = Settings({"data": "d", "hosts": hosts}, environment={}, config_file=Path("/nowhere"))
    with pytest.raises(SettingError):
        ServerConfig.from_settings(settings)


def test_what_counts_as_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.example"]))
