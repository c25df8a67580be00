# SPDX-License-Identifier: Apache-2.0
"""The client's side of the log's routes: receipts in answers, files of the log, statuses, the search."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pq_registry.client.transport import RegistryClient
from pq_registry.errors import NotFound, ResponseInvalid, ServerRefused, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace, Tag
from pq_registry.format.strict_json import encode_base64
from tests.fake_registry import FakeRegistry, Handler, serving
from tests.samples import REPOSITORY

ACME = Namespace("acme")
DIGEST = Digest.of(b"statement")


@pytest.fixture
def site() -> Iterator[FakeRegistry]:
    with serving() as registry:
        yield registry


@pytest.fixture
def client(site: FakeRegistry) -> Iterator[RegistryClient]:
    with RegistryClient(site.url, sleep=lambda _: None) as found:
        yield found


def answers(site: FakeRegistry, part: str, value: object, status: int = 200) -> None:
    def answer(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        return handler.json(value, status)

    site.rules[part] = answer


def test_a_statement_comes_with_its_receipt_or_without(site: FakeRegistry, client: RegistryClient) -> None:
    site.statements[DIGEST.hex] = b"envelope"
    assert client.statement(DIGEST) == (b"envelope", None)
    answers(site, "/v1/statements/", {"envelope": encode_base64(b"e"), "tlog_proof": encode_base64(b"proof")})
    assert client.statement(DIGEST) == (b"e", b"proof")


def test_what_is_put_is_answered_with_its_leaf(site: FakeRegistry, client: RegistryClient) -> None:
    logged = {"digest": str(DIGEST), "log_index": 7, "receipt": encode_base64(b"proof"), "quorum": True}
    answers(site, "PUT ", logged, 201)
    answers(site, "POST ", logged, 201)
    puts = [
        client.put_tag(REPOSITORY, Tag("v1"), b"{}"),
        client.put_grant(REPOSITORY, DIGEST, "ab" * 32, b"{}"),
        client.put_certificate(ACME, "ab" * 32, b"{}"),
        client.put_status(ACME, b"{}"),
        client.post_release(REPOSITORY, b"{}").logged,
    ]
    assert {(put.index, put.receipt, put.quorum) for put in puts} == {(7, b"proof", True)}


def test_a_registry_without_a_log_says_nothing_of_leaves(site: FakeRegistry, client: RegistryClient) -> None:
    answers(site, "PUT ", {"digest": str(DIGEST)}, 201)
    logged = client.put_tag(REPOSITORY, Tag("v1"), b"{}")
    assert (logged.index, logged.receipt, logged.quorum) == (None, None, False)


def test_an_index_without_a_receipt_is_no_answer(site: FakeRegistry, client: RegistryClient) -> None:
    answers(site, "PUT ", {"log_index": 7}, 201)
    with pytest.raises(ResponseInvalid):
        client.put_tag(REPOSITORY, Tag("v1"), b"{}")


def test_a_file_of_the_log_that_is_not_there_is_not_found_whoever_says_so(
    site: FakeRegistry, client: RegistryClient
) -> None:
    def file_server(handler: Handler) -> bool:
        if handler.path == "/log/checkpoint":
            return handler.send(200, b"note", "text/plain; charset=utf-8")
        return handler.send(404, b"<html>nginx</html>", "text/html")

    site.rules["/log/"] = file_server
    assert client.log_file("checkpoint") == b"note"
    with pytest.raises(NotFound):
        client.log_file("tile/0/x001/234.p/7")
    site.rules["/v1/statements"] = lambda handler: handler.send(404, b"<html>nginx</html>", "text/html")
    with pytest.raises(ServerRefused):
        client.statement(DIGEST)  # there a 404 of anybody else's means nothing


@pytest.mark.parametrize("path", ["", "/checkpoint", "tile", "tile/../checkpoint", "tile//0", "checkpoint\n", "tile/0"])
def test_only_paths_of_a_log_are_asked_for(site: FakeRegistry, client: RegistryClient, path: str) -> None:
    with pytest.raises(UsageError):
        client.log_file(path)
    assert not site.seen


def test_a_status_that_is_not_there_is_none(site: FakeRegistry, client: RegistryClient) -> None:
    assert client.status_envelope(ACME) is None
    site.rules["GET /v1/namespaces/acme/status"] = lambda handler: handler.send(200, b"exact bytes")
    assert client.status_envelope(ACME) == b"exact bytes"


def test_the_log_can_be_searched(site: FakeRegistry, client: RegistryClient) -> None:
    item = {
        "index": 3, "time": "2026-11-21T12:00:00Z", "kind": "tag", "name": "acme/minilm", "identity": "ab" * 32,
        "statement": DIGEST.hex,
    }  # fmt: skip
    answers(site, "/v1/log/entries", {"items": [item], "next": "3"})
    page = client.log_entries(name="acme/minilm", kind="tag", digest=DIGEST, limit=1)
    assert [(entry.index, entry.kind, entry.statement) for entry in page.items] == [(3, "tag", DIGEST)]
    assert page.next == "3"
    assert site.seen[0].line == f"GET /v1/log/entries?name=acme%2Fminilm&digest={DIGEST.hex}&kind=tag&limit=1"
