# SPDX-License-Identifier: Apache-2.0
"""The main path: keys and trust, serve, push, pull, verify, load; each by the command a user would type."""

from __future__ import annotations

import filecmp
import json
import shutil
import time
from pathlib import Path

from pqreg_cli.console import count_text, size_text
from pqreg_cli.demo import compare
from pqreg_cli.demo.log import arrange_witness, policy_of, trust_log
from pqreg_cli.demo.place import DemoFailed
from pqreg_cli.demo.stage import MODEL, PULLED, REFERENCE, REGISTRY_DATA, REPOSITORY, TRUST, Stage, rate_of

_KILL_AFTER = 0.25
"""Share of the model that has arrived when the pull is killed."""
_SLOW = 4
"""Seconds the slowed pull would take, so that there is time to kill it."""
_PATIENCE = 30.0


def show_main_path(stage: Stage) -> None:
    """Everything that is meant to work."""
    _keys_and_trust(stage)
    arrange_witness(stage)
    _serve(stage)
    _log(stage)
    _push(stage)
    _pull(stage)
    _verify(stage)
    _load(stage)
    _hugging_face(stage)
    _killed_pull(stage)


def _keys_and_trust(stage: Stage) -> None:
    stage.report.step("Alice makes a signing identity; the node decides to believe it for the namespace acme")
    (stage.place.root / MODEL).symlink_to(stage.model.directory)
    made = stage.good(stage.alice, ["key", "generate", "alice", "--dir", "keys", "--no-passphrase"])
    trusted = stage.good(stage.node, ["trust", "init", TRUST, "--publisher", "acme=keys/alice.pqpub"])
    stage.report.done(
        "two signing keys, ECDSA P-384 and ML-DSA-87; both have to sign",
        what="keys and trust",
        result="one identity, trusted for acme",
        seconds=made.seconds + trusted.seconds,
    )


def _serve(stage: Stage) -> None:
    stage.report.step("A registry is started; nobody has to believe it")
    stage.report.settings("operator", PQREG_LOG_WITNESSES=policy_of(REGISTRY_DATA))
    stage.report.command("operator", ["pqreg", "serve", "--data", REGISTRY_DATA, "--listen", "127.0.0.1:0"])
    begun = time.monotonic()
    url = stage.place.registry(stage.operator.having(PQREG_LOG_WITNESSES=policy_of(REGISTRY_DATA)), REGISTRY_DATA)
    admin = (stage.place.root / REGISTRY_DATA / "admin.token").read_text().strip()
    seconds = time.monotonic() - begun
    stage.operator = stage.operator.having(PQREG_REGISTRY=url, PQREG_TOKEN=admin)
    owner = _token(stage, "owner")
    reader = _token(stage, "reader")
    stage.alice = stage.alice.having(PQREG_REGISTRY=url, PQREG_TOKEN=owner)
    stage.node = stage.node.having(PQREG_REGISTRY=url, PQREG_TOKEN=reader, PQREG_TRUST=TRUST)
    stage.report.settings("alice", PQREG_REGISTRY=url, PQREG_TOKEN="(the owner's)")  # noqa: S106  a remark, no token
    stage.report.settings("node", PQREG_REGISTRY=url, PQREG_TOKEN="(the reader's)", PQREG_TRUST=TRUST)  # noqa: S106  a remark, no token
    stage.report.done(
        "Alice may write to acme, the node may only read; it says no to everybody else",
        what="serve",
        result="a registry with two tokens",
        seconds=seconds,
    )


def _log(stage: Stage) -> None:
    stage.report.step("From now on the node believes nothing that is not in the log, and cosigned by the witness")
    trust_log(stage, stage.operator)
    stage.report.done(
        "a signature that nobody could see is worth nothing to it",
        what="trust log add",
        result="receipts demanded, with one witness",
    )


def _token(stage: Stage, role: str) -> str:
    words = ["token", "create", "--role", role, "--namespace", "acme", "--days", "1"]
    stage.report.command("operator", ["pqreg", *words])
    return str(stage.data(stage.operator, words)["token"])


def _push(stage: Stage) -> None:
    stage.report.step("Alice signs and publishes the model")
    words = ["push", MODEL, REFERENCE, "--key", "keys/alice.pqkey"]
    if stage.model.license:
        words += ["--license", stage.model.license]
    outcome = stage.good(stage.alice, words)
    stage.report.done(
        f"{size_text(stage.model.size)} hashed, signed, sent and checked by the registry",
        what="push",
        result=f"{size_text(stage.model.size)} in {count_text(len(stage.model.files), 'file')} signed and published",
        seconds=outcome.seconds,
        rate=rate_of(outcome),
    )


def _pull(stage: Stage) -> None:
    stage.report.step("The node pulls it")
    outcome = stage.good(stage.node, ["pull", REFERENCE, PULLED])
    for original in stage.model.files:
        relative = original.relative_to(stage.model.directory)
        copy = stage.place.root / PULLED / relative
        if not filecmp.cmp(original, copy, shallow=False):
            raise DemoFailed(f"{relative} differs from the original")
    stage.report.done(
        "signatures and every byte verified before a file got its name; all equal the originals",
        what="pull",
        result="every byte verified, equal to the original",
        seconds=outcome.seconds,
        rate=rate_of(outcome),
    )


def _verify(stage: Stage) -> None:
    stage.report.step("The copy proves itself, offline")
    offline = stage.node.having(PQREG_REGISTRY=None, PQREG_TOKEN=None)
    outcome = stage.good(offline, ["verify", PULLED, "--expect", REPOSITORY])
    stage.report.done(
        "the directory holds its own evidence; the trust file is all that is needed",
        what="verify",
        result="offline, every byte",
        seconds=outcome.seconds,
        rate=rate_of(outcome),
    )


def _load(stage: Stage) -> None:
    stage.report.step("A program loads the weights straight from the registry, verified, without writing them to disk")
    shutil.copy(compare.__file__, stage.place.root / "compare.py")
    original = Path(MODEL) / stage.model.weights.relative_to(stage.model.directory)
    words = ["compare.py", REFERENCE, str(original)]
    stage.report.command("node", ["python", *words], f'pq_registry.load("{REFERENCE}"), then a comparison')
    outcome = stage.place.run(stage.node, words, program=())
    if outcome.status != 0:
        raise DemoFailed("loaded tensors differ from the original's", found=(outcome.out + outcome.err)[-2000:])
    result = json.loads(outcome.out)
    stage.report.done(
        f"{count_text(result['tensors'], 'tensor')}, bit for bit those of {stage.model.weights.name}",
        what="load",
        result=f"{count_text(result['tensors'], 'tensor')}, bit for bit the original's",
        seconds=result["seconds"],
        rate=f"{size_text(int(result['bytes'] / result['seconds']))}/s",
    )


def _hugging_face(stage: Stage) -> None:
    stage.report.step("The same for programs that know only Hugging Face")
    outcome = stage.good(stage.node, ["pull", REFERENCE, "hf", "--hf-cache"])
    snapshots = list((stage.place.root / "hf" / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots").iterdir())
    weights = snapshots[0] / stage.model.weights.relative_to(stage.model.directory)
    if len(snapshots) != 1 or not filecmp.cmp(stage.model.weights, weights, shallow=False):
        raise DemoFailed("the Hugging Face cache does not hold the model")
    stage.report.done(
        f'with HF_HUB_CACHE=hf HF_HUB_OFFLINE=1, from_pretrained("{REPOSITORY}") finds it',
        what="pull --hf-cache",
        result="from_pretrained finds it offline",
        seconds=outcome.seconds,
        rate=rate_of(outcome),
    )


def _killed_pull(stage: Stage) -> None:
    stage.report.step("A pull is killed (kill -9) and run again")
    rate = str(max(stage.model.size // _SLOW, 1))
    words = ["pull", REFERENCE, "node/again"]
    stage.report.command("node", ["pqreg", *words], "kill -9, on the way")
    victim = stage.place.start(stage.node, [*words, "--limit-rate", rate])
    _wait_for(stage, stage.place.root / "node" / "again", int(stage.model.size * _KILL_AFTER))
    victim.kill()
    victim.wait()
    stage.report.command("node", ["pqreg", *words])
    result = stage.data(stage.node, words)
    fetched = int(result["fetched"])
    if fetched >= stage.model.size:
        raise DemoFailed("the second pull fetched everything again", found=size_text(fetched))
    stage.report.done(
        f"the second run fetched only the {size_text(fetched)} that were missing, of {size_text(stage.model.size)}",
        what="killed pull, run again",
        result=f"fetched {size_text(fetched)} of {size_text(stage.model.size)}: what was missing",
    )


def _wait_for(stage: Stage, directory: Path, size: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        files = [path for path in directory.rglob("*") if path.is_file()] if directory.is_dir() else []
        # Allocated blocks, because a file that is being filled has its final size from the start.
        if sum(_allocated(path) for path in files) >= size:
            return
        time.sleep(0.02)
    raise DemoFailed(f"the pull into {directory.relative_to(stage.place.root)} did not get going")


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
