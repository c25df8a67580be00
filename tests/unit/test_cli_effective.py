# SPDX-License-Identifier: Apache-2.0
"""``pqreg serve --check``: every setting of a service with its source, no secret in it, and sentences about risks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pq_registry.settings import SETTINGS
from pqreg_cli.effective import CLIENT_ONLY, effective_settings
from pqreg_cli.main import run

CANARY = "canary-4f1c"
Check = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    def call(*words: str) -> tuple[dict[str, Any], str]:
        assert run(["serve", "--data", str(tmp_path), "--check", "--json", *words]) == 0
        plain = json.loads(capsys.readouterr().out)
        assert run(["serve", "--data", str(tmp_path), "--check", *words]) == 0
        out, err = capsys.readouterr()
        return plain, out + err

    return call


def test_no_secret_is_shown(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQREG_DATABASE", f"postgresql://registry:{CANARY}@db.example.org/registry")
    monkeypatch.setenv("PQREG_TOKEN", CANARY)
    monkeypatch.setenv("PQREG_PASSPHRASE", CANARY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    plain, shown = check()
    assert CANARY not in json.dumps(plain)
    assert CANARY not in shown
    assert plain["settings"]["database"] == {"value": "(set)", "source": "environment"}


def test_every_setting_of_a_service_is_there_with_its_source(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQREG_RATE_LIMIT", "100")
    plain, shown = check("--listen", "127.0.0.1:0")
    assert set(plain["settings"]) == {setting.name for setting in SETTINGS} - CLIENT_ONLY
    assert plain["settings"]["rate_limit"] == {"value": "100", "source": "environment"}
    assert plain["settings"]["listen"] == {"value": "127.0.0.1:0", "source": "option"}
    assert plain["settings"]["log_level"] == {"value": "info", "source": "default"}
    assert "rate_limit" in shown


def test_a_url_loses_who_it_is_for(tmp_path: Path) -> None:
    from pq_registry.settings import Settings

    environment = {"PQREG_S3_ENDPOINT": f"https://user:{CANARY}@s3.example.org"}
    found = effective_settings(Settings(environment=environment, config_file=tmp_path / "none"))
    assert found["s3_endpoint"]["value"] == "https://s3.example.org"


@pytest.mark.parametrize(
    ("words", "environment", "concern"),
    [
        (("--public-read",), {}, "anyone may read"),
        (("--listen", "0.0.0.0:0"), {}, "any host name"),
        (("--listen", "0.0.0.0:0"), {}, "no proxy is trusted"),
        (("--listen", "0.0.0.0:0"), {}, "as often as they like"),
        ((), {}, "no witness"),
        ((), {"PQREG_DATABASE": "postgresql://db.example.org/x"}, "does not verify its server"),
        ((), {"PQREG_DATABASE": "postgresql://db.example.org/x?sslmode=require"}, "does not verify its server"),
    ],
)
def test_what_deserves_a_look_is_said(
    check: Check, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], environment: dict[str, str], concern: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    plain, shown = check(*words)
    assert any(concern in sentence for sentence in plain["concerns"])
    assert concern in shown


def test_a_careful_configuration_is_left_alone(check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for name, value in {
        "HOSTS": "models.example.org", "TRUSTED_PROXIES": "10.0.0.0/8", "RATE_LIMIT": "100",
        "LOG_WITNESSES": str(tmp_path / "policy"),
        "DATABASE": "postgresql://db.example.org/x?sslmode=verify-full",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"PQREG_{name}", value)
    assert check("--listen", "0.0.0.0:0")[0]["concerns"] == []


def test_a_token_and_a_directory_that_lie_open(check: Check, tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("x")
    tmp_path.chmod(0o755)
    found = check()[0]["concerns"]
    assert any("admin.token" in sentence for sentence in found)
    assert any("chmod 700" in sentence for sentence in found)
