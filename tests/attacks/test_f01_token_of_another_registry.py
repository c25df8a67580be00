# SPDX-License-Identifier: Apache-2.0
"""F1: a token goes only to the registry it was given with, however the two were configured."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.client.configured import credential, registry_client
from pq_registry.errors import PqregError
from pq_registry.format.name import RepositoryName
from pq_registry.loader import opening
from pq_registry.settings import Settings, Source, write_config
from pqreg_cli.main import run
from tests.fake_registry import FakeRegistry, serving

CANARY = "canary-3f9a1c"
NAME = RepositoryName.parse("acme/minilm")
A, B = "http://127.0.0.1:8001", "http://127.0.0.1:8002"
pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    with serving() as registry:
        yield registry


@pytest.fixture
def logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logged in to a registry that nobody asks."""
    write_config(tmp_path / "config.toml", {"registry": A, "token": CANARY})
    for name in ("PQREG_REGISTRY", "PQREG_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PQREG_CONFIG", str(tmp_path / "config.toml"))


@pytest.mark.usefixtures("logged_in")
@pytest.mark.parametrize("how", ["option", "environment"])
def test_f1_the_token_of_the_config_file_stays_with_its_registry(
    how: str, other: FakeRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if how == "environment":
        monkeypatch.setenv("PQREG_REGISTRY", other.url)
    assert run(["ls", *(["--registry", other.url] if how == "option" else [])]) != 0
    assert other.seen
    assert all("authorization" not in request.headers for request in other.seen)
    warned = capsys.readouterr().err
    assert "--token" in warned
    assert CANARY not in warned


@pytest.mark.usefixtures("logged_in")
def test_f1_the_loader_says_that_it_goes_without_a_token(other: FakeRegistry, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with opening._client(Settings({"registry": other.url})) as client, pytest.raises(PqregError):
        client.repository(NAME)
    assert all("authorization" not in request.headers for request in other.seen)
    assert "token=" in caplog.text


CASES: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str], bool]] = {
    "file with file": ({}, {}, {"registry": A, "token": CANARY}, True),
    "file, same origin by option": ({"registry": f"{A}/"}, {}, {"registry": A, "token": CANARY}, True),
    "file, other by option": ({"registry": B}, {}, {"registry": A, "token": CANARY}, False),
    "file, other by environment": ({}, {"REGISTRY": B}, {"registry": A, "token": CANARY}, False),
    "file without registry": ({}, {"REGISTRY": B}, {"token": CANARY}, False),
    "file, other scheme": ({"registry": "https://127.0.0.1:8001"}, {}, {"registry": A, "token": CANARY}, False),
    "environment with environment": ({}, {"REGISTRY": A, "TOKEN": CANARY}, {}, True),
    "environment, same origin by option": ({"registry": f"{A}/x"}, {"REGISTRY": A, "TOKEN": CANARY}, {}, True),
    "environment, other by option": ({"registry": B}, {"REGISTRY": A, "TOKEN": CANARY}, {}, False),
    "environment alone, by option": ({"registry": B}, {"TOKEN": CANARY}, {}, True),
    "environment alone, by file": ({}, {"TOKEN": CANARY}, {"registry": B}, True),
    "environment over file": ({"registry": B}, {"REGISTRY": A, "TOKEN": CANARY}, {"registry": B, "token": "x"}, False),
    "given": ({"registry": B, "token": CANARY}, {"REGISTRY": A}, {"registry": A, "token": "x"}, True),
    "given for the file's": ({"token": CANARY}, {}, {"registry": A}, True),
}


@pytest.mark.parametrize("case", CASES)
def test_f1_which_token_goes_with_which_registry(case: str, tmp_path: Path) -> None:
    given, environment, file, sent = CASES[case]
    write_config(tmp_path / "config.toml", dict(file))
    settings = Settings(
        given,
        environment={f"PQREG_{name}": value for name, value in environment.items()},
        config_file=tmp_path / "config.toml",
    )
    chosen = credential(settings)
    assert chosen.token == (CANARY if sent else None)
    assert (chosen.withheld is None) == sent
    assert CANARY not in (chosen.withheld or "")
    with registry_client(settings) as client:
        assert (CANARY in str(client.exchanger.__dict__)) == sent


def test_f1_a_url_with_a_password_is_not_repeated(tmp_path: Path) -> None:
    settings = Settings(
        {"registry": "http://user:secret@host"},
        environment={"PQREG_REGISTRY": A, "PQREG_TOKEN": CANARY},
        config_file=tmp_path / "none",
    )
    chosen = credential(settings)
    assert chosen.token is None
    assert "secret" not in (chosen.withheld or "")


def test_a_setting_says_where_it_comes_from_and_white_space_does_not_count(tmp_path: Path) -> None:
    environment = {"PQREG_REGISTRY": f" {A}\n", "PQREG_TRUST": " ", "PQREG_TOKEN": f"{CANARY}\n", "PQREG_PIN": " 1 "}
    settings = Settings({"key": "k"}, environment=environment, config_file=tmp_path / "none")
    assert [settings.source(name) for name in ("key", "registry", "trust", "connections")] == [
        Source.GIVEN, Source.ENVIRONMENT, None, None,
    ]  # fmt: skip
    assert [settings.get(name) for name in ("registry", "trust", "token", "pin")] == [A, None, CANARY, " 1 "]
