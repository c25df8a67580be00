# SPDX-License-Identifier: Apache-2.0
"""What sealing costs: sealing and unsealing beside age and openssl; pulling sealed beside plain."""

from __future__ import annotations

import shlex
import shutil
import subprocess

from tests.benchmarks.contest import Contender, Section, contest
from tests.benchmarks.sections import CORES, shell, words
from tests.benchmarks.stage import REFERENCE, SEALED_REPOSITORY, Registry, Stage

RAW = "-aes-256-ctr -K " + "07" * 32 + " -iv " + "00" * 16


def seal_sections(stage: Stage, rounds: int, registry: Registry) -> list[Section]:
    """Both directions, then pulls."""
    directions = _directions(stage, rounds)
    stage.make_sealed(registry)
    return [*directions, _pull(stage, rounds, registry)]


def _directions(stage: Stage, rounds: int) -> list[Section]:
    """Sealing and unsealing in memory, nothing written, beside tools that encrypt the same files to /dev/null."""
    weights = sorted(stage.corpus.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in weights)
    scratch = {name: stage.work / f"sealed-{name}" for name in ("ours", "age", "openssl")}
    identity = stage.work / "age.key"
    with_age = all(map(shutil.which, ("age", "age-keygen")))
    stage.warm(stage.corpus)
    sections = []
    try:
        _once(stage, stage.child("child_seal", "make", "1", str(stage.corpus), str(scratch["ours"])))
        each = f"for f in {words(weights)}; do n=$(basename $f)"
        _once(stage, shell(f"mkdir {scratch['openssl']}; {each}; openssl enc {RAW} -in $f "
                           f"-out {scratch['openssl']}/$n; done"))  # fmt: skip
        recipient = ""
        if with_age:
            _once(stage, shell(f"age-keygen -o {identity}"))
            recipient = _once(stage, ["age-keygen", "-y", str(identity)]).strip()
            _once(stage, shell(f"mkdir {scratch['age']}; {each}; age -r {recipient} -o {scratch['age']}/$n $f; done"))
        for mode, title in (("seal", "seal shards, nothing written"), ("unseal", "unseal shards, nothing written")):
            sealing = mode == "seal"
            tools = {
                "openssl enc -aes-256-ctr (no integrity)": (
                    "openssl",
                    f"openssl enc {RAW}{'' if sealing else ' -d'} -in",
                )
            }
            if with_age:
                how = f"-r {recipient}" if sealing else f"-d -i {shlex.quote(str(identity))}"
                tools[f"age {'-r' if sealing else '-d'} (X25519, ChaCha20-Poly1305)"] = ("age", f"age {how}")
            contenders = [
                Contender(
                    name=f"pqreg {mode}, {threads} thread{'s' * (threads > 1)}",
                    command=stage.child("child_seal", mode, str(threads), str(stage.corpus), str(scratch["ours"])),
                    env=stage.env,
                    ours=True,
                )
                for threads in sorted({1, CORES})
            ]
            for name, (kind, command) in tools.items():
                files = words(weights if sealing else [scratch[kind] / path.name for path in weights])
                for processes, how in ((1, "one file after another"), (CORES, f"{CORES} files at a time")):
                    line = (
                        f"printf '%s\\0' {files} | xargs -0 -P{processes} -I@ sh -c '{command} \"$1\" > /dev/null' - @"
                    )
                    contenders.append(Contender(name=f"{name}, {how}", command=shell(line)))
            notes = ["from page cache; ours: from shard to shard, start-up excluded; the tools: whole processes"]
            if not with_age:
                notes.append("age is not installed, so it was left out: apt-get install age")
            for path in scratch.values():
                if path.exists():
                    stage.warm(path)
            reference = next((c.name for c in contenders if c.name.startswith("age")), contenders[-2].name)
            sections.append(
                contest(mode, title, contenders, rounds=rounds, patience=stage.patience, size=size,
                        reference=reference, notes=notes)
            )  # fmt: skip
    finally:
        for path in scratch.values():
            shutil.rmtree(path, ignore_errors=True)
    return sections


def _pull(stage: Stage, rounds: int, registry: Registry) -> Section:
    """The same model over loopback to disk: plain, unsealed on the way, and as ciphertext."""
    out = stage.work / "out"
    plain = "pqreg pull of the plain release"
    contenders = [
        Contender(
            name=name,
            command=stage.command("pull", reference, str(out), "-q", *options),
            env={**stage.env_for(registry), "PQREG_RECIPIENT_KEY": str(stage.recipient)},
            prepare=lambda: shutil.rmtree(out, ignore_errors=True),
            clean=lambda: shutil.rmtree(out, ignore_errors=True),
            helpers=registry.cpu,
            ours=True,
        )
        for name, reference, options in (
            (plain, REFERENCE, ()),
            ("pqreg pull of the sealed release, unsealed", f"{SEALED_REPOSITORY}:v1", ()),
            ("pqreg pull --sealed: its ciphertext, without a key", f"{SEALED_REPOSITORY}:v1", ("--sealed",)),
        )
    ]
    return contest(
        "pull-sealed", "pull a sealed release beside the plain one", contenders,
        rounds=rounds, patience=stage.patience, size=stage.size, reference=plain,
        notes=["over loopback to disk; every byte verified and fsynced; start-up included"],
    )  # fmt: skip


def _once(stage: Stage, command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=stage.env, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[-600:]}")
    return done.stdout
