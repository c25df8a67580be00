# SPDX-License-Identifier: Apache-2.0
"""Rate limits: what a burst allows, what a refused caller is told, and that clients of ours come through."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import SettingError, StorageError, TooManyRequests
from pq_registry.server.address import parse_networks
from pq_registry.server.config import ServerConfig
from pq_registry.server.rate import RateLimit
from pq_registry.settings import Settings
from tests.server_harness import running

BURST = limits.REQUEST_BURST_SECONDS


class Watch:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(limit: RateLimit, key: str, most: int = 1000) -> int:
    for count in range(most):
        try:
            limit.admit(key)
        except TooManyRequests:
            return count
    return most


def test_a_burst_and_then_the_rate() -> None:
    watch = Watch()
    limit = RateLimit(5, "here", watch)
    assert admitted(limit, "a") == 5 * BURST
    assert admitted(limit, "b") == 5 * BURST, "another key is not held to it"
    watch.now += 1
    assert admitted(limit, "a") == 5
    watch.now += 3600
    assert admitted(limit, "a") == 5 * BURST, "no more is saved up than a burst"


def test_no_limit_counts_nothing() -> None:
    limit = RateLimit(0, "here")
    assert admitted(limit, "a", 100_000) == 100_000
    assert not limit._keys


def test_a_crowd_is_told_to_come_back_one_after_another() -> None:
    watch = Watch()
    limit = RateLimit(2, "here", watch)
    admitted(limit, "a")
    waits: list[int] = []
    for _ in range(100):
        with pytest.raises(TooManyRequests) as refused:
            limit.admit("a")
        waits.append(refused.value.retry_after or 0)
    assert waits[0] == 1
    assert waits == sorted(waits)
    assert waits[19] in (10, 11), "twenty callers at two per second take ten seconds"
    assert waits[-1] == limits.REQUEST_PAUSE_SECONDS, "and nobody is sent away for longer than clients wait"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_RATE_KEYS", 10)
    limit = RateLimit(1, "here", Watch())
    assert admitted(limit, "a") == BURST
    for number in range(9):
        limit.admit(str(number))
        with pytest.raises(TooManyRequests):
            limit.admit("a")
    assert len(limit._keys) == 10
    for number in range(10, 30):
        limit.admit(str(number))
    assert len(limit._keys) == 10
    assert "a" not in limit._keys, "the least recent is forgotten"


def test_a_token_is_held_to_its_rate(tmp_path: Path) -> None:
    with running(tmp_path / "registry", token_rate=1) as registry:
        reader = registry.as_role("reader")
        answers = [reader.get("/v1/whoami") for _ in range(BURST + 5)]
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.code == "too-many-requests"
        assert 1 <= int(refused.headers["retry-after"]) <= limits.REQUEST_PAUSE_SECONDS
        assert registry.get("/v1/whoami").status == 200, "another token is not"
        assert {reader.get(f"/{probe}").status for probe in ("livez", "readyz", "startupz")} == {200}
        metrics = registry.get("/metrics").body.decode()
        assert 'pqreg_problems_total{problem="too-many-requests"}' in metrics


def test_an_address_is_held_to_its_rate_whatever_token_it_tries(tmp_path: Path) -> None:
    with running(tmp_path / "registry", address_rate=1) as registry:
        stranger = registry.with_token("pqreg_" + "x" * 43)
        statuses = [stranger.get("/v1/whoami").status for _ in range(BURST + 5)]
        assert set(statuses) == {401, 429}
        assert registry.get("/v1/whoami").status == 429
        assert {registry.get(f"/{probe}").status for probe in ("livez", "readyz", "startupz")} == {200}


def test_callers_behind_a_proxy_are_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pq_registry")
    logging.getLogger("pq_registry").propagate = True
    trusted = parse_networks("127.0.0.0/8")
    with running(tmp_path / "registry", address_rate=1, trusted_proxies=trusted) as registry:
        for address in ("192.0.2.1", "192.0.2.2"):
            seen = {registry.get("/v1/whoami", {"X-Forwarded-For": address}).status for _ in range(BURST)}
            assert seen == {200}
        assert registry.get("/v1/whoami", {"X-Forwarded-For": "192.0.2.1"}).status == 429
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        registry.get("/livez", {"X-Forwarded-For": "192.0.2.7", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    fields = [record.__dict__["pqreg"] for record in caplog.records if record.getMessage() == "request"]
    assert fields[-1]["client"] == "192.0.2.7"
    assert fields[-1]["trace_id"] == trace
    assert "trace_id" not in fields[0]


def test_browsers_are_told_to_insist_on_tls_only_by_who_speaks_it(tmp_path: Path) -> None:
    over_tls = {"X-Forwarded-Proto": "https"}
    with running(tmp_path / "one", trusted_proxies=parse_networks("127.0.0.1"), hsts_days=2) as registry:
        assert registry.get("/livez", over_tls).headers["strict-transport-security"] == "max-age=172800"
        assert registry.get("/no-such-path", over_tls).headers["strict-transport-security"] == "max-age=172800"
        assert "strict-transport-security" not in registry.get("/livez").headers
    with running(tmp_path / "two") as registry:
        assert "strict-transport-security" not in registry.get("/livez", over_tls).headers
    with running(tmp_path / "three", trusted_proxies=parse_networks("127.0.0.1"), hsts_days=0) as registry:
        assert "strict-transport-security" not in registry.get("/livez", over_tls).headers


def test_the_settings(tmp_path: Path) -> None:
    quotas = tmp_path / "quotas.toml"
    quotas.write_text('[acme]\nbytes = "1T"\n')
    environment = {
        "PQREG_DATA": str(tmp_path), "PQREG_RATE_LIMIT": "50", "PQREG_RATE_LIMIT_ADDRESS": "200",
        "PQREG_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::/32", "PQREG_HSTS_DAYS": "30", "PQREG_READ_ONLY": "true",
        "PQREG_QUOTA_BYTES": "5G", "PQREG_QUOTAS": str(quotas),
    }  # fmt: skip
    config = ServerConfig.from_settings(Settings(environment=environment, config_file=tmp_path / "none"))
    assert (config.token_rate, config.address_rate, config.hsts_days, config.read_only) == (50, 200, 30, True)
    assert [str(network) for network in config.trusted_proxies] == ["10.0.0.0/8", "2001:db8::/32"]
    assert (config.quotas.default.bytes, config.quotas.own["acme"].bytes) == (5 * limits.GIB, 1024 * limits.GIB)
    for name, value in (
        ("PQREG_RATE_LIMIT", "-1"), ("PQREG_RATE_LIMIT_ADDRESS", "many"), ("PQREG_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("PQREG_HSTS_DAYS", "1e3"), ("PQREG_QUOTA_BYTES", "5 GB"), ("PQREG_QUOTAS", str(tmp_path)),
    ):  # fmt: skip
        with pytest.raises((SettingError, StorageError)):
            ServerConfig.from_settings(Settings(environment=environment | {name: value}, config_file=tmp_path / "none"))
