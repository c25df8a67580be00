# SPDX-License-Identifier: Apache-2.0
"""D11, F1, D9: who may ask a gateway what, and what of a request goes on."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import Conflict, SettingError
from pq_registry.format.manifest import FileEntry
from pq_registry.gateway.app import Gateway
from pq_registry.gateway.cache import ShardCache
from pq_registry.gateway.config import GatewayConfig
from pq_registry.settings import Settings
from tests.fake_registry import FakeRegistry, serving
from tests.gateway_site import RunningGateway, registry_origin, running_gateway
from tests.samples import NOW, file_entry, release, trust_file


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with serving() as found:
        yield found


@pytest.fixture
def gateway(registry: FakeRegistry, tmp_path: Path) -> Iterator[RunningGateway]:
    files = {"config.json": b"{}"}
    registry.add_release(*release(files), files)
    origin = registry_origin(registry.url, tmp_path, trust_file().encode(), lambda: NOW)
    with running_gateway([origin], None) as running:
        yield running


def status(gateway: RunningGateway, *headers: tuple[str, str], method: str = "GET", path: str = "/livez") -> int:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/api/models", "/acme/minilm/resolve/main/config.json", "/x"])
def test_a_gateway_answers_to_no_name_but_loopbacks(gateway: RunningGateway, path: str) -> None:
    assert status(gateway, ("Host", "evil.example"), path=path) == 421
    assert status(gateway, ("Host", "127.0.0.1.evil.example:8480"), path=path) == 421
    assert status(gateway, ("Host", "localhost"), ("Host", "evil.example"), path=path) == 400
    assert status(gateway, path=path) == 400
    assert status(gateway, ("Host", "LOCALHOST:1")) == 200


def test_no_header_invites_other_origins_in(gateway: RunningGateway) -> None:
    answer = gateway.get("/api/whoami-v2", Origin="https://evil.example")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert gateway.get("/api/whoami-v2", "OPTIONS", Origin="https://evil.example").status in (404, 405)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
def test_a_page_elsewhere_cannot_have_the_node_fetch(
    gateway: RunningGateway, registry: FakeRegistry, site: str
) -> None:
    asked = gateway.get("/acme/minilm/resolve/main/config.json", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")
    assert asked.status == 403 and not registry.seen
    assert gateway.get("/livez", Sec_Fetch_Site="none").status == gateway.get("/livez").status == 200


def test_the_clients_token_goes_nowhere(gateway: RunningGateway, registry: FakeRegistry) -> None:
    gateway.get("/acme/minilm/resolve/main/config.json", Authorization="Bearer hf_canary", Cookie="canary=1")
    assert registry.seen
    assert {seen.headers["authorization"] for seen in registry.seen} == {"Bearer token"}
    assert "canary" not in str(registry.seen)


def test_bodies_and_revisions_are_bounded(gateway: RunningGateway) -> None:
    path = "/api/models/acme/minilm/paths-info/main"
    assert gateway.get(path, "POST", b"paths=" + b"x" * limits.REQUEST_BODY_BYTES).status == 413
    assert gateway.get(path, "POST", b"paths=x&" * (limits.HUB_PATHS + 1)).status == 400
    assert gateway.get("/api/models/acme/minilm/revision/" + "x" * 300).status == 400
    assert gateway.get("/api/models/acme/minilm/tree/main?after=-1").status in (400, 404)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:80", "[::]:80", "192.0.2.7:80", "example.org:80", "127.0.0.1.example.org:1"]
)
def test_it_listens_on_loopback_only(listen: str) -> None:
    given = {"gateway_listen": listen, "registry": "http://127.0.0.1:1"}
    with pytest.raises(SettingError, match="this machine only"):
        GatewayConfig.from_settings(Settings(given, environment={}, config_file=Path("/nowhere")))


def test_downloads_are_bounded(tmp_path: Path) -> None:
    gateway = Gateway([], None)
    try:
        downloads = gateway.downloads
        windows = []
        for _ in range(limits.GATEWAY_STREAMS):
            downloads.__enter__()
            windows.append(downloads.window)
        assert windows[0] == limits.GATEWAY_WINDOW_SHARDS and min(windows) >= 1
        assert windows[-1] * limits.GATEWAY_STREAMS <= limits.GATEWAY_MEMORY_SHARDS
        with pytest.raises(Exception, match="as many downloads as it can") as refused:
            downloads.__enter__()
        assert refused.value.status == 429 and refused.value.retry_after  # type: ignore[attr-defined]
    finally:
        gateway.close()


def test_a_cache_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(SettingError):
        ShardCache(tmp_path / "cache", size=1000)
    (tmp_path / "cache").chmod(0o700)
    cache = ShardCache(tmp_path / "cache", size=1000)
    with pytest.raises(Conflict):
        ShardCache(tmp_path / "cache", size=1000)
    cache.close()


def entry(name: str, size: int) -> tuple[FileEntry, memoryview]:
    content = name.encode() * size
    return file_entry(name, content[:size]), memoryview(content[:size])


def test_a_cache_forgets_what_was_unused_for_longest_and_outlives_its_process(tmp_path: Path) -> None:
    one, two, three = entry("a", 400), entry("b", 400), entry("c", 400)
    cache = ShardCache(tmp_path / "cache", size=1000)
    for file, content in (one, two):
        cache.write(file, 0, content)
    assert cache.has(one[0], 0) and cache.used == 800
    cache.write(three[0], 0, three[1])
    assert [cache.has(file, 0) for file, _ in (one, two, three)] == [True, False, True]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o77 == 0 for path in (tmp_path / "cache").iterdir())
    cache.close()
    cache = ShardCache(tmp_path / "cache", size=1 << 20)
    view = memoryview(bytearray(400))
    assert cache.has(three[0], 0) and cache.read(three[0], 0, view) and view == three[1]
    cache.drop(three[0], 0)
    assert not cache.has(three[0], 0)
    large = entry("d", (1 << 20) + 1)
    cache.write(large[0], 0, large[1])
    assert not cache.has(large[0], 0), "larger than the cache"
    cache.close()
    cache = ShardCache(tmp_path / "cache", size=0)
    assert cache.used == 0 and not list((tmp_path / "cache").glob("*.shards"))
    cache.close()
