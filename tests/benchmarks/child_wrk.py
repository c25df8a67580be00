# SPDX-License-Identifier: Apache-2.0
"""wrk against one or several registries at once: ``SECONDS CONNECTIONS PATH URL...``; the token from PQREG_TOKEN.

``PATH`` is asked with GET, or with POST of the JSON in BENCH_BODY. Prints, as one JSON object, requests per second of
all together, the worst 99th percentile in milliseconds, and how many answers were no 2xx.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

_SCRIPT = """
wrk.method = "%(method)s"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("PQREG_TOKEN")
%(body)s
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %%d, "us": %%d, "p50_us": %%d, "p99_us": %%d, "errors": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""
_BODY = """
wrk.headers["Content-Type"] = "application/json"
wrk.body = os.getenv("BENCH_BODY")
"""


def main(seconds: int, connections: int, path: str, urls: list[str]) -> dict[str, Any]:
    """Ask all of them at once."""
    body = os.environ.get("BENCH_BODY")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % {"method": "POST" if body else "GET", "body": _BODY if body else ""})
        script.flush()
        command = ["wrk", "-t1", f"-c{connections // len(urls)}", f"-d{seconds}s", "--latency", "-s", script.name]
        running = [subprocess.Popen([*command, url + path], stdout=subprocess.PIPE, text=True) for url in urls]
        printed = [json.loads(process.communicate()[0].strip().splitlines()[-1]) for process in running]
    return {
        "requests_per_s": round(sum(each["requests"] / each["us"] * 1e6 for each in printed), 1),
        "p50_ms": round(max(each["p50_us"] for each in printed) / 1000, 2),
        "p99_ms": round(max(each["p99_us"] for each in printed) / 1000, 2),
        "failed": sum(each["errors"] for each in printed),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])))
