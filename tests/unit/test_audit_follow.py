# SPDX-License-Identifier: Apache-2.0
"""A following audit: rounds, what is told to whom and how often, the figures, and where the webhook's URL may show."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pq_registry.client.audit.follow import Follower
from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.metrics import METRICS, RESULTS, AuditMetrics, serving
from pq_registry.client.audit.report import Report, make_report
from pq_registry.client.audit.run import Outcome
from pq_registry.client.audit.webhook import Webhook
from pq_registry.errors import (
    ConnectionFailed,
    LogEquivocation,
    LogMisbehaved,
    PqregError,
    ServerRefused,
    SettingError,
    TransportError,
)
from tests.auditing import MALLORY, NOW, AuditSite


@dataclass
class Hook:
    """A webhook that takes everything, unless it is to fail."""

    told: list[dict[str, Any]] = field(default_factory=list)
    failing: bool = False

    def tell(self, value: dict[str, object]) -> None:
        if self.failing:
            raise ConnectionFailed("no route")
        self.told.append(value)


class Rounds:
    """A follower over a site; ``between`` is called with the number of each round that ended."""

    def __init__(self, index: AuditIndex, site: AuditSite, **parts: Any) -> None:
        self.shown: list[Report | PqregError] = []
        self.error: PqregError | None = None
        self.hook: Hook = parts.setdefault("webhook", Hook())

        def audit(now: datetime) -> tuple[Outcome, Report]:
            if self.error is not None:
                raise self.error
            outcome = site.audit(index, now=now)
            return outcome, make_report(index, site.trust, outcome)

        self.follower = Follower(index, audit, clock=lambda: NOW, shown=self.shown.append, **parts)

    def run(self, *between: Callable[[], object]) -> bool:
        steps = iter(between)

        def wait() -> bool:
            step = next(steps, None)
            if step is None:
                return True
            step()
            return False

        return self.follower.run(wait)


@pytest.fixture
def site() -> AuditSite:
    site = AuditSite()
    site.release()
    return site


@pytest.fixture
def index(tmp_path: Path) -> Iterator[AuditIndex]:
    with AuditIndex(tmp_path / "state") as index:
        yield index


def test_new_findings_are_told_once(index: AuditIndex, site: AuditSite) -> None:
    rounds = Rounds(index, site)
    nothing = lambda: None
    assert rounds.run(nothing, lambda: site.release(signer=MALLORY), nothing) is False
    [told] = rounds.hook.told
    assert [one["code"] for one in told["findings"]] == ["unknown-key"] and told["misbehaviour"] is None
    assert len(rounds.shown) == 4


def test_what_could_not_be_told_is_told_later(index: AuditIndex, site: AuditSite) -> None:
    figures = AuditMetrics()
    rounds = Rounds(index, site, metrics=figures)
    rounds.hook.failing = True
    site.release(signer=MALLORY)
    rounds.run(lambda: None, lambda: setattr(rounds.hook, "failing", False))
    assert len(rounds.hook.told) == 1
    assert "pqreg_audit_webhook_failures_total 2" in figures.render()


def test_a_failed_round_is_counted_and_the_next_one_comes(index: AuditIndex, site: AuditSite) -> None:
    figures = AuditMetrics()
    rounds = Rounds(index, site, metrics=figures)
    rounds.error = TransportError("down")
    assert rounds.run(lambda: setattr(rounds, "error", None)) is True
    assert 'pqreg_audit_runs_total{result="failed"} 1' in figures.render()
    assert 'pqreg_audit_runs_total{result="well"} 1' in figures.render()
    assert rounds.hook.told == []


@pytest.mark.parametrize("metrics", [True, False])
def test_misbehaviour_is_told_once_and_ends_the_loop_unless_figures_are_served(
    index: AuditIndex, site: AuditSite, metrics: bool
) -> None:
    figures = AuditMetrics() if metrics else None
    rounds = Rounds(index, site, metrics=figures)

    def fork() -> None:
        site.log = site.log.fork(at=0)
        site.log.append_raw(b"other")
        site.log.publish()

    with pytest.raises(LogEquivocation):
        rounds.run(fork, lambda: None, lambda: None)
    [told] = rounds.hook.told
    assert told["misbehaviour"]["code"] == "log-equivocation"
    caught = [one for one in rounds.shown if isinstance(one, LogMisbehaved)]
    assert len(caught) == (3 if metrics else 1)
    if figures is not None:
        assert "pqreg_audit_misbehaved 1" in figures.render()


def test_figures(index: AuditIndex, site: AuditSite) -> None:
    figures = AuditMetrics()
    site.release(signer=MALLORY)
    Rounds(index, site, metrics=figures).run(lambda: None)
    text = figures.render()
    for line in (
        'pqreg_audit_runs_total{result="findings"} 2',
        "pqreg_audit_leaves_total 2",
        "pqreg_audit_statements_total 2",
        "pqreg_audit_findings_open 1",
        "pqreg_audit_tree_size 2",
        f"pqreg_audit_checkpoint_timestamp_seconds {site.log.time}",
        f"pqreg_audit_last_success_timestamp_seconds {int(NOW.timestamp())}",
        "pqreg_audit_misbehaved 0",
    ):
        assert f"\n{line}\n" in text
    for name, (kind, _) in METRICS.items():
        assert f"# TYPE {name} {kind}\n" in text
    assert text.count("result=") == len(RESULTS)


def test_figures_are_served_on_loopback_only() -> None:
    figures = AuditMetrics()
    with serving("127.0.0.1:0", figures) as url:
        host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        for path, status in (("/metrics", 200), ("/", 404), ("/metrics?x", 404)):
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == status
            body = answer.read().decode()
            assert (body == figures.render()) is (status == 200)
            connection.close()
    for address in ("0.0.0.0:1", "192.168.1.1:1", "example.org:1", ":1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"):
        with pytest.raises(SettingError), serving(address, figures):
            pass


# -- the webhook itself ------------------------------------------------------------------------------------------------


@contextmanager
def listening(status: int, headers: dict[str, str] | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers every POST alike and records it."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_webhook_gets_json_and_nothing_secret() -> None:
    with listening(204) as (url, seen):
        Webhook(f"{url}/hooks/abc?key=canary").tell({"findings": []})
    [(path, headers, body)] = seen
    assert path == "/hooks/abc?key=canary"
    assert body == {"schema": "urn:pq-registry:audit-webhook:v1", "findings": []}
    assert headers["Content-Type"] == "application/json"
    assert not {name.lower() for name in headers} & {"authorization", "cookie"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 500])
def test_f1_no_redirect_is_followed_and_the_url_stays_secret(status: int) -> None:
    with listening(200) as (other, elsewhere), listening(status, {"Location": f"{other}/x"}) as (url, seen):
        webhook = Webhook(f"{url}/canary-path?key=canary-query")
        with pytest.raises(ServerRefused) as caught:
            webhook.tell({})
        assert len(seen) == 1 and not elsewhere
        for text in (str(caught.value), repr(webhook), str(caught.value.hint)):
            assert "canary" not in text


def test_a_webhook_that_is_not_there() -> None:
    with listening(200) as (url, _):
        webhook = Webhook(url)
    with pytest.raises(ConnectionFailed):
        webhook.tell({})


@pytest.mark.parametrize("url", ["ftp://x/", "https://u:canary@host/", "https://host/#canary", "canary", "https:///x"])
def test_an_impossible_url_is_not_repeated(url: str) -> None:
    with pytest.raises((SettingError, PqregError)) as caught:
        Webhook(url)
    assert "canary" not in str(caught.value)
