# SPDX-License-Identifier: Apache-2.0
"""The client's side of direct transfers: parts to storage, presigned reads that are kept, and what is allowed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from email.message import Message

import pytest

from pq_registry import limits
from pq_registry.client.origin import Origin
from pq_registry.client.places import Place, Places, parse_origins
from pq_registry.client.ranges import RangeReader
from pq_registry.client.transport import RegistryClient, blob_path
from pq_registry.client.upload import Sent
from pq_registry.errors import ResponseInvalid, ServerRefused, SettingError
from pq_registry.format.digest import Digest
from tests.direct_site import PART, DirectSite, direct_site, spoil
from tests.fake_registry import FakeRegistry, Handler, serving

CONTENT = os.urandom(2 * PART + 777)
SECRET = "X-Amz-Signature=0123456789abcdef"


@pytest.fixture
def site() -> Iterator[DirectSite]:
    with direct_site() as made:
        yield made


class Watcher:
    """Keeps what a transfer tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def start(self, label: str, total_bytes: int) -> None:
        self.told.append((label, total_bytes))

    def advance(self, count: int) -> None:
        self.told.append(("advance", count))

    def done(self) -> None:
        self.told.append(("done", 0))


def test_parts_go_to_storage_with_what_was_signed_and_nothing_else(site: DirectSite) -> None:
    assert site.push(CONTENT) == Sent(len(CONTENT), 0, 0)
    assert b"".join(site.parts[number] for number in range(3)) == CONTENT
    expected = {"host", "user-agent", "accept-encoding", "content-length", "x-amz-checksum-sha256"}
    assert [set(headers) for headers in site.strangers()] == [expected] * 3
    assert {headers["x-amz-checksum-sha256"] for headers in site.strangers()} == {"c2lnbmVk"}
    assert not [seen for seen in site.registry.seen if seen.line.startswith("PUT")]


def test_parts_that_are_there_are_not_sent_again(site: DirectSite) -> None:
    site.parts[1] = CONTENT[PART : 2 * PART]
    assert site.push(CONTENT) == Sent(len(CONTENT) - PART, PART, 0)
    assert site.signed == 2


@pytest.mark.parametrize("status", [400, 403, 404, 408, 429, 500, 503])
def test_a_refused_part_is_sent_again_by_another_url(site: DirectSite, status: int) -> None:
    left = iter(range(2))  # asked by several connections at once

    def rule(handler: Handler) -> bool:
        if next(left, None) is None:
            return False
        handler.rfile.read(int(handler.headers["Content-Length"]))
        return handler.send(status, b"<Error/>", "application/xml")

    spoil(site.storage, "PUT /bucket/", rule)
    assert site.push(CONTENT).sent == len(CONTENT)
    assert site.signed == 5
    assert len({seen.line for seen in site.storage.seen}) == 5


def test_a_part_that_arrived_though_the_answer_was_lost_is_not_sent_again(site: DirectSite) -> None:
    honest = site.storage.rules["PUT /bucket/"]
    lost: list[str] = []

    def rule(handler: Handler) -> bool:
        if lost:
            return False
        lost.append(handler.path)
        handler.wfile = open(os.devnull, "wb")  # noqa: SIM115 - the answer goes nowhere; the server closes it
        honest(handler)
        handler.close_connection = True
        return True

    spoil(site.storage, "PUT /bucket/", rule)
    site.push(CONTENT)
    assert len(site.storage.seen) == 3
    assert b"".join(site.parts[number] for number in range(3)) == CONTENT


def test_storage_that_goes_on_refusing_ends_the_push(site: DirectSite) -> None:
    def rule(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        return handler.send(403, b"", "application/xml")

    spoil(site.storage, "PUT /bucket/", rule)
    with pytest.raises(ServerRefused, match="refused part"):
        site.push(CONTENT)
    assert len(site.storage.seen) <= 3 * limits.ATTEMPTS


def test_the_registry_is_asked_until_it_has_verified(site: DirectSite) -> None:
    watcher = Watcher()
    site.verifying = [0, PART, PART, len(CONTENT)]
    site.push(CONTENT, watcher)
    second = watcher.told.index(("verify acme/minilm", len(CONTENT)))
    before, after = watcher.told[:second], watcher.told[second + 1 :]
    assert sum(count for what, count in before if what == "advance") == len(CONTENT)
    assert sum(count for what, count in after if what == "advance") == len(CONTENT)
    assert after[-1] == ("done", 0)


def test_a_registry_that_comes_no_further_is_not_waited_for_for_good(
    site: DirectSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERIFYING_PATIENCE_SECONDS", 0)
    site.verifying = [7] * 100
    with pytest.raises(ServerRefused, match="does not come any further"):
        site.push(CONTENT)
    assert len(site.verifying) > 90


@pytest.mark.parametrize(
    "answer",
    [
        {"parts": []},
        {"parts": [{"number": 1, "url": "http://127.0.0.1/", "headers": {}}]},
        {"parts": [{"number": 0, "url": "", "headers": {}}]},
        {"parts": [{"number": 0, "url": "http://127.0.0.1/" + "x" * 10_000, "headers": {}}]},
        {"parts": [{"number": 0, "url": "ftp://127.0.0.1/", "headers": {}}]},
        {"parts": [{"number": 0, "url": "http://127.0.0.1/", "headers": {"content-length": "1"}}]},
        {"parts": [{"number": 0, "url": "http://127.0.0.1/", "headers": {f"x-amz-{n}": "v" for n in range(17)}}]},
    ],
)
def test_answers_no_registry_gives_end_the_push(site: DirectSite, answer: object) -> None:
    def rule(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        return handler.json(answer)

    spoil(site.registry, "/urls", rule)
    with pytest.raises(ResponseInvalid):
        site.push(CONTENT[:PART])
    assert not site.storage.seen


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[FakeRegistry, FakeRegistry]]:
    """A registry whose redirects may be kept, and the storage with the blob."""
    with serving() as home, serving() as storage:
        hex_digest = storage.add_blob(CONTENT)
        keep = {"Cache-Control": "private, max-age=600"}
        location = {"Location": f"{storage.url}/v1/blobs/sha256/{hex_digest}?{SECRET}", **keep}
        home.rules["GET /v1/blobs"] = lambda handler: handler.send(307, b"", headers=location)
        yield home, storage


def read(client: RegistryClient, ranges: int, size: int = 100_000) -> None:
    reader = RangeReader(client.exchanger)
    for number in range(ranges):
        view = memoryview(bytearray(size))
        reader.read_into(blob_path(Digest.of(CONTENT)), number * size, view, size=len(CONTENT))
        assert bytes(view) == CONTENT[number * size : (number + 1) * size]
    reader.close()


def test_many_ranges_of_a_blob_cost_the_registry_one_request(pair: tuple[FakeRegistry, FakeRegistry]) -> None:
    home, storage = pair
    with RegistryClient(home.url, "token") as client:
        read(client, 20)
        read(client, 20)  # another reader of the same client
    assert len(home.seen) == 1
    assert len(storage.ranges) == 40


def test_a_url_that_is_refused_is_asked_for_again(pair: tuple[FakeRegistry, FakeRegistry]) -> None:
    home, storage = pair
    with RegistryClient(home.url, "token", sleep=lambda _: None) as client:
        read(client, 2)
        refused = iter([True])
        storage.rules["GET"] = lambda handler: next(refused, False) and handler.send(403, b"expired")
        read(client, 2)
    assert len(home.seen) == 2


def test_a_redirect_that_says_nothing_about_its_age_is_for_once(pair: tuple[FakeRegistry, FakeRegistry]) -> None:
    home, storage = pair
    location = {"Location": f"{storage.url}/v1/blobs/sha256/{Digest.of(CONTENT).hex}?{SECRET}"}
    home.rules["GET /v1/blobs"] = lambda handler: handler.send(307, b"", headers=location)
    with RegistryClient(home.url, "token") as client:
        read(client, 3)
    assert len(home.seen) == 3


def test_places_are_kept_as_long_as_was_said_and_only_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOCATIONS", 2)
    now = [0.0]
    places = Places(lambda: now[0])
    place = Place(Origin("https", "s3.example.org", 443), f"/k?{SECRET}")
    headers = Message()
    places.keep("/a", place, headers)
    assert places.find("/a") is None
    headers["Cache-Control"] = "private, max-age=60"
    for path in ("/a", "/b", "/c"):
        places.keep(path, place, headers)
    assert [places.find(path) for path in ("/a", "/b", "/c")] == [None, place, place]
    places.forget("/b", Place(place.origin, "/another"))
    assert places.find("/b") is place
    places.forget("/b", place)
    assert places.find("/b") is None
    now[0] = 60.0
    assert places.find("/c") is None
    assert SECRET not in repr(place)


def test_origins_of_the_setting() -> None:
    assert parse_origins(None) == frozenset()
    assert parse_origins(" https://S3.example.org/ , http://127.0.0.1:8333 ") == {
        Origin("https", "s3.example.org", 443),
        Origin("http", "127.0.0.1", 8333),
    }
    for text in ("s3.example.org", "https://s3.example.org/bucket", "https://u:p@s3.example.org", "https://*"):
        with pytest.raises(SettingError, match="storage_origins") as caught:
            parse_origins(text)
        assert "u:p" not in str(caught.value)
    with pytest.raises(SettingError):
        parse_origins(",".join(f"https://h{number}" for number in range(limits.STORAGE_ORIGINS + 1)))
