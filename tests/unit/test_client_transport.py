# SPDX-License-Identifier: Apache-2.0
"""The registry as an object: routes, retries, what problems become, and what is refused."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from pq_registry import limits
from pq_registry.client.exchange import pause_before
from pq_registry.client.origin import Origin, parse_location, parse_registry
from pq_registry.client.problems import refusal
from pq_registry.client.rate import TokenBucket
from pq_registry.client.resolve import resolve_tag
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.errors import (
    AccessDenied,
    Conflict,
    ConnectionFailed,
    FileDigestMismatch,
    NotAuthenticated,
    NotFound,
    PqregError,
    ResponseInvalid,
    SequenceUsed,
    ServerRefused,
    SettingError,
    ShardMismatch,
)
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace, Reference, RepositoryName, Tag
from tests.fake_registry import FakeRegistry, Handler, serving

ORIGIN = Origin("https", "models.example.org", 443)

NAME = RepositoryName.parse("acme/minilm")
DIGEST = Digest.of(b"x")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with serving() as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(registry: FakeRegistry, pauses: list[float]) -> Iterator[RegistryClient]:
    with RegistryClient(registry.url, "the-token", sleep=pauses.append) as made:
        yield made


def answering(status: int, body: object = None, *, times: int = 10**6, headers: dict[str, str] | None = None):
    left = [times]

    def rule(handler: Handler) -> bool:
        if not left[0]:
            return False
        left[0] -= 1
        length = int(handler.headers.get("Content-Length") or 0)
        handler.rfile.read(length)
        handler.send(status, b"" if body is None else json.dumps(body).encode(), headers=headers)
        return True

    return rule


def test_every_request_carries_the_token_and_asks_for_no_compression(client: RegistryClient, registry) -> None:
    assert client.whoami().role == "reader"
    (seen,) = registry.seen
    assert seen.line == "GET /v1/whoami"
    assert seen.headers["authorization"] == "Bearer the-token"
    assert seen.headers["accept-encoding"] == "identity"
    assert set(seen.headers) == {"host", "user-agent", "accept-encoding", "authorization"}


def test_connections_are_kept_and_a_closed_one_costs_no_attempt(client, registry, pauses) -> None:
    def close_after(handler: Handler) -> bool:
        handler.close_connection = True
        return False

    registry.rules["whoami"] = close_after  # without saying "Connection: close"
    for _ in range(5):
        client.whoami()
    assert not pauses


def test_the_prefix_of_the_registry_is_kept(registry) -> None:
    registry.rules["GET /base/v1/whoami"] = answering(200, {"role": "admin", "namespaces": [], "expires": None})
    with RegistryClient(registry.url + "/base/") as client:
        assert client.whoami().role == "admin"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(client, registry, pauses, status: int) -> None:
    registry.rules["whoami"] = answering(status, times=limits.ATTEMPTS - 1)
    assert client.whoami().role == "reader"
    assert len(pauses) == limits.ATTEMPTS - 1
    assert pauses == sorted(pauses)


def test_retry_after_is_honoured_within_bounds() -> None:
    assert pause_before(2, "3") == 3
    assert pause_before(2, "86400") == limits.RETRY_AFTER_SECONDS
    assert pause_before(2, "99999999999999") == limits.RETRY_AFTER_SECONDS
    for junk in ("soon", "-1", "1.5", "\u0661", ""):
        assert pause_before(2, junk) < 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 418, 422, 501, 505])
def test_a_lasting_failure_is_not_tried_again(client, registry, pauses, status: int) -> None:
    registry.rules["whoami"] = answering(status)
    with pytest.raises(PqregError):
        client.whoami()
    assert not pauses
    assert len(registry.seen) == 1


def test_what_is_not_safe_to_repeat_is_sent_once(client, registry, pauses) -> None:
    registry.rules["POST /v1/tokens"] = answering(503)
    with pytest.raises(ServerRefused):
        client.create_token(role="reader", namespaces=["acme"], expires_days=1)
    assert len(registry.seen) == 1
    assert not pauses


def test_nobody_listening_is_a_connection_failure() -> None:
    with (
        RegistryClient("http://127.0.0.1:1", sleep=lambda _: None) as client,
        pytest.raises(ConnectionFailed) as caught,
    ):
        client.whoami()
    assert "127.0.0.1:1" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("status", "problem", "changing", "kind"),
    [
        (401, None, False, NotAuthenticated),
        (403, None, False, AccessDenied),
        (404, None, False, ServerRefused),  # a proxy's, or a wrong URL
        (404, "not-found", False, NotFound),
        (200, "not-found", False, ServerRefused),
        (409, None, True, Conflict),
        (409, None, False, ServerRefused),  # nothing was to change, so policy has nothing to refuse
        (409, "sequence-used", False, ServerRefused),
        (400, None, True, ServerRefused),
        (500, None, False, ServerRefused),
        (409, "sequence-used", True, SequenceUsed),
        (422, "shard-mismatch", True, ShardMismatch),
        (422, "file-digest-mismatch", True, FileDigestMismatch),
        (422, "shard-mismatch", False, ServerRefused),  # a GET cannot pose as a verification of ours
        (422, "tag-rollback", False, ServerRefused),
        (403, "no-such-class", True, AccessDenied),
        (404, "pqreg-error", True, ServerRefused),
    ],
)
def test_a_problem_becomes_an_error_of_the_tree(status, problem, changing, kind) -> None:
    body = b"{}" if problem is None else json.dumps({"type": f"/problems/{problem}", "detail": "no"}).encode()
    error = refusal(
        status, "application/problem+json; charset=utf-8", body, what="GET /x", origin=ORIGIN, changing=changing
    )
    assert type(error) is kind
    assert "the registry at https://models.example.org refused GET /x" in str(error)


def test_a_problem_keeps_its_fields_and_loses_its_terminal_codes() -> None:
    body = json.dumps(
        {"detail": "a\x1b[31mb\r\n", "expected": 5, "found": "x" * 9999, "hint": "h\x07", "step": 6, "instance": "id"}
    ).encode()
    error = refusal(422, "application/problem+json", body, what="GET /x", origin=ORIGIN, changing=False)
    assert error.expected == "5"
    assert len(error.found or "") == 300
    assert error.step == 6
    assert (str(error) + (error.hint or "")).isprintable()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"type": 5, "detail": [1], "step": true}', b"\xff\xfe", b"nul\0"])
def test_a_problem_that_is_none_is_still_a_refusal(body: bytes) -> None:
    error = refusal(503, "application/problem+json", body, what="GET /x", origin=ORIGIN, changing=True)
    assert isinstance(error, ServerRefused)
    assert error.step is None


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x", "http://", "https://user:secret@host", "https://host/?q=1", "https://host#f", "https://host:99999",
        "https://host:0", "https://ho st", "https://h\nost", "host", "https://host?", "http://[::1", "//host", "",
        "https://h%6fst", "https://exämple.org",
    ],
)  # fmt: skip
def test_a_malformed_registry_url_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_registry(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "origin", "prefix"),
    [
        ("https://Host.Example.", Origin("https", "host.example", 443), ""),
        ("http://127.0.0.1:8470/", Origin("http", "127.0.0.1", 8470), ""),
        ("https://[::1]:8443/a/b/", Origin("https", "::1", 8443), "/a/b"),
    ],
)
def test_origins_are_normalised(url: str, origin: Origin, prefix: str) -> None:
    assert parse_registry(url) == (origin, prefix)


def test_a_location_keeps_its_query_and_never_leaves_tls() -> None:
    https = Origin("https", "a", 443)
    assert parse_location("https://b:444/k?X-Sig=1&y#frag", https) == (Origin("https", "b", 444), "/k?X-Sig=1&y")
    for bad in ("http://b/", "/relative", "//b/x", "https://u:p@b/", "javascript:x", "https://b/" + "x" * 9000, None):
        with pytest.raises(ResponseInvalid) as caught:
            parse_location(bad, https)
        assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "with space", "line\nbreak", "\u00e9", "tab\t"])
def test_a_token_that_could_break_a_header_is_refused(token: str) -> None:
    with pytest.raises(SettingError) as caught:
        RegistryClient("http://127.0.0.1", token)
    assert not token or token not in str(caught.value)


def test_a_part_goes_up_whole_with_its_shard_digests(client, registry) -> None:
    body = os.urandom(3_000_000)
    got = []

    def rule(handler: Handler) -> bool:
        got.append(handler.rfile.read(int(handler.headers["Content-Length"])))
        handler.send_response(204)
        handler.end_headers()
        return True

    registry.rules["PUT"] = rule
    client.put_part(NAME, "up load/1", 3, memoryview(body), b"\x01" * 32)
    assert got == [body]
    assert registry.seen[0].line == "PUT /v1/repos/acme/minilm/uploads/up%20load%2F1/parts/3"
    assert registry.seen[0].headers["pqreg-shards"] == "AQEB" * 10 + "AQE="


def test_a_refusal_before_the_body_was_read_is_understood(client, registry) -> None:
    def rule(handler: Handler) -> bool:
        handler.close_connection = True
        handler.problem(403, "access-denied", detail="no uploads here")
        return True

    registry.rules["PUT"] = rule
    with pytest.raises((AccessDenied, ConnectionFailed)):  # the kernel may discard the answer with the reset
        client.put_part(NAME, "u", 0, memoryview(bytearray(32_000_000)), b"")


def test_missing_asks_in_pages_and_believes_only_what_was_asked(client, registry) -> None:
    digests = [Digest.of(str(number).encode()) for number in range(limits.MISSING_QUERY_DIGESTS + 5)]

    def rule(handler: Handler) -> bool:
        asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))["digests"]
        assert len(asked) <= limits.MISSING_QUERY_DIGESTS
        handler.json({"missing": asked[::2]})
        return True

    registry.rules["POST"] = rule
    assert len(client.missing(NAME, digests)) == limits.MISSING_QUERY_DIGESTS // 2 + 3
    registry.rules["POST"] = answering(200, {"missing": [str(DIGEST)]})
    with pytest.raises(ResponseInvalid):
        client.missing(NAME, digests)


def test_an_absent_tag_is_none_and_an_absent_content_is_nothing(client) -> None:
    assert client.tag_envelope(NAME, Tag("v1")) is None
    assert client.releases_with_content(NAME, DIGEST) == ()


@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/problem+json"])
def test_a_404_that_is_not_the_registrys_word_says_nothing_about_a_tag(client, registry, kind: str) -> None:
    registry.rules["/tags/"] = lambda handler: handler.send(404, b'{"title": "no"}', kind) or True
    with pytest.raises(ServerRefused):
        client.tag_envelope(NAME, Tag("v1"))


def test_a_head_without_a_body_can_say_that_nothing_is_there(client, registry) -> None:
    with pytest.raises(NotFound):
        client.blob_size(DIGEST)


def test_a_missing_tag_is_told_in_the_registrys_words(client, registry) -> None:
    words = {"type": "/problems/not-found", "detail": "no repository ACME/m", "hint": "it is written acme/m"}
    body = json.dumps(words).encode()
    registry.rules["/tags/"] = lambda handler: handler.send(404, body, "application/problem+json") or True
    with pytest.raises(NotFound) as caught:
        resolve_tag(Reference.parse("ACME/m:v1"), client, cast("Verifier", None), cast("SeenTags", None))
    assert "no repository ACME/m" in str(caught.value)
    assert caught.value.hint == "it is written acme/m"


def test_listings_are_parsed(client, registry) -> None:
    registry.rules["GET /v1/repos?namespace=acme&limit=2"] = answering(
        200,
        {"items": [{"name": "acme/a", "releases": 1, "tags": 0, "updated": None, "new-field": 1}], "next": "acme/a"},
    )
    page = client.repos(namespace=Namespace("acme"), limit=2)
    assert (page.items[0].name, page.next) == (RepositoryName.parse("acme/a"), "acme/a")
    registry.rules["identities"] = answering(200, {"items": [{"id": "ab", "public": "-----BEGIN"}]})
    assert client.identities(Namespace("acme"))[0].id == "ab"


@pytest.mark.parametrize(
    "answer",
    [[], {}, {"role": 1}, {"role": "a\x1b[0m", "namespaces": [], "expires": None}, {"role": "a", "namespaces": "x"},
     {"role": "a", "namespaces": [], "expires": "tomorrow"}, None],
)  # fmt: skip
def test_an_answer_of_another_form_is_refused(client, registry, answer: object) -> None:
    registry.rules["whoami"] = answering(200, answer)
    with pytest.raises(ResponseInvalid) as caught:
        client.whoami()
    assert str(caught.value).isprintable()


def test_aborting_ends_requests_of_other_threads(client, registry) -> None:
    started, release = threading.Event(), threading.Event()

    def hang(_handler: Handler) -> bool:
        started.set()
        release.wait(20)
        return False

    registry.rules["whoami"] = hang
    errors = []

    def work() -> None:
        try:
            client.whoami()
        except PqregError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(10)
    client.abort()
    thread.join(10)
    release.set()
    assert isinstance(errors[0], ConnectionFailed)
    with pytest.raises(ConnectionFailed):
        client.whoami()


def test_the_bandwidth_cap_paces_and_forgets_no_more_than_its_burst() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    bucket = TokenBucket(1000, clock=lambda: now[0], sleep=sleep)
    for _ in range(10):
        bucket.take(100)
    assert now[0] == pytest.approx(1.0)
    now[0] += 100  # idle time is not saved up
    before = now[0]
    bucket.take(1000)
    assert now[0] - before == pytest.approx(1 - limits.RATE_BURST_SECONDS)
    assert max(slept) <= limits.RATE_NAP_SECONDS
    bucket.take(10**9, stopped=lambda: True)
    TokenBucket(0, sleep=lambda _: pytest.fail("no cap, no sleep")).take(10**12)


def test_the_cap_holds_for_what_is_sent(registry) -> None:
    registry.rules["PUT"] = lambda handler: (
        bool(handler.rfile.read(int(handler.headers["Content-Length"]))) and (handler.send(200, b"{}"))
    )
    now = [0.0]
    bucket = TokenBucket(1_000_000, clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    with RegistryClient(registry.url, rate=bucket) as client:
        client.put_part(NAME, "u", 0, memoryview(bytearray(2_000_000)), b"")
    assert now[0] == pytest.approx(2.0, rel=0.2)
