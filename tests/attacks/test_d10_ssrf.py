# SPDX-License-Identifier: Apache-2.0
"""D10: a service made to fetch something (CVE-2026-64849). Ours takes no URLs and opens no connections."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.samples import FILES
from tests.server_harness import READY, ROOT, Api, RunningRegistry

SUSPICIOUS = ("url", "uri", "href", "link", "source", "host", "callback", "webhook")
WATCHED = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.gethostbyname", "subprocess.Popen"):
        os.write(2, f"FORBIDDEN {event} {arguments}\\n".encode())
        os._exit(97)
sys.addaudithook(watch)
from pqreg_cli.main import main
main(["serve", "--data", sys.argv[1], "--listen", "127.0.0.1:0"])
"""


def fields(schema: Any) -> set[str]:
    """Every property named anywhere in a JSON document."""
    if isinstance(schema, dict):
        here = set(schema.get("properties", ())) if isinstance(schema.get("properties"), dict) else set()
        return here.union(*map(fields, schema.values())) if schema else here
    if isinstance(schema, list):
        return set().union(*map(fields, schema))
    return set()


def test_no_request_has_a_field_for_a_url(shared_registry: RunningRegistry) -> None:
    document = shared_registry.get("/openapi.json").json
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            names = fields(operation.get("requestBody", {})) | {p["name"] for p in operation.get("parameters", ())}
            suspicious = {name for name in names for word in SUSPICIOUS if word in name.lower()}
            assert not suspicious, (path, verb)
    assert '"uri"' not in shared_registry.get("/openapi.json").body.decode()


@pytest.mark.parametrize(
    "body", [{"public": "http://169.254.169.254/latest/meta-data"}, {"public": "file:///etc/passwd"}]
)
def test_a_url_where_an_identity_belongs_is_no_identity(shared_registry: RunningRegistry, body: dict[str, str]) -> None:
    assert shared_registry.post("/v1/namespaces/acme/identities", body).code == "format-error"


def test_a_service_opens_no_connection(tmp_path: Path) -> None:
    path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(tmp_path / "data")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        url = next(match[1] for line in process.stderr if (match := READY.match(line)))
        api = Api(url, (tmp_path / "data" / "admin.token").read_text().strip())
        digest = api.publish(FILES)
        assert api.put_tag(digest).status == 201
        assert api.get("/v1/repos/acme/minilm").status == 200
    finally:
        process.terminate()
        rest = process.stderr.read()
        process.stderr.close()
    assert process.wait(60) == 0, rest
    assert "FORBIDDEN" not in rest


def test_the_service_loads_no_http_client() -> None:
    code = (
        "import sys, pq_registry.server.serve;"
        "print([n for n in ('urllib3', 'requests', 'httpx', 'aiohttp', 'httpcore') if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
