# SPDX-License-Identifier: Apache-2.0
"""The example of a CronJob that mirrors: it parses, calls a command that exists and holds no secret."""

from __future__ import annotations

from typing import Any

import yaml

from pq_registry.settings import SETTINGS
from tests.deploy.test_units import command
from tests.deploy.tooling import DEPLOY

JOB: dict[str, Any] = yaml.safe_load((DEPLOY / "kubernetes" / "mirror.yaml").read_text("utf-8"))
POD = JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_it_calls_a_command_that_exists() -> None:
    found, rest = command(CONTAINER["command"][1:])
    options = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options


def test_secrets_come_from_a_secret() -> None:
    secret = {setting.variable for setting in SETTINGS if setting.secret}
    known = {setting.variable for setting in SETTINGS}
    for variable in CONTAINER["env"]:
        name = variable["name"]
        assert not name.startswith("PQREG_") or name in known
        assert name not in secret or "secretKeyRef" in variable["valueFrom"]


def test_everything_it_mounts_is_there_and_it_is_confined() -> None:
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert JOB["spec"]["concurrencyPolicy"] == "Forbid"
