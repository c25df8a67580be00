# SPDX-License-Identifier: Apache-2.0
"""The container file: pinned, without secrets, for a user other than root, from files that exist."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from pq_registry.settings import SETTINGS
from tests.deploy.tooling import DEPLOY, ROOT

FOLDER = DEPLOY / "container"
TEXT = (FOLDER / "Containerfile").read_text()
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
IGNORED = [line for line in (FOLDER / "Containerfile.dockerignore").read_text().splitlines() if line and line[0] != "#"]


def instructions(name: str) -> list[str]:
    return [line.split(None, 1)[1] for line in LINES if line.split(None, 1)[0] == name]


def last_stage() -> list[str]:
    return LINES[max(index for index, line in enumerate(LINES) if line.startswith("FROM ")) :]


def test_the_base_image_must_be_given_with_its_digest() -> None:
    assert "ARG PYTHON_IMAGE" in LINES  # no default
    assert {line.split(" AS ")[0] for line in instructions("FROM")} == {"${PYTHON_IMAGE}"}


def test_it_runs_as_a_user_other_than_root() -> None:
    assert [line for line in last_stage() if line.startswith("USER ")] == ["USER 10001:10001"]
    assert last_stage()[-2:] == ['ENTRYPOINT ["pqreg"]', 'CMD ["serve"]']


def test_nothing_is_fetched_that_is_not_checked() -> None:
    assert not instructions("ADD")
    assert not re.search(r"\b(curl|wget|git clone|apt-get)\b", TEXT)
    for line in instructions("RUN"):
        for command in re.split(r"&&|;", line):
            if re.search(r"pip\b.*\binstall\b", command):
                assert "--require-hashes" in command or "--no-index" in command, command


def test_no_secret_goes_in() -> None:
    assert not re.search(r"(?im)^(ENV|ARG)\b.*(password|secret|token|_key\b)", TEXT)
    secret = {setting.variable for setting in SETTINGS if setting.secret}
    assert not {variable for variable in secret if re.search(rf"\b{variable}\b", TEXT)}
    known = {setting.variable for setting in SETTINGS}
    assert set(re.findall(r"\bPQREG_[A-Z0-9_]+", TEXT)) <= known


def test_what_is_copied_exists_and_is_let_in() -> None:
    sources = [
        word
        for line in instructions("COPY")
        if "--from=" not in line
        for word in line.split()[:-1]
        if not word.startswith("--")
    ]
    assert "pq_registry" in sources and "deploy/backup/pqreg-backup" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert admitted(source), source


def admitted(path: str) -> bool:
    """Whether a file goes to a build: the last line that matches decides."""
    verdict = True
    for line in IGNORED:
        pattern = line.removeprefix("!")
        names = [path, *(parent.as_posix() for parent in Path(path).parents)]
        if any(matches(name, pattern) for name in names):
            verdict = line.startswith("!")
    return verdict


def matches(name: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(Path(name).name, pattern[3:])
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    "path",
    [
        ".env", ".git/config", "data/admin.token", "keys/alice.pqkey", "cli/.env", "pq_registry/x.key", "trust.json",
        "deploy/compose/secrets/log_key", "deploy/compose/.env",
        "tests/samples.py", "keys/pqreg_keys/__pycache__/a.pyc",
    ],
)  # fmt: skip
def test_what_may_be_secret_is_kept_out(path: str) -> None:
    assert not admitted(path)


@pytest.mark.parametrize(
    "path", ["pq_registry/server/app.py", "keys/pqreg_keys/custody.py", "requirements/container.lock"]
)
def test_the_sources_are_let_in(path: str) -> None:
    assert admitted(path)


def test_every_image_the_deployment_uses_is_in_the_list_to_pin() -> None:
    listed = set(re.findall(r"^([A-Z]+_IMAGE)=", (FOLDER / "images.env").read_text(), re.MULTILINE))
    compose = (DEPLOY / "compose" / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{([A-Z]+_IMAGE)", compose)) | {"PYTHON_IMAGE"}
    assert wanted - {"PQREG_IMAGE"} <= listed


@pytest.mark.parametrize("name", ["container.lock", "build.lock"])
def test_every_requirement_of_the_image_has_its_digests(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+ ", line.strip()), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
