# SPDX-License-Identifier: Apache-2.0
"""Push and pull through an object store, beside what everybody uses for it, on one SeaweedFS and the same bytes.

Every push and its peers write into a store of their own that was empty, and that is thrown away afterwards. Pulls and
their peers read from one store: ours the objects of a release, the peers the same files as objects of a bucket.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pqreg_cli.engines.seaweedfs import SeaweedFS, seaweedfs
from tests.benchmarks.contest import Contender, Result, Section, contest
from tests.benchmarks.sections import CONNECTIONS, CORES, shell
from tests.benchmarks.stage import REFERENCE, Registry, Stage

PEERS = {"boto3": "boto3 {}_file, classic client", "obstore": "obstore {}"}
BUCKET = "pqreg"
OURS = f"pqreg {{}}, {CONNECTIONS} connections"


def s3_sections(stage: Stage, rounds: int) -> list[Section]:
    """Push and pull."""
    return [_push(stage, rounds), _pull(stage, rounds)]


@contextlib.contextmanager
def _store(stage: Stage, name: str) -> Iterator[SeaweedFS]:
    directory = stage.work / name
    try:
        with seaweedfs(directory, gently=False) as server:
            server.make_bucket(BUCKET)
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _settings(server: SeaweedFS) -> dict[str, str]:
    return {
        **server.credentials.variables,
        "PQREG_STORAGE": f"s3://{BUCKET}/bench",
        "PQREG_S3_ENDPOINT": server.endpoint,
        "BENCH_S3_ENDPOINT": server.endpoint,
    }


def _installed() -> list[str]:
    return [name for name in PEERS if importlib.util.find_spec(name) is not None]


class _Push:
    """What one run needs: a store, and for ours a registry on it."""

    def __init__(self, stage: Stage) -> None:
        self.env: dict[str, str] = {}
        self.registry: Registry | None = None
        self._stage = stage
        self._live = contextlib.ExitStack()

    def start(self, *, registry: bool) -> None:
        server = self._live.enter_context(_store(self._stage, "push-store"))
        settings = _settings(server)
        self.env.update(self._stage.env | settings)
        if registry:
            self.registry = self._live.enter_context(self._stage.serving("s3-push", **settings))
            self.env.update(self._stage.env_for(self.registry))

    def stop(self) -> None:
        self.registry = None
        self._live.close()
        shutil.rmtree(self._stage.work / "state", ignore_errors=True)

    def service_cpu(self) -> float:
        return 0.0 if self.registry is None else self.registry.cpu()


def _push(stage: Stage, rounds: int) -> Section:
    state = stage.work / "state"
    run = _Push(stage)
    names = {name: PEERS[name].format("upload" if name == "boto3" else "put") for name in _installed()}
    push = stage.child("child_push", "push", str(stage.corpus), REFERENCE, str(stage.key), str(state))
    contenders = [
        Contender(
            name=OURS.format("push") + ": hash, upload, verify, commit, tag",
            command=push,
            env=run.env,
            prepare=lambda: run.start(registry=True),
            clean=run.stop,
            helpers=run.service_cpu,
            ours=True,
        ),
        *(
            Contender(
                name=names[name],
                command=stage.child("child_s3", f"upload-{name}", "peer", str(stage.corpus)),
                env=run.env,
                prepare=lambda: run.start(registry=False),
                clean=run.stop,
            )
            for name in names
        ),
    ]
    stage.warm(stage.corpus)
    try:
        section = contest(
            "s3-push",
            "push to an object store (SeaweedFS on loopback)",
            contenders,
            rounds=rounds,
            patience=stage.patience,
            size=stage.size,
            reference=names["boto3"],
            notes=[
                f"client, service and store share {CORES} CPUs",
                "ours hashes first, and the service reads every byte back and verifies it; peers send what is there",
                "CPU s: of the client, + of the service; the store's own is in neither",
            ],
        )
    finally:
        run.stop()
    _say_service_cpu(section, stage.size)
    ours = section.results[0]
    for phase in ("hash", "send"):
        if ours.runs and f"{phase}_seconds" in ours.runs[0].printed:
            seconds = ours.median(lambda run, phase=phase: run.printed[f"{phase}_seconds"])  # type: ignore[misc]
            section.notes.append(f"of ours {phase}: {seconds:.2f} s, {stage.size / seconds / 1e9:.2f} GB/s")
    return section


def _pull(stage: Stage, rounds: int) -> Section:
    out = stage.work / "out"
    names = {name: PEERS[name].format("download" if name == "boto3" else "get") + ", + fsync" for name in _installed()}
    one, many = "curl of presigned URLs, one stream, + fsync", f"curl of presigned URLs, {CONNECTIONS} streams, + fsync"
    with _store(stage, "pull-store") as server, stage.serving("s3-pull", **_settings(server)) as registry:
        stage.push(registry)
        env = {**stage.env_for(registry), **_settings(server)}
        subprocess.run(
            stage.child("child_s3", "upload-boto3", "peer", str(stage.corpus)), check=True, env=env, timeout=1800
        )

        def contender(name: str, command: list[str], *, ours: bool = False) -> Contender:
            return Contender(
                name=name, command=command, env=env, ours=ours, helpers=registry.cpu if ours else lambda: 0.0,
                prepare=lambda: shutil.rmtree(out, ignore_errors=True),
                clean=lambda: shutil.rmtree(out, ignore_errors=True),
            )  # fmt: skip

        pull = stage.command("pull", REFERENCE, str(out), "-q", "--connections", str(CONNECTIONS))
        signed = _presigned(stage, env)
        section = contest(
            "s3-pull",
            "pull from an object store (SeaweedFS on loopback) to disk",
            [
                contender(f"{OURS.format('pull')} (verified, fsynced)", pull, ours=True),
                *(
                    contender(names[name], stage.child("child_s3", f"download-{name}", "peer", str(out)))
                    for name in names
                ),
                contender(one, _curl(signed, out, "")),
                contender(many, _curl(signed, out, f"-Z --parallel-max {CONNECTIONS}")),
            ],
            rounds=rounds,
            patience=stage.patience,
            size=stage.size,
            reference=names["boto3"],
            notes=[
                f"client, service and store share {CORES} CPUs; peers verify nothing",
                "CPU s: of the client, + of the service; the store's own is in neither",
            ],
        )
    _say_service_cpu(section, stage.size)
    return section


def _presigned(stage: Stage, env: dict[str, str]) -> dict[Path, str]:
    names = [path.relative_to(stage.corpus) for path in stage.files()]
    command = stage.child("child_s3", "presign", "peer", *map(str, names))
    done = subprocess.run(command, check=True, env=env, capture_output=True, text=True)
    return dict(zip(names, done.stdout.split(), strict=True))


def _curl(signed: dict[Path, str], out: Path, options: str) -> list[str]:
    listed = " ".join(f"-o {shlex.quote(str(out / name))} {shlex.quote(url)}" for name, url in signed.items())
    sync = f"find {out} -type f -exec sync {{}} +"
    return shell(f"curl -sS --fail --create-dirs {options} {listed}; {sync}")


def _say_service_cpu(section: Section, size: int) -> None:
    ours: Result = section.results[0]
    if ours.runs:
        seconds = ours.median(lambda run: run.helper_cpu)
        section.notes.append(f"the service used {seconds / (size / 1e9):.2f} CPU seconds per GB")
