# SPDX-License-Identifier: Apache-2.0
"""What the Hub's stock client gets from a registry, unverified, and through the gateway, verified.

The same release to the same disk: ``hf download`` from the registry, through gateways whose cache is empty, full or
none, beside ``pqreg pull`` and ``curl``. Everybody ends with an fsync of every file.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contest import Contender, Section, contest, process_cpu
from tests.benchmarks.sections import CONNECTIONS, CORES, shell
from tests.benchmarks.stage import REFERENCE, REPOSITORY, Registry, Stage

REVISION = REFERENCE.partition(":")[2]
DIRECT = "hf download from the registry (not verified)"
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs."""

    url: str
    pid: int

    def cpu(self) -> float:
        """Its CPU seconds so far."""
        return process_cpu(self.pid)

    def peak_mib(self) -> float:
        """The most memory it had until now."""
        found = _PEAK.search(Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0


@contextlib.contextmanager
def gateway(stage: Stage, registry: Registry, name: str, *, cached: bool = True) -> Iterator[Gateway]:
    """A gateway in front of ``registry`` with an empty cache, which goes with it."""
    cache, log, ready = stage.work / name, stage.work / f"{name}.log", stage.work / f"{name}.ready"
    size = str(2 * stage.size if cached else 0)
    words = ("gateway", "--listen", "127.0.0.1:0", "--cache", str(cache), "--cache-size", size, "--json")
    with log.open("w") as out, ready.open("w") as err:
        process = subprocess.Popen(
            stage.command(*words, "--connections", str(CONNECTIONS)), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            env={**stage.env_for(registry), "XDG_STATE_HOME": str(stage.work / f"{name}.state")},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (said := ready.read_text()).endswith("\n"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pqreg gateway did not start: {said[-600:]}")
            time.sleep(0.05)
        yield Gateway(json.loads(said.splitlines()[0])["url"], process.pid)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(cache, ignore_errors=True)


def hub_section(stage: Stage, rounds: int, registry: Registry) -> Section:
    """All of them, in one contest; what the gateways needed of memory is a note."""
    out, home = stage.work / "out", stage.work / "hf-home"
    peaks: dict[str, float] = {}
    live, env = contextlib.ExitStack(), stage.env_for(registry)
    running: list[Gateway] = []

    def clear() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)

    def contender(name: str, command: Sequence[str], *, env: Mapping[str, str] = env, ours: bool = False) -> Contender:
        return Contender(
            name=name, command=command, env=env, prepare=clear, clean=clear, helpers=registry.cpu, ours=ours
        )

    def through(name: str, *, warm: bool = False, cached: bool = True) -> Contender:
        """``hf download`` through a gateway; one that is warm served the same release once before."""
        environment = _environment(stage, "", "", home)
        fetch = _download(out)

        def start() -> None:
            clear()
            running.append(live.enter_context(gateway(stage, registry, "gateway", cached=cached)))
            environment["HF_ENDPOINT"] = running[-1].url
            if warm:
                subprocess.run(fetch, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                clear()

        def stop() -> None:
            clear()
            peaks[name] = max(peaks.get(name, 0.0), running.pop().peak_mib())
            live.close()

        def cpu() -> float:
            return registry.cpu() + sum(one.cpu() for one in running)

        return Contender(
            name=name, command=fetch, env=environment, prepare=start, clean=stop, helpers=cpu, ours=True
        )  # fmt: skip

    contenders = [
        contender(DIRECT, _download(out), env=_environment(stage, registry.url, registry.token, home)),
        through("hf download through the gateway, cache empty (verified)"),
        through("hf download through the gateway, cache full (verified)", warm=True),
        through("hf download through the gateway, no cache (verified)", cached=False),
        contender(
            f"pqreg pull, {CONNECTIONS} connections (verified)",
            stage.command("pull", REFERENCE, str(out), "-q", "--connections", str(CONNECTIONS)),
            ours=True,
        ),
        contender("curl of the same files, one stream (not verified)", _curl(stage, registry, out)),
        contender(
            f"curl of the same files, {CONNECTIONS} streams (not verified)",
            _curl(stage, registry, out, f"-Z --parallel-max {CONNECTIONS}"),
        ),
    ]
    with live:
        section = contest(
            "hub",
            "the Hub's client: from the registry and through the gateway, to disk",
            contenders,
            rounds=rounds,
            patience=stage.patience,
            size=stage.size,
            reference=DIRECT,
            notes=[
                f"registry, gateway and client share {CORES} CPUs; start-up of hf and an fsync of every file included",
                "CPU s beside the client's are those of the registry and the gateway",
            ],
        )
    section.notes += [f"memory of the gateway: {peak:.0f} MiB ({name})" for name, peak in peaks.items()]
    return section


def _environment(stage: Stage, url: str, token: str, home: Path) -> dict[str, str]:
    return {
        **stage.env, "HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }  # fmt: skip


def _download(out: Path) -> list[str]:
    hf = Path(sys.executable).with_name("hf")
    words = shlex.join([str(hf), "download", REPOSITORY, "--revision", REVISION, "--local-dir", str(out), "--quiet"])
    return shell(f"{words}; {_sync(out)}")


def _curl(stage: Stage, registry: Registry, out: Path, options: str = "") -> list[str]:
    header = shlex.quote(f"Authorization: Bearer {registry.token}")
    base = f"{registry.url}/{REPOSITORY}/resolve/{REVISION}"
    listed = " ".join(shlex.join(["-o", str(out / path), f"{base}/{path}"]) for path in stage.blobs())
    return shell(f"curl -sS --fail --create-dirs -H {header} {options} {listed}; {_sync(out)}")


def _sync(out: Path) -> str:
    return f"find {shlex.quote(str(out))} -type f -exec sync {{}} +"
