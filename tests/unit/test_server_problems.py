# SPDX-License-Identifier: Apache-2.0
"""One shape for every error, whoever raises it; and nothing in it that callers should not see."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from pq_registry import errors
from pq_registry.durable import storage_error
from pq_registry.server.problems import HTTP_PROBLEMS, MEDIA_TYPE, problem_of
from tests.server_harness import JSON, RunningRegistry


def every_error() -> list[type[errors.PqregError]]:
    found: list[type[errors.PqregError]] = []
    waiting: list[type[errors.PqregError]] = [errors.PqregError]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(found[-1].__subclasses__())
    return found


def content_of(error: Exception) -> dict[str, Any]:
    response = problem_of(error, "0123456789abcdef").response()
    assert response.headers["content-type"] == MEDIA_TYPE
    content: dict[str, Any] = json.loads(bytes(response.body))
    assert response.status_code == content["status"]
    assert content["instance"] == "0123456789abcdef"
    return content


@pytest.mark.parametrize("kind", [kind for kind in every_error() if not issubclass(kind, errors.StorageError)])
def test_every_error_of_the_tree(kind: type[errors.PqregError]) -> None:
    content = content_of(kind("what happened", expected="this", found="that", hint="do so", step=3))
    assert content["type"] == f"/problems/{kind.code()}"
    assert (content["detail"], content["expected"], content["found"], content["hint"], content["step"]) == (
        "what happened", "this", "that", "do so", 3)  # fmt: skip
    assert content["title"] == (kind.__doc__ or "").splitlines()[0]
    assert 400 <= content["status"] < 600


@pytest.mark.parametrize("status", HTTP_PROBLEMS)
def test_every_refusal_of_http(status: int) -> None:
    content = content_of(HTTPException(status))
    assert content["type"] == f"/problems/{HTTP_PROBLEMS[status][0]}"


@pytest.mark.parametrize("error", [RuntimeError("secret"), HTTPException(418, "secret"), KeyError("secret")], ids=repr)
def test_surprises_say_nothing(error: Exception) -> None:
    content = content_of(error)
    assert (content["status"], content["type"]) == (500, "/problems/internal-error")
    assert "secret" not in json.dumps(content)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.EIO])
def test_storage_errors_name_no_paths(tmp_path: Any, number: int) -> None:
    try:
        try:
            raise OSError(number, "injected")
        except OSError as cause:
            raise storage_error("write", tmp_path / "private", cause) from cause
    except errors.StorageError as error:
        content = content_of(error)
    assert content["status"] == 507
    assert "private" not in json.dumps(content)
    assert content_of(errors.StorageError("cannot read /private"))["status"] == 503


def test_parameters_are_named_not_repeated() -> None:
    error = RequestValidationError([{"loc": ("query", "limit"), "msg": "too large", "input": "secret"}])
    content = content_of(error)
    assert content["detail"] == "query limit: too large"
    assert "secret" not in json.dumps(content)


def test_long_and_odd_texts_are_bounded() -> None:
    content = content_of(errors.FormatError("x" * 10**6, found="\ud800" * 10**6))
    assert len(json.dumps(content)) < 20_000


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", "not-found"),
        ("GET", "/v1", "not-found"),
        ("GET", "/v1/repos/", "not-found"),
        ("GET", "/docs", "not-found"),
        ("GET", "/redoc", "not-found"),
        ("GET", "//evil.example/", "not-found"),
        ("GET", "/v1/repos/acme%2fminilm", "not-found"),
        ("PATCH", "/v1/repos", "method-not-allowed"),
        ("GET", "/v1/repos/-acme/minilm", "name-syntax-error"),
        ("GET", "/v1/repos/acme/mini--lm", "name-syntax-error"),
        ("GET", "/v1/repos/acme/minilm/tags/" + "a" * 64, "name-syntax-error"),
        ("GET", "/v1/repos/acme/minilm/releases", "format-error"),
        ("GET", "/v1/repos/acme/minilm/releases?content=x", "name-syntax-error"),
        ("GET", "/v1/repos?after=x", "name-syntax-error"),
        ("GET", "/v1/repos?namespace=..", "name-syntax-error"),
        ("GET", "/v1/repos/acme/minilm/uploads/%2e%2e", "not-found"),
        ("DELETE", "/v1/tokens/nobody", "not-found"),
        ("POST", "/v1/tokens", "unsupported-media-type"),
    ],
)
def test_the_framework_speaks_the_same_language(
    shared_registry: RunningRegistry, method: str, path: str, code: str
) -> None:
    assert shared_registry.request(method, path).code == code


def test_an_internal_error_is_logged_with_the_answers_id(
    shared_registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    monkeypatch.setattr(shared_registry.registry.resolving, "repositories", lambda *_, **__: 1 // 0)
    logger = logging.getLogger("pq_registry.server")
    logger.addHandler(caplog.handler)
    try:
        answer = shared_registry.get("/v1/repos")
    finally:
        logger.removeHandler(caplog.handler)
    assert answer.code == "internal-error"
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert records
    for record in records:
        assert record.exc_info is not None
        assert record.pqreg["request_id"] == answer.headers["x-request-id"]  # type: ignore[attr-defined]


def test_the_answer_comes_before_the_body(shared_registry: RunningRegistry) -> None:
    # Refused without reading it, and yet the sender of a large body gets to see why and can go on.
    connection = shared_registry.connect()
    for _ in range(2):
        connection.request("PUT", f"/v1/repos/acme/x/uploads/{'0' * 32}/parts/0", bytes(16 << 20), JSON)
        response = connection.getresponse()
        assert response.status == 401
        response.read()
        assert response.getheader("connection") != "close"
    connection.close()
