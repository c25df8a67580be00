# SPDX-License-Identifier: Apache-2.0
"""F8 at the client's boundary: whatever bytes a registry or a directory holds, what comes out is an error of the tree.

Random damage to every document on the way from a tag to a directory, and arbitrary bytes in the place of HTTP.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pq_registry.client import answers, loganswers, uploadanswers
from pq_registry.client.origin import parse_location, parse_registry
from pq_registry.client.problems import refusal
from pq_registry.client.verify import verify_directory
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import PqregError
from tests.fake_registry import FakeRegistry, Handler, serving
from tests.pull_site import FILES, Site, content, final_names
from tests.samples import publisher, tag_statement

ROUNDS = 60
SMALL = {"config.json": b"{}", "sub/notes.txt": b"hello"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """``data`` after one mishap."""
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + rng.randbytes(rng.randint(1, 9)) + data[at:]
    if kind == 2:
        return data + data[:at]
    if kind == 3:
        return data[:at] + bytes([rng.choice(b'"{}[]:,\\0-e\x00\xff')]) + data[at + 1 :]
    if kind == 4:
        return data[:at] + data[at + rng.randint(1, 40) :]
    return data.replace(
        rng.choice([b"sha256", b"true", b"false", b"null", b'"', b"0"]), rng.choice([b"", b"1", b"[]"]), 1
    )


def test_f08_damaged_documents_of_a_registry(site: Site) -> None:
    rng = random.Random(8)
    digest = site.add(SMALL)
    tag = sign_envelope(tag_statement(digest).encode(), publisher()).encode()
    honest = FakeRegistry(blobs=dict(site.registry.blobs), statements=dict(site.registry.statements), tags={"v1": tag})
    for number in range(ROUNDS):
        registry = site.registry
        registry.blobs, registry.statements = dict(honest.blobs), dict(honest.statements)
        registry.tags = dict(honest.tags)
        store = rng.choice([registry.blobs, registry.statements, registry.tags])
        name = rng.choice(sorted(store))
        store[name] = damaged(rng, store[name])
        if store[name] == {**honest.blobs, **honest.statements, **honest.tags}[name]:
            continue
        out = site.home / f"out{number}"
        with pytest.raises(PqregError):
            site.pull("v1", out, connections=1)
        assert not out.exists() or final_names(out) == set()


def test_f08_damaged_answers_of_a_registry(site: Site) -> None:
    """The JSON around the documents, and the HTTP around the JSON."""
    rng = random.Random(88)
    digest = site.add(SMALL)
    site.registry.tags["v1"] = sign_envelope(tag_statement(digest).encode(), publisher()).encode()
    for number in range(ROUNDS):
        line = rng.choice(["/tags/", "/releases/", "/statements/", "/blobs/"])

        def rule(handler: Handler) -> bool:
            whole = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\nContent-Type: application/json\r\n\r\n" + b'{"a": 1}' * 5
            handler.wfile.write(damaged(rng, whole))
            handler.close_connection = True
            return True

        site.registry.rules = {line: rule}
        with pytest.raises(PqregError):
            site.pull("v1", site.home / f"out{number}", connections=1, timeout=1)


def test_f08_damaged_directories(site: Site) -> None:
    rng = random.Random(888)
    site.pull(site.add())
    original = {path: path.read_bytes() for path in site.out.rglob("*") if path.is_file()}
    for _ in range(ROUNDS):
        path = rng.choice(sorted(original))
        data = damaged(rng, original[path])
        if data == original[path]:
            continue
        path.write_bytes(data)
        with pytest.raises(PqregError):
            verify_directory(site.out, site.offline)
        path.write_bytes(original[path])
    verify_directory(site.out, site.offline)
    assert content(site.out) == FILES


@given(body=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["items", "next", "name", "digest", "statement", "manifest", "tags", "releases", "id", "parts", "part_size",
         "role", "namespaces", "expires", "envelope", "missing", "token", "tlog_proof", "log_index", "receipt",
         "quorum", "index", "time", "kind", "identity", "number", "url", "headers", "verified", "size",
         "storage_origins", "x"]), inner, max_size=6),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_f08_any_answer_parses_or_is_refused(body: bytes) -> None:
    for parse in (
        answers.caller, answers.repository_page, answers.repository_view, answers.release_items, answers.release_view,
        loganswers.statement, loganswers.committed, loganswers.logged, loganswers.log_entries,
        uploadanswers.signed_parts, uploadanswers.completion, uploadanswers.storage_origins,
        answers.missing, answers.upload, answers.identities, answers.tokens,
        answers.new_token,
    ):  # fmt: skip
        try:
            answers.read(body, parse, what="an answer")
        except PqregError as error:
            assert str(error).isprintable()
    refused = refusal(
        500,
        "application/problem+json",
        body,
        what="GET /",
        origin=parse_registry("https://models.example.org")[0],
        changing=True,
    )
    assert isinstance(refused, PqregError)
    assert (str(refused) + str(refused.hint)).isprintable()


@given(text=st.text(max_size=60) | st.from_regex(r"https?://[^ ]{0,40}", fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_f08_any_url_parses_or_is_refused(text: str) -> None:
    for parse in (parse_registry, lambda url: parse_location(url, parse_registry("https://a")[0])):
        try:
            origin, _ = parse(text)
        except PqregError:
            continue
        assert str(origin).isascii()
