# SPDX-License-Identifier: Apache-2.0
"""The part for programs that know only the Hugging Face Hub: its stock client at the registry and at the gateway."""

from __future__ import annotations

import filecmp
from importlib.util import find_spec

from pq_registry import limits
from pqreg_cli.demo.attacks import blob_of, flipped, largest_file
from pqreg_cli.demo.place import DemoFailed, Outcome, Person
from pqreg_cli.demo.stage import MODEL, REPOSITORY, Stage

_CLIENT = ("-m", "huggingface_hub.cli.hf")
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}


def show_hub(stage: Stage) -> None:
    """Download with the stock client; then change a bit in storage, which it takes, and the gateway does not."""
    if find_spec("huggingface_hub") is None:
        stage.report.text()
        stage.report.text("Left out: the Hub's own client, which is not installed (pip install huggingface_hub).")
        return
    registry = stage.node.settings["PQREG_REGISTRY"]
    direct = Person("node", {**_QUIET, "HF_ENDPOINT": registry, "HF_TOKEN": stage.node.settings["PQREG_TOKEN"]})
    _from_the_registry(stage, direct)
    stage.report.step("The gateway speaks the same protocol on the node itself, and verifies what it sends")
    words = ["gateway", "--listen", "127.0.0.1:0", "--cache-size", "0"]
    stage.report.command(stage.node.name, ["pqreg", *words])
    url = stage.place.serve(stage.node, words, log="gateway.log")
    through = Person("node", {**_QUIET, "HF_ENDPOINT": url})
    _from_the_gateway(stage, through)
    _flipped_byte(stage, direct, through)


def _from_the_registry(stage: Stage, client: Person) -> None:
    stage.report.step("The Hugging Face Hub's own client downloads from the registry")
    stage.report.settings(client.name, HF_ENDPOINT=client.settings["HF_ENDPOINT"], HF_TOKEN="(the reader's)")  # noqa: S106  a remark, no token
    outcome = _download(stage, client, "node/hf")
    _check(stage, outcome, "node/hf")
    stage.report.done(
        "the same files; it checks their length and nothing else",
        what="hf download from the registry",
        result="the same files, not verified",
        seconds=outcome.seconds,
    )


def _from_the_gateway(stage: Stage, client: Person) -> None:
    stage.report.settings(client.name, HF_ENDPOINT=client.settings["HF_ENDPOINT"])
    outcome = _download(stage, client, "node/hf-verified")
    _check(stage, outcome, "node/hf-verified")
    stage.report.done(
        "signatures, receipt and every shard were verified before a byte was sent",
        what="hf download through the gateway",
        result="the same files, verified",
        seconds=outcome.seconds,
    )


def _flipped_byte(stage: Stage, direct: Person, through: Person) -> None:
    stage.report.step("ATTACK: one bit of the weights is flipped in storage again, and that client asks for them")
    largest = largest_file(stage)
    with flipped(blob_of(stage, largest), min(largest.size, limits.SHARD_BYTES) // 2):
        taken = _download(stage, direct, "node/hf-flipped", largest.path.text, comment="from the registry")
        refused = _download(stage, through, "node/hf-refused", largest.path.text, comment="through the gateway")
    if taken.status != 0 or not (stage.place.root / "node/hf-flipped" / largest.path.text).is_file():
        raise DemoFailed("the stock client did not take a file of the right length", found=taken.err.strip()[-2000:])
    if refused.status == 0 or (stage.place.root / "node/hf-refused" / largest.path.text).exists():
        raise DemoFailed("the gateway let a changed file pass", found=refused.out.strip()[-2000:])
    stage.report.done(
        "by itself it takes the changed weights without a word; through the gateway it gets none of them",
        what="one flipped bit, hf download",
        result="taken from the registry, refused by the gateway",
    )


def _download(stage: Stage, client: Person, target: str, *files: str, comment: str = "") -> Outcome:
    words = ["download", REPOSITORY, *files, "--revision", "v1", "--local-dir", target]
    stage.report.command(client.name, ["hf", *words], comment)
    return stage.place.run(client, words, program=_CLIENT)


def _check(stage: Stage, outcome: Outcome, target: str) -> None:
    root = stage.place.root
    names = [str(path.relative_to(stage.model.directory)) for path in stage.model.files]
    _, wrong, absent = filecmp.cmpfiles(root / MODEL, root / target, names, shallow=False)
    if outcome.status != 0 or wrong or absent:
        raise DemoFailed(
            "the Hub's client did not get the model", expected=f"{len(names)} files as published",
            found=f"exit status {outcome.status}, other {wrong}, absent {absent}\n{outcome.err.strip()[-2000:]}",
        )  # fmt: skip
