# SPDX-License-Identifier: Apache-2.0
"""The figures of a following audit in Prometheus' text format, on a loopback address.

There are no labels but ``result``, which has four values. ``METRICS`` is the table of all names;
deploy/prometheus/pqreg-log.rules.yml uses no other.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from pq_registry.errors import SettingError, StorageError

RESULTS: Final = ("well", "findings", "failed", "misbehaved")
METRICS: Final = {
    "pqreg_audit_runs_total": ("counter", "Audits, by how they ended."),
    "pqreg_audit_leaves_total": ("counter", "Leaves read and verified since the start."),
    "pqreg_audit_statements_total": ("counter", "Statements judged since the start."),
    "pqreg_audit_findings_open": ("gauge", "Findings nobody has acknowledged."),
    "pqreg_audit_misbehaved": ("gauge", "1 once the log has contradicted itself."),
    "pqreg_audit_tree_size": ("gauge", "Leaves of the last checkpoint verified."),
    "pqreg_audit_checkpoint_timestamp_seconds": ("gauge", "When the last checkpoint verified was signed."),
    "pqreg_audit_last_success_timestamp_seconds": ("gauge", "When an audit last came to its end."),
    "pqreg_audit_webhook_failures_total": ("counter", "Webhook calls that failed."),
}


class AuditMetrics:
    """The figures; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values = dict.fromkeys(METRICS, 0)
        self._runs = dict.fromkeys(RESULTS, 0)

    def ran(self, result: str) -> None:
        """Count an audit."""
        with self._lock:
            self._runs[result] += 1

    def set(self, name: str, value: int) -> None:
        """Set a gauge."""
        with self._lock:
            assert METRICS[name][0] == "gauge"
            self._values[name] = value

    def add(self, name: str, count: int) -> None:
        """Raise a counter."""
        with self._lock:
            assert METRICS[name][0] == "counter"
            self._values[name] += count

    def render(self) -> str:
        """Everything, as Prometheus reads it."""
        lines = []
        with self._lock:
            for name, (kind, text) in METRICS.items():
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
                if name == "pqreg_audit_runs_total":
                    lines += [f'{name}{{result="{result}"}} {count}' for result, count in self._runs.items()]
                else:
                    lines.append(f"{name} {self._values[name]}")
        return "\n".join(lines) + "\n"


@contextmanager
def serving(address: str, metrics: AuditMetrics) -> Iterator[str]:
    """Answer ``GET /metrics`` on ``address`` while the block runs; gives the URL.

    Raises:
        SettingError: if ``address`` is not a loopback address and a port.
        StorageError: if it cannot be listened on.
    """
    host, port = _parse(address)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/metrics"
            body = metrics.render().encode() if known else b"only /metrics is here\n"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8" if known else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    try:
        server = _Server((host, port), Handler)
    except OSError as error:
        raise StorageError(f"cannot listen on {address}", found=error.strerror) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        loopback = host == "localhost" or ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback or not port.isascii() or not port.isdigit() or not 0 <= int(port[:6]) <= 65535:
        raise SettingError(
            "the address of the metrics is wrong", expected="127.0.0.1:PORT", found=address,
            hint="metrics are for this machine; let a Prometheus agent on it fetch them",
        )  # fmt: skip
    return "127.0.0.1" if host == "localhost" else host, int(port)
