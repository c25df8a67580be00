# SPDX-License-Identifier: Apache-2.0
"""How long the hot queries of the catalogue take. ``DATABASE RELEASES CALLS``: a path for SQLite, or a URL.

Fills an empty database and prints, as one JSON object, what filling took, and of each query the median and the 99th
percentile in milliseconds and the steps of its plan that read a whole table.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from pq_registry.storage.catalogue.database import Catalogue
from tests.cataloguesamples import Filled, fill
from tests.hotqueries import Query, heard, hot_queries, plan, read_whole


def main(database: str, releases: int, calls: int) -> dict[str, Any]:
    """Fill and measure."""
    catalogue = (
        Catalogue.open_postgres(database, upgrade=True)
        if "://" in database
        else Catalogue.open_sqlite(Path(database), upgrade=True)
    )
    begun = time.perf_counter()
    filled = fill(catalogue, releases, done=_say)
    print(file=sys.stderr)
    with catalogue.connection() as connection:
        connection.exec_driver_sql("ANALYZE")
    seconds = time.perf_counter() - begun
    queries = {name: measure(catalogue, query, calls) for name, query in hot_queries(catalogue, filled).items()}
    catalogue.close()
    return {"seconds": seconds, "rows": _rows(filled), "queries": queries}


def measure(catalogue: Catalogue, query: Query, calls: int) -> dict[str, Any]:
    """One query, ``calls`` times, each for other rows."""
    choice = random.Random(7)
    with heard(catalogue) as asked:
        query(choice)
    whole = [step for statement in asked for step in read_whole(plan(catalogue, *statement))]
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        query(choice)
        times.append((time.perf_counter() - begun) * 1000)
    times.sort()
    return {
        "median_ms": round(statistics.median(times), 3),
        "p99_ms": round(times[calls * 99 // 100], 3),
        "whole": whole,
    }


def _rows(filled: Filled) -> dict[str, int]:
    return {"releases": filled.releases, "blobs": filled.releases * 10, "repositories": filled.repositories}


def _say(_count: int) -> None:
    print(".", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
