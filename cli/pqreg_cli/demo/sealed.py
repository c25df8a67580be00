# SPDX-License-Identifier: Apache-2.0
"""The sealed part: a model that only granted nodes can read, in a registry that everybody may copy whole."""

from __future__ import annotations

import filecmp
import hashlib
import json
import time
from pathlib import Path

from pqreg_cli.console import count_text, size_text
from pqreg_cli.demo.log import policy_of, trust_log
from pqreg_cli.demo.place import DemoFailed, Person
from pqreg_cli.demo.stage import MODEL, TRUST, VAULT, Stage, rate_of
from pqreg_cli.demo.windows import WINDOW, Windows

SEALED = "acme/secret:v1"
MIRROR = "mirror/secret"
UNSEALED = "node/secret"


def show_sealed(stage: Stage) -> None:
    """Seal, load with a grant, and fail without one, with the whole storage in hand."""
    vault = _recipients(stage)
    _push(stage, vault["alice"])
    _load(stage, vault["node1"])
    _pull(stage, vault["node1"])
    _ungranted(stage, vault["node2"])
    _mirror(stage, vault["mirror"])
    _operator(stage)


def _recipients(stage: Stage) -> dict[str, Person]:
    stage.report.step("Two nodes make recipient keys; a new registry is started, which is never to see a model's bytes")
    for name in ("node1", "node2"):
        stage.good(Person(name, {}), ["key", "generate", name, "--recipient", "--dir", "keys", "--no-passphrase"])
    url = stage.place.registry(stage.operator.having(PQREG_LOG_WITNESSES=policy_of(VAULT)), VAULT)
    token = (stage.place.root / VAULT / "admin.token").read_text().strip()
    operator = stage.operator.having(PQREG_REGISTRY=url, PQREG_TOKEN=token)
    trust_log(stage, operator)
    tokens = {
        role: str(
            stage.data(operator, ["token", "create", "--role", role, "--namespace", "acme", "--days", "1"])["token"]
        )
        for role in ("owner", "reader")
    }
    stage.report.done(
        "MLKEM1024-P384: whoever records the traffic today needs to break both halves",
        what="recipient keys",
        result="node1 and node2, MLKEM1024-P384",
    )
    reader = {"PQREG_REGISTRY": url, "PQREG_TOKEN": tokens["reader"], "PQREG_TRUST": TRUST}
    return {
        "alice": stage.alice.having(PQREG_REGISTRY=url, PQREG_TOKEN=tokens["owner"]),
        "node1": Person("node1", {**reader, "PQREG_RECIPIENT_KEY": "keys/node1.pqkey"}),
        "node2": Person("node2", {**reader, "PQREG_RECIPIENT_KEY": "keys/node2.pqkey"}),
        "mirror": Person("mirror", reader),
    }


def _push(stage: Stage, alice: Person) -> None:
    stage.report.step("Alice seals the model, publishes it, and grants it to node1")
    words = ["push", MODEL, SEALED, "--key", "keys/alice.pqkey", "--seal", "--to", "keys/node1.pqpub"]
    outcome = stage.good(alice, words)
    stage.report.done(
        "every 2 MiB under a key of its own; the content key is wrapped for node1 and for Alice, and for nobody else",
        what="push --seal",
        result=f"{size_text(stage.model.size)} sealed, signed and published",
        seconds=outcome.seconds,
        rate=rate_of(outcome),
    )


def _load(stage: Stage, node: Person) -> None:
    stage.report.step("The granted node loads it: verified, then decrypted in memory")
    original = Path(MODEL) / stage.model.weights.relative_to(stage.model.directory)
    words = ["compare.py", SEALED, str(original)]
    stage.report.command("node1", ["python", *words], f'pq_registry.load("{SEALED}"), then a comparison')
    outcome = stage.place.run(node, words, program=())
    if outcome.status != 0:
        raise DemoFailed("loaded tensors differ from the original's", found=(outcome.out + outcome.err)[-2000:])
    result = json.loads(outcome.out)
    stage.report.done(
        f"{count_text(result['tensors'], 'tensor')}, bit for bit those of {stage.model.weights.name}",
        what="load, sealed",
        result=f"{count_text(result['tensors'], 'tensor')}, bit for bit the original's",
        seconds=result["seconds"],
        rate=f"{size_text(int(result['bytes'] / result['seconds']))}/s",
    )


def _pull(stage: Stage, node: Person) -> None:
    stage.report.step("It can also have the files, and prove afterwards what they are, offline and without the key")
    outcome = stage.good(node, ["pull", SEALED, UNSEALED])
    for original in stage.model.files:
        relative = original.relative_to(stage.model.directory)
        if not filecmp.cmp(original, stage.place.root / UNSEALED / relative, shallow=False):
            raise DemoFailed(f"{relative} differs from the original")
    offline = node.having(PQREG_REGISTRY=None, PQREG_TOKEN=None, PQREG_RECIPIENT_KEY=None)
    stage.good(offline, ["verify", UNSEALED, "--expect", "acme/secret"])
    stage.report.done(
        "the signature over the ciphertext commits to the plaintext as well",
        what="pull, unsealed",
        result="every byte verified, equal to the original",
        seconds=outcome.seconds,
        rate=rate_of(outcome),
    )


def _ungranted(stage: Stage, node: Person) -> None:
    stage.report.step("A node without a grant tries the same")
    stage.refused(node, ["pull", SEALED, "node2/secret"], step=7, what="a node without a grant")
    if (stage.place.root / "node2" / "secret").exists():
        raise DemoFailed("something stands where the ungranted node wanted the model")


def _mirror(stage: Stage, mirror: Person) -> None:
    stage.report.step("A mirror copies it all, sealed, and verifies every byte without any key; so may anybody")
    stage.good(mirror, ["verify", SEALED], "in the registry")
    stage.good(mirror, ["pull", SEALED, MIRROR, "--sealed"])
    offline = mirror.having(PQREG_REGISTRY=None, PQREG_TOKEN=None)
    outcome = stage.good(offline, ["verify", MIRROR, "--expect", "acme/secret"])
    stage.report.done(
        "signatures and digests are over the ciphertext",
        what="pull --sealed, verify",
        result="verified without a key, offline",
        seconds=outcome.seconds,
        rate=rate_of(outcome),
    )


def _operator(stage: Stage) -> None:
    stage.report.step(
        "ATTACK: the operator searches the registry's whole data directory and the mirror for a piece of the model"
    )
    begun = time.monotonic()
    windows = Windows(path.read_bytes() for path in stage.model.files)
    places = (stage.place.root / VAULT, stage.place.root / f"{VAULT}.log", stage.place.root / MIRROR)
    size = 0
    searched: set[str] = set()  # the mirror's files are the registry's: each content is searched once
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if not path.is_file():
                continue
            size += path.stat().st_size
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest in searched:
                continue
            searched.add(digest)
            window = windows.found_in(path)
            if window is not None:
                raise DemoFailed(f"{path.relative_to(stage.place.root)} holds a piece of the model", found=window.hex())
    if size < stage.model.size:
        raise DemoFailed("the search saw less than the model", found=size_text(size))
    own = windows.found_in(stage.place.root / UNSEALED / stage.model.weights.relative_to(stage.model.directory))
    if own is None:
        raise DemoFailed("the search does not even find the model in the model")
    stage.report.done(
        f"{size_text(size)} hold none of the model's windows of {WINDOW} bytes; node1's copy does, so the search works",
        what="operator and mirror search",
        result=f"no {WINDOW} bytes of the model in {size_text(size)}",
        seconds=time.monotonic() - begun,
    )
