# SPDX-License-Identifier: Apache-2.0
"""Where passphrases come from, and in which order."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import KeyCustodyError, KeyFileExposed, StorageError, UsageError
from pq_registry.settings import Settings
from pqreg_keys import passphrase
from pqreg_keys.passphrase import Passphrase, configured, fixed, from_file, from_terminal


def settings(**environment: str) -> Settings:
    return Settings(environment={f"PQREG_{name.upper()}": value for name, value in environment.items()})


def written(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def answers(*texts: str) -> passphrase.Ask:
    left = list(texts)
    return lambda _question: left.pop(0)


@pytest.mark.parametrize("data", [b"secret", b"secret\n", b"secret\r\n", b"secret\nsecond line\n"])
def test_the_first_line_of_a_file(tmp_path: Path, data: bytes) -> None:
    assert from_file(written(tmp_path / "p", data))() == Passphrase("secret")


@pytest.mark.parametrize("data", [b"secret ", b" secret", b"secret\t\n", b"secret\r\r\n"])
def test_white_space_is_part_of_a_passphrase(tmp_path: Path, data: bytes) -> None:
    assert from_file(written(tmp_path / "p", data))() != Passphrase("secret")


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n", b"\xff\xfe", b"x" * (limits.PASSPHRASE_BYTES + 1)])
def test_a_file_without_a_usable_line_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError):
        from_file(written(tmp_path / "p", data))()


def test_a_passphrase_file_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileExposed):
        from_file(written(tmp_path / "p", b"secret", 0o640))()
    with pytest.raises(StorageError):
        from_file(tmp_path / "missing")()


def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"secret\n",))
    writer.start()
    assert from_file(pipe)() == Passphrase("secret")
    writer.join()


def test_the_terminal_asks_twice_for_a_new_one() -> None:
    assert from_terminal("New", twice=True, ask=answers("a", "a"))() == Passphrase("a")
    with pytest.raises(UsageError, match="differ"):
        from_terminal("New", twice=True, ask=answers("a", "b"))()
    assert from_terminal("Old", ask=answers("a"))() == Passphrase("a")


def test_an_empty_or_missing_answer_is_refused() -> None:
    with pytest.raises(UsageError):
        from_terminal("New", ask=answers(""))()

    def closed(_question: str) -> str:
        raise EOFError

    with pytest.raises(KeyCustodyError):
        from_terminal("New", ask=closed)()


def test_two_ways_to_type_the_same_text_are_one_passphrase() -> None:
    assert Passphrase("\u00fc") == Passphrase("u\u0308")
    assert Passphrase("a") != Passphrase("A")
    assert Passphrase("a") != "a"


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UsageError):
        Passphrase("\ud800")


def test_the_order_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "p", b"from the file")
    monkeypatch.setattr(passphrase, "has_terminal", lambda: False)
    both = configured(settings(passphrase_file=str(path), passphrase="from the setting"), question="q")
    assert both is not None
    assert both() == Passphrase("from the file")
    one = configured(settings(passphrase="from the setting"), question="q")
    assert one is not None
    assert one() == Passphrase("from the setting")
    assert configured(settings(), question="q") is None
    monkeypatch.setattr(passphrase, "has_terminal", lambda: True)
    assert configured(settings(), question="q") is not None


def test_nobody_is_asked_before_it_is_needed(tmp_path: Path) -> None:
    assert configured(settings(passphrase_file=str(tmp_path / "missing")), question="q") is not None


def test_a_known_passphrase_can_be_asked_for_again() -> None:
    source = fixed("a")
    assert source() == source() == Passphrase("a")
