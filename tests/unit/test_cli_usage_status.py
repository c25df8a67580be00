# SPDX-License-Identifier: Apache-2.0
"""What the caller got wrong ends with status 2 and says so, before a registry is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pq_registry.errors import AccessDenied, UsageError
from pq_registry.format.instant import utc_now
from pq_registry.loader.opening import open_release
from pq_registry.server.guard import MANAGE_TOKENS, OBSERVE, Policy
from pq_registry.service.access import Caller, Rights, Role
from pq_registry.settings import Settings
from pqreg_cli.main import run
from pqreg_keys import secretfile

CREATE = ["token", "create", "--namespace", "acme", "--registry", "http://127.0.0.1:1"]


@pytest.mark.parametrize("words", [["--role", "foo"], *(["--role", "reader", "--days", n] for n in ("0", "99999"))])
def test_a_token_that_cannot_be_is_refused_before_the_request(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*CREATE, *words]) == 2
    assert f"{words[-2]} is wrong" in capsys.readouterr().err


def test_a_key_file_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no secret key file"):
        secretfile.read(tmp_path / "absent.pqkey")


@pytest.mark.parametrize(("what", "expect"), [(None, None), (5, None), ("", "acme/m"), ("acme/m", 5), (Path("x"), 5)])
def test_the_loader_refuses_what_names_no_release(what: Any, expect: Any, tmp_path: Path) -> None:
    settings = Settings(environment={}, config_file=tmp_path / "none")
    with pytest.raises(UsageError):
        open_release(what, expect=expect, settings=settings, now=utc_now())


@pytest.mark.parametrize(("policy", "where"), [(MANAGE_TOKENS, "in any namespace"), (OBSERVE, "in every namespace")])
def test_a_refusal_says_where(policy: Policy, where: str) -> None:
    rights = Rights(role=Role.READER, namespaces=frozenset({"acme"}))
    caller = Caller(token_id="t", rights=rights, expires=None, public_read=False, request_id="r")
    assert policy.permission is not None
    with pytest.raises(AccessDenied, match=where):
        policy._require(caller, policy.permission, None)
