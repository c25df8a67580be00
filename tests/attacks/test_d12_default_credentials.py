# SPDX-License-Identifier: Apache-2.0
"""D12: a service that starts with credentials anyone could know (CVE-2026-4404). Ours makes its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pq_registry.errors import SettingError, StorageError
from pq_registry.format.instant import utc_now
from pq_registry.service.access import Permission
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import TOKEN_PATTERN, new_token
from pq_registry.storage.stores import StoreConfig
from tests.logsetup import log_setup
from tests.server_harness import RegistryProcess, RunningRegistry


def first_token(data: Path) -> str | None:
    registry = Registry.open(StoreConfig(data=data), utc_now, log=log_setup())
    registry.close()
    return registry.first_token


def test_the_first_start_makes_a_token_of_its_own(tmp_path: Path) -> None:
    tokens = {first_token(tmp_path / str(number)) for number in range(3)}
    assert len(tokens) == 3
    assert all(token is not None and TOKEN_PATTERN.fullmatch(token) for token in tokens)
    path = tmp_path / "0" / "admin.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() in tokens


def test_it_is_shown_once(registry_process: RegistryProcess) -> None:
    token = registry_process.admin_token
    assert registry_process.errors.count(token) == 1
    assert registry_process.stop() == 0
    registry_process.start()
    assert token not in registry_process.errors
    assert registry_process.api.get("/v1/whoami").status == 200
    assert token not in registry_process.log
    assert token.encode() not in b"".join(
        path.read_bytes() for path in registry_process.data.rglob("*") if path.is_file() and path.name != "admin.token"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"admin", b"changeme\n", b"pqreg_", b"pqreg_" + b"A" * 43, b"pqreg_" + b"ab" * 21 + b"a",
     b"\xff" * 49, new_token().encode() + b"\nsecond line", new_token().encode()[:-1], b" " + new_token().encode(),
     new_token().encode() * 100],
    ids=range(12),
)  # fmt: skip
def test_a_weak_token_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "admin.token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingError, match="empty or weak"):
        Registry.open(StoreConfig(data=tmp_path), utc_now, log=log_setup())
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o610])
def test_an_exposed_token_file_is_refused(tmp_path: Path, mode: int) -> None:
    first_token(tmp_path)
    (tmp_path / "admin.token").chmod(mode)
    with pytest.raises(SettingError, match="read by others"):
        Registry.open(StoreConfig(data=tmp_path), utc_now, log=log_setup())


def test_something_else_in_its_place_is_refused(tmp_path: Path) -> None:
    makers: list[Callable[[Path], object]] = [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")]
    for number, make in enumerate(makers):
        data = tmp_path / str(number)
        data.mkdir()
        make(data / "admin.token")
        with pytest.raises((SettingError, StorageError)):
            Registry.open(StoreConfig(data=data), utc_now, log=log_setup())


def test_a_strong_token_the_operator_provides_is_taken(tmp_path: Path) -> None:
    token = new_token()
    path = tmp_path / "admin.token"
    path.write_text(token)
    path.chmod(0o600)
    for _ in range(2):
        registry = Registry.open(StoreConfig(data=tmp_path), utc_now, log=log_setup())
        assert registry.first_token is None  # whoever provided it knows it: nothing is printed
        caller = registry.tokens.authenticate(token, public_read=False, request_id="0" * 32)
        assert caller.may_everywhere(Permission.MANAGE_TOKENS)
        registry.close()


def test_the_file_may_go_once_there_are_tokens(tmp_path: Path) -> None:
    first_token(tmp_path)
    (tmp_path / "admin.token").unlink()
    assert first_token(tmp_path) is None
    assert not (tmp_path / "admin.token").exists()


@pytest.mark.parametrize(
    "header",
    ["Bearer admin", "Bearer ", "Bearer", "Basic YWRtaW46YWRtaW4=", "Bearer pqreg_" + "A" * 43, "admin", "bearer null",
     "Bearer \u00e4", "Token x"],
)  # fmt: skip
def test_nothing_else_opens_it(shared_registry: RunningRegistry, header: str) -> None:
    answer = shared_registry.get("/v1/whoami", {"Authorization": header.encode().decode("latin-1")})
    assert answer.code == "not-authenticated"


def test_two_authorizations_are_none(shared_registry: RunningRegistry) -> None:
    connection = shared_registry.connect()
    connection.putrequest("GET", "/v1/whoami")
    for token in (shared_registry.admin_token, "pqreg_" + "B" * 43):
        connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize("place", ["?token={}", "?access_token={}", "?authorization=Bearer+{}"])
def test_a_token_in_the_query_is_no_token(shared_registry: RunningRegistry, place: str) -> None:
    assert shared_registry.with_token(None).get("/v1/whoami" + place.format(shared_registry.admin_token)).status == 401
