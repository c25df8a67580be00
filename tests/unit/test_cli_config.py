# SPDX-License-Identifier: Apache-2.0
"""The config file: what ``pqreg login`` writes is what is read, and a token in it is never open to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from pq_registry.errors import SettingError
from pq_registry.settings import Settings, write_config


def test_written_settings_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    token = 'a"b\\c\u00e4\U0001f600'
    write_config(path, {"registry": "http://127.0.0.1:1", "token": token})
    settings = Settings(environment={}, config_file=path)
    assert settings.get("registry") == "http://127.0.0.1:1"
    assert settings.get("token") == token


def test_the_config_file_is_private_even_if_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('registry = "x"\n')
    path.chmod(0o644)
    write_config(path, {"token": "secret"})
    assert path.stat().st_mode & 0o777 == 0o600


def test_other_settings_stay_and_none_removes(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_config(path, {"registry": "x", "token": "t", "trust": "trust.json"})
    write_config(path, {"registry": None, "token": None})
    settings = Settings(environment={}, config_file=path)
    assert [settings.get(name) for name in ("registry", "token", "trust")] == [None, None, "trust.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a12_a_token_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.toml"
    write_config(path, {"token": "canary-token"})
    path.chmod(mode)
    with pytest.raises(SettingError) as caught:
        Settings(environment={}, config_file=path)
    assert "chmod 600" in (caught.value.hint or "")
    assert "canary-token" not in str(caught.value)


def test_a_readable_config_file_without_secrets_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('registry = "x"\n')
    path.chmod(0o644)
    assert Settings(environment={}, config_file=path).get("registry") == "x"


@pytest.mark.parametrize("value", ["a\nb", "a\x7fb", "\x1b[31m"])
def test_control_characters_are_not_written(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingError):
        write_config(tmp_path / "config.toml", {"registry": value})
    assert not (tmp_path / "config.toml").exists()


def test_an_unknown_setting_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SettingError):
        write_config(tmp_path / "config.toml", {"colour": "red"})
