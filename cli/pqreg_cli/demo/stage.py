# SPDX-License-Identifier: Apache-2.0
"""The people of the demo and how their commands are run, checked and shown."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from pq_registry.errors import EXIT_REFUSED
from pqreg_cli.console import Output
from pqreg_cli.demo.model import Model
from pqreg_cli.demo.place import DemoFailed, Outcome, Person, Place
from pqreg_cli.demo.report import Report
from pqreg_cli.problem import STEPS

REPOSITORY = "acme/minilm"
REFERENCE = f"{REPOSITORY}:v1"
TRUST = "trust.json"
MODEL = "model"
"""The publisher's directory."""
PULLED = "node/minilm"
"""Where the node's verified copy lies."""
REGISTRY_DATA = "registry"
"""The registry service's data directory."""
VAULT = "vault"
"""That of a registry of its own for sealed models: the other one holds the same model in the clear."""


@dataclass(slots=True)
class Stage:
    """What one step leaves for the next."""

    place: Place
    model: Model
    output: Output
    report: Report
    alice: Person = field(default_factory=lambda: Person("alice", {}))
    operator: Person = field(default_factory=lambda: Person("operator", {}))
    node: Person = field(default_factory=lambda: Person("node", {}))
    mallory: Person = field(default_factory=lambda: Person("mallory", {}))

    def good(self, person: Person, words: list[str], comment: str = "") -> Outcome:
        """Show and run a command that has to succeed."""
        self.report.command(person.name, ["pqreg", *words], comment)
        return self.quiet(person, words)

    def quiet(self, person: Person, words: list[str]) -> Outcome:
        """Run a command that has to succeed."""
        outcome = self.place.run(person, words)
        if outcome.status != 0:
            raise DemoFailed(
                f"`pqreg {' '.join(words)}` failed with exit status {outcome.status}",
                found=outcome.err.strip()[-2000:],
                hint="the demo stops here; everything it started is being stopped",
            )
        return outcome

    def data(self, person: Person, words: list[str]) -> dict[str, Any]:
        """The JSON of a command that has to succeed."""
        value: dict[str, Any] = json.loads(self.quiet(person, [*words, "--json"]).out)
        return value

    def refused(self, person: Person, words: list[str], *, step: int, what: str, comment: str = "") -> None:
        """Show and run a command that has to be refused at one step of the verification and at no other."""
        self.report.command(person.name, ["pqreg", *words], comment)
        outcome = self.place.run(person, words)
        found = re.search(r"^  step: +(\d+)", outcome.err, re.MULTILINE)
        if outcome.status != EXIT_REFUSED or found is None or int(found[1]) != step:
            raise DemoFailed(
                f"`pqreg {' '.join(words)}` was not refused as it must be",
                expected=f"exit status {EXIT_REFUSED} at step {step}, {STEPS[step]}",
                found=f"exit status {outcome.status}\n{outcome.err.strip()[-2000:]}",
            )
        self.report.refused(_block(outcome.err), what=what, result=f"refused at step {step}, {STEPS[step]}")


def rate_of(outcome: Outcome) -> str:
    """The rate in the last line of progress a command wrote."""
    rates: list[str] = re.findall(r"s, ([\d.]+ \w+/s)$", outcome.err, re.MULTILINE)
    return rates[-1] if rates else ""


def _block(err: str) -> str:
    """The error block alone: a pull also writes progress and notes."""
    start = err.find("error:")
    return err[max(start, 0) :]
