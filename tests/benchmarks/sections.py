# SPDX-License-Identifier: Apache-2.0
"""The jobs that are measured, and who does each of them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.contest import Contender, Section, contest
from tests.benchmarks.stage import REFERENCE, Registry, Stage

CORES = len(os.sched_getaffinity(0))
CONNECTIONS = 4


def shell(script: str) -> list[str]:
    """A shell pipeline as a contender."""
    return ["/bin/sh", "-ec", script]


def words(paths: Sequence[Path | str]) -> str:
    """Quoted for the shell."""
    return shlex.join(map(str, paths))


def hash_section(stage: Stage, rounds: int) -> Section:
    """Pass 1 of a push."""
    files = words(stage.files())
    serial = "openssl dgst -sha256, one file after another"
    contenders = [
        Contender(
            name="pqreg push, pass 1: SHA-256 + BLAKE3 + tensor tables",
            command=stage.child("child_push", "hash", str(stage.corpus)),
            env=stage.env,
            ours=True,
        ),
        Contender(name=serial, command=shell(f"openssl dgst -sha256 {files}")),
        Contender(
            name=f"openssl dgst -sha256, {CORES} files at a time",
            command=shell(f"printf '%s\\0' {files} | xargs -0 -n1 -P{CORES} openssl dgst -sha256"),
        ),
    ]
    stage.warm(stage.corpus)
    return contest(
        "hash",
        "push: hash pass",
        contenders,
        rounds=rounds,
        patience=stage.patience,
        size=stage.size,
        reference=serial,
        notes=["from page cache; ours computes two digests, the peer one"],
    )


def push_section(stage: Stage, rounds: int) -> Section:
    """A whole push to an empty registry, beside a copy of the same files."""
    state, copy = stage.work / "state", stage.work / "copy"
    live = contextlib.ExitStack()
    env, registry = dict(stage.env), []

    def start() -> None:
        registry.append(live.enter_context(stage.serving("push-data")))
        env.update(stage.env_for(registry[-1]))

    def stop() -> None:
        registry.clear()
        live.close()
        shutil.rmtree(state, ignore_errors=True)

    copying = "cp + fsync of the same files"
    push = stage.child("child_push", "push", str(stage.corpus), REFERENCE, str(stage.key), str(state))
    contenders = [
        Contender(
            name="pqreg push: hash, upload, verify, commit, tag",
            command=push,
            env=env,
            prepare=start,
            clean=stop,
            helpers=lambda: registry[-1].cpu() if registry else 0.0,
            ours=True,
        ),
        Contender(
            name=copying,
            command=shell(f"mkdir {copy}; cp -r {stage.corpus}/. {copy}; find {copy} -type f -exec sync {{}} +"),
            clean=lambda: shutil.rmtree(copy, ignore_errors=True),
        ),
    ]
    stage.warm(stage.corpus)
    try:
        section = contest(
            "push",
            "push to a registry on loopback",
            contenders,
            rounds=rounds,
            patience=stage.patience,
            size=stage.size,
            reference=copying,
            notes=[
                f"{CONNECTIONS} connections; the registry verifies both digests and fsyncs, on the same {CORES} CPUs"
            ],
        )
    finally:
        live.close()
    ours = section.results[0]
    for phase in ("hash", "send"):
        if ours.runs and f"{phase}_seconds" in ours.runs[0].printed:
            seconds = ours.median(lambda run, phase=phase: run.printed[f"{phase}_seconds"])  # type: ignore[misc]
            section.notes.append(f"of it {phase}: {seconds:.2f} s, {stage.size / seconds / 1e9:.2f} GB/s")
    return section


def verify_section(stage: Stage, rounds: int) -> Section:
    """Verification of a directory that was pulled."""
    pem = stage.work / "ec.pem"
    text = stage.key.with_suffix(".pqpub").read_text()
    pem.write_text(text[: text.index("-----END PUBLIC KEY-----")] + "-----END PUBLIC KEY-----\n")
    stock = "model_signing verify key (stock tool, same model.sig)"
    tool = [sys.executable, "-m", "model_signing"]
    contenders = [
        Contender(
            name="pqreg verify",
            command=stage.command("verify", str(stage.release), "-q"),
            env=stage.env,
            ours=True,
        ),
        Contender(
            name="pqreg verify --full",
            command=stage.command("verify", str(stage.release), "-q", "--full"),
            env=stage.env,
            ours=True,
        ),
        Contender(
            name=stock,
            command=[*tool, "verify", "key", str(stage.release), "--signature", str(stage.release / "model.sig"),
                     "--public_key", str(pem), "--ignore-paths", str(stage.release / "model.pq.sig")],
            env=stage.env,
        ),
    ]  # fmt: skip
    stage.warm(stage.release)
    return contest(
        "verify",
        "verify a pulled directory",
        contenders,
        rounds=rounds,
        patience=stage.patience,
        size=stage.size,
        reference=stock,
        notes=["from page cache, start-up of each tool included; pqreg checks two signatures, the peer one"],
    )


def pull_section(stage: Stage, rounds: int, registry: Registry) -> Section:
    """A pull over loopback, beside unverified downloads of the same blobs to the same disk."""
    out = stage.work / "out"
    env = stage.env_for(registry)
    blobs = {path: registry.url + route for path, route in stage.blobs().items()}
    header = shlex.quote(f"Authorization: Bearer {registry.token}")
    sync = f"find {out} -type f -exec sync {{}} +"
    listed = " ".join(f"-o {shlex.quote(str(out / path))} {shlex.quote(url)}" for path, url in blobs.items())
    curl = f"curl -sS --fail --create-dirs -H {header}"
    one = "curl, one stream, + fsync (not verified)"
    many = f"curl, {CONNECTIONS} streams, + fsync (not verified)"

    def contender(name: str, command: Sequence[str], *, ours: bool = False) -> Contender:
        return Contender(
            name=name,
            command=command,
            env=env,
            prepare=lambda: shutil.rmtree(out, ignore_errors=True),
            clean=lambda: shutil.rmtree(out, ignore_errors=True),
            helpers=registry.cpu,
            ours=ours,
        )

    pull = stage.command("pull", REFERENCE, str(out), "-q", "--connections", str(CONNECTIONS))
    contenders = [
        contender(f"pqreg pull, {CONNECTIONS} connections (verified, fsynced)", pull, ours=True),
        contender(one, shell(f"{curl} {listed}; {sync}")),
        contender(many, shell(f"{curl} -Z --parallel-max {CONNECTIONS} {listed}; {sync}")),
    ]
    if importlib.util.find_spec("huggingface_hub") is not None:
        pairs = [f"{url}={path}" for path, url in blobs.items()]
        contenders.append(
            contender("huggingface_hub http_get, one stream, + fsync (not verified)",
                      stage.child("child_fetch", str(out), *pairs))
        )  # fmt: skip
    return contest(
        "pull",
        "pull over loopback to disk",
        contenders,
        rounds=rounds,
        patience=stage.patience,
        size=stage.size,
        reference=one,
        notes=[f"the registry serves from page cache, over plain HTTP, on the same {CORES} CPUs"],
    )


def scale_section(stage: Stage, rounds: int) -> Section:
    """Documents of a terabyte."""
    directory = stage.work / "scale"
    made: list[bool] = []

    def make() -> None:
        if not made:
            subprocess.run(
                stage.child("child_scale", "make", str(directory)), check=True, env=stage.env, stdout=subprocess.DEVNULL
            )
            made.append(True)

    name = "verify envelope, statement and manifest of 1 TB (steps 0 to 6)"
    contender = Contender(
        name=name, command=stage.child("child_scale", "check", str(directory)), env=stage.env, prepare=make, ours=True
    )
    section = contest(
        "scale",
        "documents of a 1 TB release",
        [contender],
        rounds=rounds,
        patience=stage.patience,
        size=0,
        reference=name,
    )
    if section.results[0].runs:
        printed = section.results[0].runs[0].printed
        section.notes.append(
            f"{printed['files']} files, {printed['shards']} shards, {printed['tensors']} tensors, "
            f"{printed['bytes'] / 1e12:.2f} TB; synthetic digests"
        )
    return section


LOCAL: dict[str, Callable[[Stage, int], Section]] = {
    "hash": hash_section,
    "push": push_section,
    "verify": verify_section,
    "scale": scale_section,
}
KEYS = ("hash", "push", "pull", "hub", "verify", "seal", "scale", "log", "s3", "metadata", "catalogue")
