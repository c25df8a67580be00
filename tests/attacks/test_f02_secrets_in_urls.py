# SPDX-License-Identifier: Apache-2.0
"""F2: what stands in a presigned URL is a credential: it is in no message, no log and no Referer.

``test_f01`` shows that uploads follow no redirect; here every way a redirected read can fail.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import pytest

from pq_registry.client.ranges import RangeReader
from pq_registry.client.transport import RegistryClient, blob_path
from pq_registry.errors import PqregError
from pq_registry.format.digest import Digest
from tests.fake_registry import FakeRegistry, Handler, serving

SECRET = "X-Amz-Credential=AKIAVERYSECRET&X-Amz-Signature=0123456789abcdef"
DIGEST = Digest.of(b"x")


@pytest.fixture
def pair() -> Iterator[tuple[FakeRegistry, FakeRegistry]]:
    with serving() as home, serving() as storage:
        home.rules["GET /v1/blobs"] = lambda handler: handler.send(
            307, b"", headers={"Location": f"{storage.url}/bucket/key?{SECRET}"}
        )
        yield home, storage


def close(handler: Handler) -> bool:
    handler.close_connection = True
    return True


def garbage(handler: Handler) -> bool:
    handler.wfile.write(b"NOT HTTP " + SECRET.encode() + b"\r\n\r\n")
    return close(handler)


def echo(status: int):
    body = f"<Error><Resource>/bucket/key?{SECRET}</Resource></Error>".encode()
    return lambda handler: handler.send(status, body, "application/xml")


def problem(handler: Handler) -> bool:
    handler.problem(403, "access-denied", detail=f"expired: {SECRET}", hint=SECRET)
    return True


FAILURES = {
    "closed": close,
    "garbage": garbage,
    "forbidden": echo(403),
    "not found": echo(404),
    "error": echo(500),
    "other length": echo(200),
    "redirected on": lambda handler: handler.send(302, b"", headers={"Location": f"http://127.0.0.1:1/?{SECRET}"}),
    "problem": problem,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_f02_no_failure_of_a_presigned_read_tells_the_url(
    pair: tuple[FakeRegistry, FakeRegistry],
    failure: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    home, storage = pair
    storage.rules["/bucket"] = FAILURES[failure]
    with RegistryClient(home.url, "token", sleep=lambda _: None) as client:
        reader = RangeReader(client.exchanger)
        for ask in (
            lambda: reader.read_into(blob_path(DIGEST), 0, memoryview(bytearray(10)), size=10),
            lambda: client.blob_bytes(DIGEST, 10),
        ):
            with pytest.raises(PqregError) as caught:
                ask()
            error = caught.value
            said = f"{error} {error.hint} {error.__dict__} " + "".join(traceback.format_exception(error))
            assert "AKIA" not in said
            assert "0123456789abcdef" not in said
        reader.close()
    assert "AKIA" not in caplog.text + "".join(capfd.readouterr())
    assert all("referer" not in seen.headers for seen in storage.seen)
    assert all("authorization" not in seen.headers for seen in storage.seen)


def test_f02_storage_that_is_gone_does_not_tell_the_url(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving() as home:
        home.rules["GET /v1/blobs"] = lambda handler: handler.send(
            302, b"", headers={"Location": f"http://127.0.0.1:1/k?{SECRET}"}
        )
        with RegistryClient(home.url, sleep=lambda _: None) as client:
            reader = RangeReader(client.exchanger)
            with pytest.raises(PqregError) as caught:
                reader.read_into(blob_path(DIGEST), 0, memoryview(bytearray(10)), size=10)
            reader.close()
    assert "AKIA" not in str(caught.value) + caplog.text + "".join(traceback.format_exception(caught.value))
