# SPDX-License-Identifier: Apache-2.0
"""The wrapper of ``huggingface_hub``: names, errors as ours, patience, and what is never told."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pq_registry import limits
from pq_registry.errors import (
    AccessDenied,
    Conflict,
    ConnectionFailed,
    EntryNotFound,
    NameSyntaxError,
    NotAuthenticated,
    NotFound,
    PqregError,
    QuotaExceeded,
    ResponseInvalid,
    RevisionNotFound,
    ServerRefused,
    SettingError,
    StorageError,
    TooManyRequests,
    UsageError,
)
from pq_registry.mirror.hub import Hub, HubReference


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The suite keeps this library offline; here it speaks to servers of the tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


TOKEN = "hf_canary_0123456789"


@contextmanager
def canned(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that gives these answers in turn, the last one for ever, and what it was asked with which token."""
    left = list(answers)
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(url: str, **options) -> object:
    hub = Hub(url, TOKEN, **options)
    return hub.patiently(lambda: hub.api.model_info("acme/minilm"), what="reading acme/minilm")


INFO = (200, {"Content-Type": "application/json"}, json.dumps({"id": "acme/minilm", "sha": "0" * 40}).encode())


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("hf://acme/minilm", "acme/minilm", "main"),
        ("hf://acme/minilm@v1.0", "acme/minilm", "v1.0"),
        ("hf://gpt2@" + "0" * 40, "gpt2", "0" * 40),
        ("hf://acme/minilm@refs/pr/3", "acme/minilm", "refs/pr/3"),
        ("hf://_acme/Mini_LM.v2", "_acme/Mini_LM.v2", "main"),
    ],
)
def test_references_are_read(text, repository, revision):
    reference = HubReference.parse(text)
    assert (reference.repository, reference.revision) == (repository, revision)
    assert HubReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "acme/minilm", "hf://", "hf://@main", "hf://a/b/c", "hf://acme/../x", "hf://acme/mini--lm", "hf://acme/minilm@",
        "hf://acme/minilm@a@b", "hf://acme/minilm@../x", "hf://acme/minilm@a//b", "hf://acme/minilm@x/", "hf://datasets/x",
        "hf://acme/mini lm", "hf://acme/minilm.git", "hf://acme/minilm?x=1", "HF://acme/minilm", "hf://acme/minilm\n",
        "hf://user:pw@host/x", "hf://acme/minilm@" + "a" * 201, "hf://" + "a" * 97,
    ],
)  # fmt: skip
def test_other_references_are_refused(text):
    with pytest.raises(NameSyntaxError):
        HubReference.parse(text)


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (401, {}, NotAuthenticated),
        (401, {"X-Error-Code": "RepoNotFound"}, NotFound),
        (403, {"X-Error-Code": "GatedRepo"}, AccessDenied),
        (403, {}, AccessDenied),
        (404, {"X-Error-Code": "RepoNotFound"}, NotFound),
        (404, {"X-Error-Code": "RevisionNotFound"}, RevisionNotFound),
        (404, {"X-Error-Code": "EntryNotFound"}, EntryNotFound),
        (404, {}, NotFound),
        (409, {}, Conflict),
        (412, {}, Conflict),
        (413, {}, QuotaExceeded),
        (400, {}, ServerRefused),
        (500, {}, ServerRefused),
    ],
)
def test_what_a_hub_refuses_is_an_error_of_ours(status, headers, kind):
    answer = (status, {**headers, "X-Error-Message": "because"}, b"{}")
    with canned(answer) as (url, _asked), pytest.raises(PqregError) as caught:
        ask(url, sleep=lambda _seconds: None)
    assert type(caught.value) is kind
    assert f"HTTP {status}: because" in (caught.value.found or "")
    assert "reading acme/minilm" in caught.value.message


def test_a_hub_that_asks_for_patience_is_given_it():
    slept: list[float] = []
    with canned(
        (429, {"RateLimit": '"api";r=0;t=54'}, b""),
        (429, {"Retry-After": "7"}, b""),
        (429, {"Retry-After": "99999"}, b""),
        (503, {}, b""),
        INFO,
    ) as (url, asked):
        assert ask(url, sleep=slept.append).sha == "0" * 40  # type: ignore[attr-defined]
    assert slept == [55, 7, limits.HUB_PAUSE_SECONDS, 1]
    assert len(asked) == 5


def test_patience_ends():
    slept: list[float] = []
    with canned((429, {"Retry-After": "300"}, b"")) as (url, _asked), pytest.raises(TooManyRequests):
        ask(url, sleep=slept.append)
    assert sum(slept) == limits.HUB_PATIENCE_SECONDS
    slept.clear()
    with canned((502, {}, b"")) as (url, asked), pytest.raises(ServerRefused):
        ask(url, sleep=slept.append)
    assert len(asked) == limits.ATTEMPTS


def test_what_may_have_been_carried_out_is_not_repeated():
    with canned((502, {}, b""), INFO) as (url, asked):
        hub = Hub(url, TOKEN, sleep=lambda _seconds: None)
        with pytest.raises(ServerRefused):
            hub.patiently(lambda: hub.api.model_info("acme/minilm"), repeatable=False)
    assert len(asked) == 1
    # A 429 says that it has not been.
    with canned((429, {"Retry-After": "1"}, b""), INFO) as (url, asked):
        hub = Hub(url, TOKEN, sleep=lambda _seconds: None)
        hub.patiently(lambda: hub.api.model_info("acme/minilm"), repeatable=False)
    assert len(asked) == 2


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"sha": 1}', b'{"id": "a/b", "siblings": 3}', b'"' * 99]
)
def test_answers_without_sense_are_named(body):
    with canned((200, {"Content-Type": "application/json"}, body)) as (url, _asked), pytest.raises(ResponseInvalid):
        ask(url, sleep=lambda _seconds: None)


def test_nobody_there():
    with canned(INFO) as (url, _asked):
        pass
    with pytest.raises(ConnectionFailed):
        ask(url, sleep=lambda _seconds: None)


def test_other_errors_have_their_place():
    hub = Hub("http://127.0.0.1:1", None)
    for error, kind in [
        (OSError(28, "No space left on device"), StorageError),
        (OSError("Consistency check failed"), ResponseInvalid),
        (KeyError("sha"), ResponseInvalid),
        (MemoryError(), StorageError),
        (ConnectionResetError(104, "reset"), ConnectionFailed),
    ]:
        with pytest.raises(kind), hub.translate():
            raise error
    with pytest.raises(UsageError), hub.translate():
        hub.api.model_info("a/b/c/d")
    with pytest.raises(KeyboardInterrupt), hub.translate():
        raise KeyboardInterrupt


def test_no_token_but_the_one_given_is_sent(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another_hub")
    with canned(INFO) as (url, asked):
        hub = Hub(url)
        hub.patiently(lambda: hub.api.model_info("acme/minilm"))
        ask(url)
    assert [sent for _path, sent in asked] == [None, f"Bearer {TOKEN}"]


@pytest.mark.parametrize("token", ["", "two words", "tok\nen", "tökén"])
def test_malformed_tokens_are_refused_and_not_shown(token):
    with pytest.raises(SettingError) as caught:
        Hub("https://hub.example", token)
    assert not token or token not in str(caught.value)


def test_a_token_does_not_travel_in_the_clear():
    with pytest.raises(SettingError, match="unencrypted"):
        Hub("http://hub.example", TOKEN)
    assert TOKEN not in repr(Hub("https://hub.example", TOKEN))


def test_secrets_stay_out_of_what_is_said(caplog, capfd):
    caplog.set_level(logging.INFO)
    logging.getLogger("huggingface_hub").setLevel(logging.WARNING)
    signed = "https://storage.example/x?X-Amz-Signature=c0ffee"
    answer = (503, {"X-Error-Message": f"see {signed}"}, signed.encode())
    with canned(answer) as (url, _asked), pytest.raises(ServerRefused) as caught:
        ask(url, sleep=lambda _seconds: None)
    # As the library does when it asks again where it was redirected to.
    logging.getLogger("huggingface_hub.utils._http").warning("thrown while requesting GET %s", signed)
    said = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    assert "c0ffee" not in said
    assert TOKEN not in said
