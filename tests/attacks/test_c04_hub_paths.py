# SPDX-License-Identifier: Apache-2.0
"""C4, C5: hostile revisions and paths in the Hub's protocol, whose paths are taken apart before they are decoded."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.hub_site import HubSite, hub_site

HOSTILE = (
    "..%2F..%2Fadmin.token",
    "%2e%2e%2fadmin.token",
    "../../../../etc/passwd",
    "%2Fetc%2Fpasswd",
    "config.json%00",
    "%00",
    "config.json%0d%0aX-Evil:%201",
    "%0aSet-Cookie:%20pqreg=1",
    "%FF%FE",
    "%ED%A0%80",
    "a" * 5000,
    "config.json/",
    "./config.json",
    "config.json%2F..%2Fconfig.json",
    "CONFIG.JSON",
    "%E2%80%AEnosj.gifnoc",
    "sha256:" + "0" * 64,
    "%25%32%66",
    "{path}",
    "'%20OR%201=1--",
)
TEMPLATES = (
    "/acme/minilm/resolve/main/{}",
    "/acme/minilm/resolve/{}/config.json",
    "/acme/minilm/raw/main/{}",
    "/api/models/acme/minilm/revision/{}",
    "/api/models/acme/minilm/tree/main/{}",
    "/api/models/acme/minilm/tree/{}",
    "/api/models/acme/minilm/commits/{}",
    "/api/models/acme/{}",
    "/api/models/{}/minilm",
    "/{}/minilm/resolve/main/config.json",
    "/acme/{}",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("hostile") / "registry") as site:
        yield site


def raw(site: HubSite, target: str) -> bytes:
    """One request with exactly this target: clients in libraries would mend it."""
    host, port = site.url.removeprefix("http://").split(":")
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {site.token}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(head.encode("ascii"))
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("template", TEMPLATES)
def test_nothing_but_a_refusal(site: HubSite, template: str) -> None:
    for hostile in HOSTILE:
        answer = raw(site, template.replace("{}", hostile))
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
        assert 400 <= status < 500, (hostile, head)
        assert not names & {b"x-evil", b"set-cookie", b"location"}, (hostile, head)
        assert b"root:" not in body
        assert site.token.encode() not in body


def test_the_same_paths_as_they_should_be(site: HubSite) -> None:
    """The control: what is asked for properly is there, and only then."""
    for template in (TEMPLATES[0], TEMPLATES[2]):
        status = int(raw(site, template.replace("{}", "config.json")).split(b" ")[1])
        assert status in (200, 302)


def test_bodies_and_headers_do_not_repeat_what_a_terminal_would_obey(site: HubSite) -> None:
    for hostile in ("%1b[2J", "%07", "%C2%9B31m", "%E2%80%AE"):
        for template in TEMPLATES[:2]:
            answer = raw(site, template.replace("{}", hostile))
            assert not [byte for byte in answer if byte < 32 and byte not in (9, 10, 13)], (hostile, answer)
            assert "\u202e".encode() not in answer
