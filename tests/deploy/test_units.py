# SPDX-License-Identifier: Apache-2.0
"""Units for systemd: they parse, call commands that exist with options they have, and confine what they start."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from pq_registry.settings import SETTINGS
from pqreg_cli.main import app
from tests.deploy.tooling import DEPLOY, needs, run

FOLDER = DEPLOY / "systemd"
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")])
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
MOST_EXPOSURE = 1.5
"""What ``systemd-analyze security`` says, of 10."""


def parsed(unit: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    return parser


def command(words: list[str]) -> Any:
    """The command a line calls, and what is left of the line."""
    found: Any = typer.main.get_command(app)
    context = found.make_context("pqreg", ["--help"], resilient_parsing=True)
    while words and hasattr(found, "get_command") and not words[0].startswith("-"):
        name, *words = words
        found = found.get_command(context, name)
        assert found is not None, name
    return found, words


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_services_call_commands_that_exist(unit: Path) -> None:
    words = shlex.split(parsed(unit)["Service"]["ExecStart"])
    if words[0] == "/usr/local/lib/pqreg/pqreg-backup":
        assert (DEPLOY / "backup" / "pqreg-backup").is_file()
        return
    assert words[0] == "/usr/local/bin/pqreg"
    found, rest = command(words[1:])
    options = {option for parameter in found.params for option in parameter.opts}
    given = {word for word in rest if word.startswith("-")}
    assert given <= options, given - options


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_services_are_confined(unit: Path) -> None:
    service = parsed(unit)["Service"]
    assert service.get("DynamicUser") == "yes" or service["User"].startswith("pqreg")
    assert service["CapabilityBoundingSet"] == ""
    for setting in ("NoNewPrivileges", "PrivateDevices", "PrivateTmp", "ProtectHome", "RestrictNamespaces"):
        assert service[setting] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["UMask"] == "0077"
    if unit.name in ("pqreg.service", "pqreg-gateway.service", "pqreg-witness.service"):
        assert service["Restart"] == "on-failure"
        assert service["RestartPreventExitStatus"] == "2"
    # What is not in the state directory cannot be written.
    assert all(word.startswith("pqreg") for word in service["StateDirectory"].split())


def test_every_timer_has_its_service_and_every_job_its_timer() -> None:
    timers = {unit.stem for unit in UNITS if unit.suffix == ".timer"}
    jobs = {unit.stem for unit in SERVICES if parsed(unit)["Service"]["Type"] == "oneshot"}
    assert timers == jobs == {"pqreg-audit", "pqreg-backup", "pqreg-events", "pqreg-fsck", "pqreg-gc", "pqreg-mirror"}
    assert all(parsed(FOLDER / f"{name}.timer")["Timer"]["Persistent"] == "yes" for name in timers)


def test_users_of_the_units_are_made() -> None:
    made = set(re.findall(r"^u (\S+)", (FOLDER / "pqreg.sysusers").read_text(), re.MULTILINE))
    assert made == {parsed(unit)["Service"]["User"] for unit in SERVICES if "User" in parsed(unit)["Service"]}


def test_the_examples_name_settings_that_exist_and_hold_no_secret() -> None:
    known = {setting.variable: setting for setting in SETTINGS}
    for name in ("registry.env.example", "pqreg-stores.conf"):
        for variable in re.findall(r"\bPQREG_[A-Z0-9_]+\b", (FOLDER / name).read_text()):
            assert variable in known, f"{name}: {variable}"
            assert not known[variable].secret, f"{name}: {variable}"


def here(directory: Path) -> list[Path]:
    """The units with programs that are installed everywhere in place of ours."""
    found = []
    for unit in UNITS:
        path = directory / unit.name
        path.write_text(re.sub(r"/usr/local/(bin|lib/pqreg)/[a-z-]+", "/bin/true", unit.read_text()))
        found.append(path)
    return found


@needs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    assert not run("systemd-analyze", "verify", *here(tmp_path)).stderr


@needs("systemd-analyze")
def test_systemd_finds_little_exposed(tmp_path: Path) -> None:
    for unit in here(tmp_path):
        if unit.suffix == ".service":
            done = run("systemd-analyze", "security", "--offline=yes", "--no-pager", unit, status=None)
            if "Unknown" in done.stderr or "unrecognized" in done.stderr:
                pytest.skip("this systemd cannot judge a unit that is not installed")
            level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
            assert level is not None, done.stdout + done.stderr
            assert float(level[1]) <= MOST_EXPOSURE, f"{unit.name}: {level[1]}"
