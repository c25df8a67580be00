# SPDX-License-Identifier: Apache-2.0
"""Metadata: requests per second of a registry, and what a large catalogue costs.

``metadata``: wrk asks a registry with one release, on SQLite and a directory, on PostgreSQL and an object store, and
two instances of the latter at once. ``catalogue``: the hot queries, as calls of the use cases, with 100 000 releases
and a million blobs against a hundred releases.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from pqreg_cli.engines.postgres import postgresql
from pqreg_cli.engines.seaweedfs import seaweedfs
from tests.benchmarks.contest import Contender, Result, Section, contest
from tests.benchmarks.sections import CORES
from tests.benchmarks.stage import REFERENCE, REPOSITORY, Registry, Stage

SECONDS, CONNECTIONS = 5, 32
RELEASES, FEW = 100_000, 100
CALLS = 300


def metadata_sections(stage: Stage, rounds: int) -> list[Section]:
    """wrk; none where it is not installed."""
    if shutil.which("wrk") is None:
        return []
    contenders: list[Contender] = []
    with contextlib.ExitStack() as live:
        small = live.enter_context(stage.serving("wrk-small"))
        one, two = live.enter_context(_instances(stage))
        stacks = {
            "SQLite, directory": [small],
            "PostgreSQL, SeaweedFS, one instance": [one],
            "PostgreSQL, SeaweedFS, two instances": [one, two],
        }
        model = stage.work / "small-model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        for stack, registries in stacks.items():
            contenders += _asking(stage, stack, registries, model)
        section = contest(
            "metadata",
            f"metadata requests per second, {CONNECTIONS} connections",
            contenders,
            rounds=rounds,
            patience=stage.patience,
            size=0,
            reference=contenders[0].name,
            notes=[f"wrk, registry and PostgreSQL share {CORES} CPUs; every request is authenticated"],
        )
    for result in section.results:
        if result.runs:
            section.notes.append(
                f"{result.contender.name}: {_median(result, 'requests_per_s'):.0f}/s, "
                f"p50 {_median(result, 'p50_ms'):.1f} ms, p99 {_median(result, 'p99_ms'):.1f} ms"
                + (f", {_median(result, 'failed'):.0f} FAILED" if _median(result, "failed") else "")
            )
    return [section]


@contextlib.contextmanager
def _instances(stage: Stage) -> Iterator[tuple[Registry, Registry]]:
    with contextlib.ExitStack() as live:
        server = live.enter_context(seaweedfs(stage.work / "wrk-s3", gently=False))
        database = live.enter_context(postgresql(stage.work / "wrk-postgres"))
        server.make_bucket("pqreg")
        settings = {
            **server.credentials.variables, "PQREG_STORAGE": "s3://pqreg", "PQREG_S3_ENDPOINT": server.endpoint,
            "PQREG_DATABASE": database.create("pqreg"),
        }  # fmt: skip
        one = live.enter_context(stage.serving("wrk-one", **settings))
        key = str(stage.work / "wrk-one" / "log.key")
        second = live.enter_context(stage.serving("wrk-two", token=one.token, **settings, PQREG_LOG_KEY=key))
        yield one, second


def _asking(stage: Stage, stack: str, registries: list[Registry], model: Path) -> list[Contender]:
    env = stage.env_for(registries[0])
    state = {**env, "XDG_STATE_HOME": str(stage.work / "state" / stack)}  # each stack has a history of its own
    stage.pqreg("push", str(model), REFERENCE, "--key", str(stage.key), "--quiet", env=state)
    shown = json.loads(stage.pqreg("show", REFERENCE, "--json", env=state))
    digest = str(shown["digest"]).removeprefix("sha256:")
    missing = json.dumps({"digests": [f"sha256:{number:064x}" for number in range(100)], "slice_size": 2 << 20})
    asked = {
        "tag": (f"/v1/repos/{REPOSITORY}/tags/v1", None),
        "release": (f"/v1/repos/{REPOSITORY}/releases/{digest}", None),
        "statement with receipt": (f"/v1/statements/{digest}", None),
        "missing, 100 digests": (f"/v1/repos/{REPOSITORY}/missing", missing),
    }
    urls = [registry.url for registry in registries]
    return [
        Contender(
            name=f"{stack}: {what}",
            command=stage.child("child_wrk", str(SECONDS), str(CONNECTIONS), path, *urls),
            env=env if body is None else {**env, "BENCH_BODY": body},
            helpers=lambda: sum(registry.cpu() for registry in registries),
            ours=True,
        )
        for what, (path, body) in asked.items()
    ]


def catalogue_sections(stage: Stage, rounds: int, *, releases: int = RELEASES) -> list[Section]:
    """The hot queries in a full and in a nearly empty catalogue, on both engines."""
    place = stage.work / "catalogue"
    with postgresql(stage.work / "catalogue-postgres", synced=False) as server:

        def fresh() -> None:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            server.drop("bench")
            server.create("bench")

        databases = {"SQLite": str(place / "catalogue.sqlite3"), "PostgreSQL": server.create("bench")}
        contenders = [
            Contender(
                name=f"{engine}, {count} releases",
                command=stage.child("child_catalogue", database, str(count), str(CALLS)),
                env=stage.env,
                prepare=fresh,
                ours=True,
            )
            for engine, database in databases.items()
            for count in (FEW, releases)
        ]
        section = contest(
            "catalogue",
            "hot queries of the catalogue (seconds are those of filling it)",
            contenders,
            rounds=min(rounds, 1),
            patience=stage.patience,
            size=0,
            reference=contenders[0].name,
            notes=[
                f"ten blobs a release, a tag and ten releases a repository; {CALLS} calls of each query, other rows"
            ],
        )
        fresh()
    _compare(section)
    return [section]


def _compare(section: Section) -> None:
    for few, many in zip(section.results[::2], section.results[1::2], strict=True):
        if not few.runs or not many.runs:
            continue
        engine = many.contender.name.partition(",")[0]
        for name, found in many.runs[0].printed["queries"].items():
            before = few.runs[0].printed["queries"][name]
            section.notes.append(
                f"{engine}, {name}: {before['median_ms']:.2f} -> {found['median_ms']:.2f} ms, "
                f"p99 {before['p99_ms']:.2f} -> {found['p99_ms']:.2f} ms"
                + (f"; READS ALL: {found['whole'][0]}" if found["whole"] else "")
            )


def _median(result: Result, key: str) -> float:
    return result.median(lambda run: float(run.printed[key]))
