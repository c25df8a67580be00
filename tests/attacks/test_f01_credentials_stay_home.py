# SPDX-License-Identifier: Apache-2.0
"""F1: a token goes to the configured origin and nowhere else, whatever the registry answers.

A canary token, every redirect status, and targets that differ in host, port or scheme, or not at all; for control
requests, uploads and data. Custom headers are held to the same rule as Authorization.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pq_registry.client.places import parse_origins
from pq_registry.client.ranges import RangeReader
from pq_registry.client.transport import RegistryClient, blob_path
from pq_registry.errors import NotAuthenticated, OriginNotAllowed, PqregError, ResponseInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName, Tag
from tests.fake_registry import FakeRegistry, Handler, serving
from tests.tls_server import Authority, serving_tls

CANARY = "canary-3f9a1c"
SECRET_QUERY = "X-Amz-Signature=deadbeefcafe"
NAME = RepositoryName.parse("acme/minilm")
BLOB = b"content" * 1000
STATUSES = (301, 302, 303, 307, 308)
pytestmark = pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2", "::1"])
TARGETS = ("host", "port", "scheme", "same")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def home() -> Iterator[FakeRegistry]:
    with serving() as registry:
        yield registry


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest, authority: Authority, home: FakeRegistry) -> Iterator[FakeRegistry]:
    """Where the redirect leads; it has the blob and accepts everything."""
    target = request.param
    if target == "same":
        yield home
        return
    certificate = authority.issue("127.0.0.1")
    server = (
        serving_tls(certificate)
        if target == "scheme"
        else serving(host="127.0.0.2" if target == "host" else "127.0.0.1")
    )
    with server as registry:
        yield registry


def redirect(home: FakeRegistry, elsewhere: FakeRegistry, status: int) -> None:
    elsewhere.add_blob(BLOB)

    def rule(handler: Handler) -> bool:
        if "/target" in handler.path:
            handler.path = handler.path.partition("?")[0].replace("/target", "")
            handler.route()
            return True
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        location = f"{elsewhere.url}/target{handler.path}?{SECRET_QUERY}"
        handler.send(status, b"", headers={"Location": location})
        return True

    home.rules["/"] = rule
    elsewhere.rules["/"] = rule


def strangers(home: FakeRegistry, elsewhere: FakeRegistry) -> list[dict[str, str]]:
    """The headers of all requests that did not go where the token belongs, or went there redirected."""
    registries = [home] if home is elsewhere else [home, elsewhere]
    return [seen.headers for registry in registries for seen in registry.seen if "/target" in seen.line]


CONTROL: dict[str, Callable[[RegistryClient], object]] = {
    "whoami": lambda client: client.whoami(),
    "envelope": lambda client: client.statement(Digest.of(b"x")),
    "tag": lambda client: client.tag_envelope(NAME, Tag("v1")),
    "size": lambda client: client.blob_size(Digest.of(BLOB)),
    "part": lambda client: client.put_part(NAME, "u", 0, b"part", b""),
    "release": lambda client: client.post_release(NAME, b"{}"),
    "tag put": lambda client: client.put_tag(NAME, Tag("v1"), b"{}"),
    "log file": lambda client: client.log_file("checkpoint"),
    "log entries": lambda client: client.log_entries(),
    "status": lambda client: client.status_envelope(NAME.namespace),
    "status put": lambda client: client.put_status(NAME.namespace, b"{}"),
    "upload": lambda client: client.open_upload(NAME, Digest.of(BLOB), 3),
    "part signed": lambda client: client.sign_part(NAME, "u", 0, Digest.of(BLOB)),
    "completion": lambda client: client.complete_upload(NAME, "u"),
    "about": lambda client: client.storage_origins(),
    "token": lambda client: client.create_token(role="reader", namespaces=[], expires_days=1),
    "revoke": lambda client: client.revoke_token("t"),
}


@pytest.mark.parametrize("elsewhere", TARGETS, indirect=True)
@pytest.mark.parametrize("status", STATUSES)
def test_f01_no_control_request_and_no_upload_follows_a_redirect(
    home: FakeRegistry, elsewhere: FakeRegistry, authority: Authority, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    redirect(home, elsewhere, status)
    for ask in CONTROL.values():
        with (
            RegistryClient(home.url, CANARY, ca=authority.ca, sleep=lambda _: None) as client,
            pytest.raises(ResponseInvalid) as caught,
        ):
            ask(client)
        assert SECRET_QUERY not in str(caught.value) + str(caught.value.hint) + caplog.text
    assert not strangers(home, elsewhere)
    if elsewhere is not home:
        assert not elsewhere.seen


@pytest.mark.parametrize("elsewhere", TARGETS, indirect=True)
@pytest.mark.parametrize("status", STATUSES)
def test_f01_data_follows_one_redirect_with_nothing_of_ours(
    home: FakeRegistry, elsewhere: FakeRegistry, authority: Authority, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    redirect(home, elsewhere, status)
    origins = parse_origins(elsewhere.url)
    with RegistryClient(home.url, CANARY, ca=authority.ca, sleep=lambda _: None, storage_origins=origins) as client:
        assert client.blob_bytes(Digest.of(BLOB), len(BLOB)) == BLOB
        reader = RangeReader(client.exchanger)
        buffer = bytearray(500)
        reader.read_into(blob_path(Digest.of(BLOB)), 100, memoryview(buffer), size=len(BLOB))
        reader.close()
    assert bytes(buffer) == BLOB[100:600]
    allowed = {"host", "user-agent", "accept-encoding", "range"}
    assert [set(headers) - allowed for headers in strangers(home, elsewhere)] == [set(), set()]
    assert CANARY not in str(strangers(home, elsewhere))
    assert SECRET_QUERY not in caplog.text


@pytest.mark.parametrize("elsewhere", ["host"], indirect=True)
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("allowed", [None, "https://127.0.0.2", "http://127.0.0.2:1", "http://127.0.0.3"])
def test_f01_data_goes_to_no_host_that_nobody_allowed(
    home: FakeRegistry, elsewhere: FakeRegistry, status: int, allowed: str | None
) -> None:
    redirect(home, elsewhere, status)
    with RegistryClient(home.url, CANARY, sleep=lambda _: None, storage_origins=parse_origins(allowed)) as client:
        with pytest.raises(OriginNotAllowed) as first:
            client.blob_bytes(Digest.of(BLOB), len(BLOB))
        reader = RangeReader(client.exchanger)
        with pytest.raises(OriginNotAllowed) as second:
            reader.read_into(blob_path(Digest.of(BLOB)), 0, memoryview(bytearray(10)), size=len(BLOB))
        reader.close()
    assert not elsewhere.seen
    assert len(home.seen) == 2  # and it is not tried again
    for caught in (first, second):
        assert elsewhere.url in str(caught.value)
        assert f"PQREG_STORAGE_ORIGINS={elsewhere.url}" in str(caught.value.hint)
        assert SECRET_QUERY not in f"{caught.value} {caught.value.hint} {caught.value.__dict__}"


@pytest.mark.parametrize("elsewhere", TARGETS, indirect=True)
def test_f01_a_second_redirect_is_refused(
    home: FakeRegistry, elsewhere: FakeRegistry, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    home.add_blob(BLOB)

    def on(handler: Handler) -> bool:
        handler.send(302, b"", headers={"Location": f"{elsewhere.url}/target/again?{SECRET_QUERY}"})
        return True

    home.rules["/"] = elsewhere.rules["/"] = on
    with RegistryClient(home.url, CANARY, ca=authority.ca, sleep=lambda _: None) as client:
        with pytest.raises(PqregError) as first:
            client.blob_bytes(Digest.of(BLOB), len(BLOB))
        reader = RangeReader(client.exchanger)
        with pytest.raises(PqregError) as second:
            reader.read_into(blob_path(Digest.of(BLOB)), 0, memoryview(bytearray(10)), size=len(BLOB))
        reader.close()
    assert CANARY not in str(strangers(home, elsewhere))
    assert SECRET_QUERY not in f"{first.value} {second.value} {caplog.text}"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:1/", "/v1/elsewhere", "//127.0.0.2/", "ftp://127.0.0.1/", f"https://u:{CANARY}@127.0.0.1/",
        "file:///etc/passwd", "", "https://", "https://127.0.0.1:70000/", "https://127.0.0.1/\x7f",
    ],
)  # fmt: skip
def test_f01_from_tls_nothing_leads_to_less_and_odd_targets_lead_nowhere(authority: Authority, location: str) -> None:
    with serving_tls(authority.issue("127.0.0.1")) as home:
        home.rules["/"] = lambda handler: handler.send(302, b"", headers={"Location": location})
        with RegistryClient(home.url, CANARY, ca=authority.ca, sleep=lambda _: None) as client:
            with pytest.raises(PqregError) as caught:
                client.blob_bytes(Digest.of(BLOB), 10)
            reader = RangeReader(client.exchanger)
            with pytest.raises(PqregError):
                reader.read_into(blob_path(Digest.of(BLOB)), 0, memoryview(bytearray(10)), size=10)
            reader.close()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "challenge",
    ['Bearer realm="http://127.0.0.2:9/token",service="x"', "Basic realm=x", "Negotiate", 'Bearer realm="\x07"'],
)
def test_f01_a_challenge_is_not_followed(home: FakeRegistry, challenge: str) -> None:
    home.rules["/"] = lambda handler: handler.send(401, b"", headers={"WWW-Authenticate": challenge})
    with RegistryClient(home.url, CANARY, sleep=lambda _: None) as client, pytest.raises(NotAuthenticated) as caught:
        client.whoami()
    assert len(home.seen) == 1
    assert CANARY not in str(caught.value) + repr(client) + str(caught.value.__dict__)


def test_f01_the_locations_in_an_upload_answer_are_not_used(home: FakeRegistry) -> None:
    """An upload is addressed by its id, quoted, at the configured origin; no URL from an answer is ever requested."""
    answer = {"id": "http://127.0.0.2/../x?y", "part_size": 5, "parts": []}

    def rule(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.send(201, json.dumps(answer).encode(), headers={"Location": "http://127.0.0.2/"})
        return True

    home.rules["/"] = rule
    with RegistryClient(home.url, CANARY) as client:
        upload = client.open_upload(NAME, Digest.of(BLOB), 5)
        client.put_part(NAME, upload.id, 0, b"12345", b"")
    assert home.seen[1].line == "PUT /v1/repos/acme/minilm/uploads/http%3A%2F%2F127.0.0.2%2F..%2Fx%3Fy/parts/0"
