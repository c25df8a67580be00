# SPDX-License-Identifier: Apache-2.0
"""Settings: options win over the environment, the environment over the file, the file over the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from pq_registry.errors import SettingError
from pq_registry.settings import Settings, command_environment, parse_rate


def test_precedence(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('registry = "file"\ntrust = "file"\nkey = "file"\n')
    environment = {"PQREG_REGISTRY": "environment", "PQREG_TRUST": "environment"}
    settings = Settings({"registry": "option", "trust": None}, environment=environment, config_file=config)
    assert [settings.get(name) for name in ("registry", "trust", "key", "connections", "token")] == [
        "option",
        "environment",
        "file",
        "4",
        None,
    ]


def test_a_missing_setting_says_how_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        Settings(environment={}, config_file=tmp_path / "none").require("registry")
    assert "--registry" in (caught.value.hint or "") and "PQREG_REGISTRY" in (caught.value.hint or "")


@pytest.mark.parametrize("content", ["colour = 'red'", "registry = 7", "registry", "\udcff"])
def test_bad_config_files_are_refused(tmp_path: Path, content: str) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingError):
        Settings(environment={}, config_file=config)


def test_integers_are_bounded(tmp_path: Path) -> None:
    settings = Settings({"connections": "65"}, environment={}, config_file=tmp_path / "none")
    with pytest.raises(SettingError):
        settings.integer("connections", minimum=1, maximum=64)


@pytest.mark.parametrize(
    ("text", "rate"), [("0", 0), ("800K", 800 << 10), ("50m", 50 << 20), ("2G", 2 << 30), ("1T", 1 << 40)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "K", "5P", "1.5M", "-1", "5MM", "٥M", "9" * 20])
def test_bad_rates(text: str) -> None:
    with pytest.raises(SettingError):
        parse_rate(text)


def test_a_command_inherits_what_was_given_and_not_what_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQREG_TOKEN", "theirs")
    monkeypatch.setenv("VLLM_PLUGINS", "mine")
    given = Settings({"registry": "http://localhost:1", "token": None}).given_variables()
    assert given == {"PQREG_REGISTRY": "http://localhost:1"}
    found = command_environment(given, defaults={"VLLM_PLUGINS": "x", "NEW": "y"}, dropped=("PQREG_TOKEN",))
    assert "PQREG_TOKEN" not in found
    assert (found["PQREG_REGISTRY"], found["VLLM_PLUGINS"], found["NEW"]) == ("http://localhost:1", "mine", "y")
    assert found["PATH"]
