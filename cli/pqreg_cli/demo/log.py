# SPDX-License-Identifier: Apache-2.0
"""The log in the demo: a witness before anything is signed, an audit, and a registry that shows two histories."""

from __future__ import annotations

import re
import shutil

from pq_registry.errors import EXIT_MISBEHAVED
from pqreg_cli.demo.place import DemoFailed, Person
from pqreg_cli.demo.stage import MODEL, REFERENCE, REGISTRY_DATA, REPOSITORY, TRUST, VAULT, Stage

LOGS = {REGISTRY_DATA: "demo.example/log", VAULT: "demo.example/vault-log"}
"""The data directories of the two registries of the demo, and the names of their logs."""
WITNESS = "witness"
"""The witness's directory; it belongs to somebody else than the operator."""
AUDIT = "audit"
FORK = "fork"
"""The copy of the registry's data directory that tells another story."""


def arrange_witness(stage: Stage) -> None:
    """The logs' keys, a witness for them, and the policies by which the registries ask it."""
    stage.report.step("Before a registry starts: a log for all that is signed, and an independent witness for the log")
    for data, origin in LOGS.items():
        run = stage.good if data == REGISTRY_DATA else stage.quiet
        run(stage.operator, ["log", "keygen", "--data", data, "--origin", origin])
    witness = Person("witness", {})
    stage.good(witness, ["witness", "keygen", "--state", WITNESS, "--name", "witness.example/demo"])
    words = ["witness", "serve", "--state", WITNESS, "--listen", "127.0.0.1:0", "--log", f"{REGISTRY_DATA}/log.vkey"]
    stage.report.command("witness", ["pqreg", *words])
    url = stage.place.serve(witness, [*words, "--log", f"{VAULT}/log.vkey"], log="witness.log")
    for data in LOGS:
        words = ["log", "policy", "--vkey", f"{data}/log.vkey", "--witness", f"demo={url},{WITNESS}/witness.vkey"]
        if data == REGISTRY_DATA:
            stage.report.command("operator", ["pqreg", *words], f"> {policy_of(data)}")
        (stage.place.root / policy_of(data)).write_text(stage.quiet(stage.operator, words).out)
    stage.report.done(
        "it cosigns a checkpoint of the log only if the tree has grown out of the last one it signed",
        what="log and witness",
        result="both sign checkpoints with Ed25519 and ML-DSA-44",
    )


def policy_of(data: str) -> str:
    """The file that tells the registry in ``data`` whom to ask for cosignatures."""
    return f"{data}.policy"


def trust_log(stage: Stage, operator: Person) -> None:
    """The nodes' trust file demands receipts of the log of the operator's registry from now on."""
    fingerprint = stage.quiet(operator, ["log", "vkey", "--fingerprint"]).out.strip()
    words = ["trust", "log", "add", TRUST, "--fingerprint", fingerprint, "--witness", f"demo={WITNESS}/witness.vkey"]
    node = Person("node", {name: operator.settings[name] for name in ("PQREG_REGISTRY", "PQREG_TOKEN")})
    stage.good(node, words, "the operator told the fingerprint")


def show_audit(stage: Stage) -> None:
    """An auditor who holds the whole log against the trust file, and takes evidence home."""
    stage.report.step("An auditor reads the whole log, checks every signature in it, and takes evidence home")
    auditor = stage.node
    outcome = stage.good(auditor, ["audit", "--state", AUDIT])
    leaves = re.search(r"(\d+) leaves", outcome.out)
    if leaves is None:
        raise DemoFailed("the audit counted no leaves", found=outcome.out[-2000:])
    stage.quiet(auditor, ["key", "generate", "auditor", "--dir", "keys", "--no-passphrase"])
    stage.good(
        auditor, ["audit", "export", "--state", AUDIT, "--out", "evidence", REFERENCE, "--key", "keys/auditor.pqkey"]
    )
    offline = auditor.having(PQREG_REGISTRY=None, PQREG_TOKEN=None, PQREG_TRUST=None)
    stage.good(
        offline,
        ["audit", "check", "evidence", "--trust", TRUST, "--auditor", "keys/auditor.pqpub"],
        "years later, without a network",
    )
    stage.report.done(
        f"{leaves[1]} leaves: who signed what, when, and nothing unexpected",
        what="audit",
        result=f"{leaves[1]} leaves, all well; the evidence verifies offline",
        seconds=outcome.seconds,
    )


def keep_history(stage: Stage) -> None:
    """Copy the whole data directory, the log's keys included, for the fork; then let the log go on."""
    shutil.copytree(stage.place.root / REGISTRY_DATA, stage.place.root / FORK)
    stage.quiet(stage.alice, ["push", MODEL, f"{REPOSITORY}:stable", "--key", "keys/alice.pqkey"])


def show_fork(stage: Stage) -> None:
    """A registry that shows its auditor one history and its victim another."""
    stage.report.step(
        "ATTACK: the operator goes back to an older copy of everything, and lets the same log tell another story"
    )
    url = stage.place.registry(stage.operator, FORK)
    stage.good(
        stage.alice.having(PQREG_REGISTRY=url, PQREG_TOKEN=stage.operator.settings["PQREG_TOKEN"]),
        ["push", MODEL, f"{REPOSITORY}:other", "--key", "keys/alice.pqkey"],
        "Alice was talked into using the copy",
    )
    victim = stage.node.having(PQREG_REGISTRY=url, PQREG_TOKEN=stage.operator.settings["PQREG_TOKEN"])
    stage.refused(
        victim,
        ["pull", f"{REPOSITORY}:other", "node/other"],
        step=4,
        what="a forked log, without its witness",
        comment="the witness does not cosign a second history",
    )
    words = ["audit", "--state", AUDIT]
    stage.report.command("auditor", ["pqreg", *words])
    outcome = stage.place.run(victim, words)
    if outcome.status != EXIT_MISBEHAVED:
        raise DemoFailed(
            "the fork was not recognised",
            expected=f"exit status {EXIT_MISBEHAVED}",
            found=f"{outcome.status}\n{(outcome.out + outcome.err)[-2000:]}",
        )
    kept = list((stage.place.root / AUDIT / "evidence").rglob("*.note"))
    if len(kept) < 2:
        raise DemoFailed("the two checkpoints were not kept", found=len(kept))
    stage.report.refused(
        outcome.err[max(outcome.err.find("error:"), 0) :],
        what="a forked log, seen by the auditor",
        result=f"exit status {EXIT_MISBEHAVED}; both signed checkpoints are kept as proof",
    )
