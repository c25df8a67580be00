# SPDX-License-Identifier: Apache-2.0
"""D7 for the client: whatever it needs from a registry fails, and it refuses (GHSA-2v5f-5r6w-p67r).

Every request a pull makes x timeout, 429, 500, 503, junk, an empty answer, a cut connection. No answer is ever taken
for permission, and an earlier answer never stands in for one that is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pq_registry.client.pull import pull
from pq_registry.client.resolve import resolve
from pq_registry.client.source import RemoteSource
from pq_registry.client.verify import verify_remote
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import PqregError, TransportError
from pq_registry.format.name import Reference
from tests.fake_registry import Handler, serving
from tests.pull_site import Site, final_names
from tests.samples import publisher, tag_statement

FILES = {"a.txt": b"a" * 100, "b.bin": b"b" * 3_000_000}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        site = Site(registry, tmp_path)
        digest = site.add(FILES)
        registry.tags["v1"] = sign_envelope(tag_statement(digest).encode(), publisher()).encode()
        yield site


def silent(handler: Handler) -> bool:
    threading.Event().wait(1)
    handler.close_connection = True
    return True


def cut(handler: Handler) -> bool:
    handler.close_connection = True
    return True


def no_content(handler: Handler) -> bool:
    handler.send_response(204)
    handler.end_headers()
    return True


def status(number: int, body: bytes = b"", kind: str = "application/json") -> Callable[[Handler], bool]:
    return lambda handler: handler.send(number, body, kind)


FAILURES: dict[str, Callable[[Handler], bool]] = {
    "timeout": silent,
    "cut": cut,
    "429": status(429),
    "500": status(500, b"Traceback (most recent call last):", "text/plain"),
    "503": status(503),
    "junk": status(200, b"\xff\x00 junk"),
    "empty": status(200),
    "html": status(200, b"<html>please log in</html>", "text/html"),
    "true": status(200, b"true"),
    "object": status(200, b"{}"),
    "no content": no_content,
    "401": status(401),
    "404": status(404),
}
REQUESTS = ("/tags/", "/releases/", "/statements/", "/blobs/")


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("request_line", REQUESTS)
def test_d07_a_pull_refuses_when_any_answer_is_missing(site: Site, request_line: str, failure: str) -> None:
    # An honest pull first, elsewhere: nothing of it may help.
    site.pull("v1", site.home / "before")
    site.registry.rules[request_line] = FAILURES[failure]
    with site.client(timeout=0.2) as client, RemoteSource(client) as source, pytest.raises(PqregError):
        resolved = resolve(Reference.parse("acme/minilm:v1"), client, site.verifier, site.seen)
        pull(resolved, source, site.out)
    assert final_names(site.out) == set() if site.out.exists() else True


@pytest.mark.parametrize("failure", sorted(FAILURES.keys() - {"junk", "empty", "html", "true", "object", "no content"}))
def test_d07_verifying_a_registrys_copy_refuses_when_a_size_is_missing(site: Site, failure: str) -> None:
    resolved = site.resolve("v1")
    site.registry.rules["HEAD "] = FAILURES[failure]
    with site.client(timeout=0.2) as client, pytest.raises(PqregError):
        verify_remote(resolved, client)


@pytest.mark.parametrize("failure", sorted(FAILURES.keys() - {"404"}))
def test_d07_a_tag_that_cannot_be_read_is_not_an_absent_tag(site: Site, failure: str) -> None:
    """Push asks for the current tag; only an honest 404 may mean that there is none."""
    site.registry.rules["/tags/"] = FAILURES[failure]
    reference = Reference.parse("acme/minilm:v1")
    assert reference.tag is not None
    with site.client(timeout=0.2) as client:
        try:
            answer = client.tag_envelope(reference.repository, reference.tag)
        except PqregError:
            return
    assert answer is not None
    with pytest.raises(PqregError):
        site.verifier.tag(answer, reference, None)


@pytest.mark.parametrize("failure", sorted(FAILURES.keys() - {"404"}))
def test_d07_a_question_about_missing_blobs_has_no_default_answer(site: Site, failure: str) -> None:
    def rule(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        return FAILURES[failure](handler)

    site.registry.rules["POST "] = rule
    resolved = site.resolve("v1")
    name = Reference.parse("acme/minilm").repository
    with site.client(timeout=0.2) as client, pytest.raises((TransportError, PqregError)):
        client.missing(name, [entry.sha256 for entry in resolved.verified.release.manifest.files])
