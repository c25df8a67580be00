# SPDX-License-Identifier: Apache-2.0
"""``pqreg token`` and ``pqreg fsck``: over the API and on the host."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pqreg_cli.console import Output
from pqreg_cli.main import run
from pqreg_cli.session import Session
from tests.server_harness import RunningRegistry
from tests.stack import variables_for
from tests.stored import change_blob, largest_blob

Pqreg = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pqreg(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pqreg:
    """Runs a command as the registry's admin; answers status, output and errors."""
    monkeypatch.setenv("PQREG_REGISTRY", registry.url)
    monkeypatch.setenv("PQREG_TOKEN", registry.admin_token)

    def call(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with monkeypatch.context() as here:
            for name, value in (variables_for(words, Path()) if registry.data in words else {}).items():
                here.setenv(name, value)
            try:
                status = run([str(word) for word in words])
            except SystemExit as error:
                status = int(error.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.mark.parametrize("place", ["api", "host"])
def test_create_list_and_revoke(registry: RunningRegistry, pqreg: Pqreg, place: str) -> None:
    where = () if place == "api" else ("--data", registry.data)
    status, out, err = pqreg("token", "create", "--role", "publisher", "--namespace", "acme", "--namespace", "lab",
                             "--days", 7, "--note", "nightly", *where)  # fmt: skip
    assert status == 0
    text = out.strip()
    assert text not in err
    me = registry.with_token(text).get("/v1/whoami").json
    assert (me["role"], me["namespaces"]) == ("publisher", ["acme", "lab"])

    status, out, _ = pqreg("token", "list", "--json", *where)
    assert status == 0
    assert text not in out
    [item] = [item for item in json.loads(out) if item["note"] == "nightly"]
    assert (item["role"], item["namespaces"], item["state"]) == ("publisher", ["acme", "lab"], "valid")

    assert pqreg("token", "revoke", item["id"], *where)[0] == 0
    assert registry.with_token(text).get("/v1/whoami").status == 401
    status, out, _ = pqreg("token", "list", *where)
    assert "revoked" in out


def test_json_of_a_new_token(registry: RunningRegistry, pqreg: Pqreg) -> None:
    status, out, err = pqreg("token", "create", "--role", "reader", "--namespace", "*", "--json")
    assert (status, err) == (0, "")
    made = json.loads(out)
    assert registry.with_token(made["token"]).get("/metrics").status == 200


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("token", "create", "--role", "king", "--namespace", "acme"), 2),
        (("token", "create", "--role", "reader", "--namespace", "a/b"), 2),
        (("token", "create", "--role", "reader", "--namespace", "acme", "--days", "0"), 2),
        (("token", "revoke", "0000000000000000"), 3),
        (("token", "list", "--data", "/nowhere"), 2),
        (("fsck", "--data", "/nowhere"), 2),
        (("fsck",), 2),
    ],
)
def test_refusals(pqreg: Pqreg, words: tuple[str, ...], expected: int) -> None:
    status, out, err = pqreg(*words)
    assert (status, out) == (expected, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_fsck(registry: RunningRegistry, pqreg: Pqreg) -> None:
    registry.publish()
    status, out, _ = pqreg("fsck", "--data", registry.data)
    assert (status, "as it should be" in out) == (0, True)
    assert json.loads(pqreg("fsck", "--data", registry.data, "--json")[1])["findings"] == []
    blob = largest_blob(registry.data)
    change_blob(registry.data, blob, lambda content: content[:-1] + b"?")
    status, out, _ = pqreg("fsck", "--data", registry.data)
    assert status == 1
    assert str(blob) in out
    change_blob(registry.data, blob, lambda content: content[:-1])
    status, _, err = pqreg("fsck", "--data", registry.data)
    assert status == 1
    assert "fsck: " in err and "stopped" not in err
    status, out, _ = pqreg("fsck", "--data", registry.data, "--json")
    assert status == 1
    assert any(blob.hex in finding["subject"] for finding in json.loads(out)["findings"])


@pytest.mark.directory_only("in an object store its name has another form")
def test_gc_names_what_is_no_blob(registry: RunningRegistry, pqreg: Pqreg) -> None:
    registry.publish()
    stray = registry.data / "blobs" / "sha256" / "notes.txt"
    stray.touch()
    status, out, err = pqreg("gc", "--data", registry.data)
    assert (status, out.startswith("removed nothing")) == (0, True)
    assert f"{stray} is no blob and stays" in " ".join(err.split())
    assert json.loads(pqreg("gc", "--data", registry.data, "--json")[1])["strays"] == [str(stray)]


@pytest.mark.directory_only("it is a broken directory")
def test_fsck_of_something_else(pqreg: Pqreg, tmp_path: Path) -> None:
    (tmp_path / "catalogue.sqlite3").write_bytes(b"no database")
    status, _, err = pqreg("fsck", "--data", tmp_path)
    assert status == 3
    assert "Traceback" not in err


def test_a_token_over_plain_http_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PQREG_TOKEN", "secret-token")
    for url, warned in (("http://models.invalid:1", True), ("https://models.invalid:1", False)):
        with Session(Output(), registry=url).client():
            pass
        err = capsys.readouterr().err
        assert ("unencrypted" in err) is warned
        assert "secret-token" not in err
