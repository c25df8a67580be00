# SPDX-License-Identifier: Apache-2.0
"""F3 on the way to storage: answers to a part that never end or crawl, and a registry that never has verified."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pq_registry.errors import TransportError
from tests.direct_site import PART, DirectSite, direct_site, spoil
from tests.fake_registry import Handler

CONTENT = os.urandom(PART + 5)
PATIENCE = 0.25
LONG = 20


@pytest.fixture
def site() -> Iterator[DirectSite]:
    with direct_site() as made:
        yield made


def _forever(handler: Handler, chunk: bytes, pause: float) -> bool:
    handler.close_connection = True
    try:
        for _ in itertools.count():
            handler.wfile.write(chunk)
            handler.wfile.flush()
            if pause:
                threading.Event().wait(pause)
    except OSError:
        pass
    return True


def _head(handler: Handler, status: int, *lines: str) -> None:
    handler.wfile.write("\r\n".join([f"HTTP/1.1 {status} x", *lines, "", ""]).encode())


def _endless_refusal(handler: Handler) -> bool:
    _head(handler, 403, "Content-Type: application/xml", "Transfer-Encoding: chunked")
    return _forever(handler, b"400\r\n" + b"x" * 1024 + b"\r\n", 0)


def _endless_head(handler: Handler) -> bool:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    return _forever(handler, b"X-More: " + b"y" * 60 + b"\r\n", 0)


def _interim(handler: Handler) -> bool:
    return _forever(handler, b"HTTP/1.1 100 Continue\r\n\r\n", 0)


def _drip(handler: Handler) -> bool:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    return _forever(handler, b"x", 0.05)


def _silent(handler: Handler) -> bool:
    handler.close_connection = True
    threading.Event().wait(4 * PATIENCE)
    return True


def _endless_success(handler: Handler) -> bool:
    _head(handler, 200, "Transfer-Encoding: chunked")
    return _forever(handler, b"400\r\n" + b"x" * 1024 + b"\r\n", 0)


@pytest.mark.parametrize("answer", [_endless_refusal, _endless_head, _interim, _drip, _silent])
def test_f03_an_answer_that_does_not_end_ends_the_try(site: DirectSite, answer: Callable[[Handler], bool]) -> None:
    def rule(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        return answer(handler)

    spoil(site.storage, "PUT /bucket/", rule)
    begun = time.monotonic()
    with pytest.raises(TransportError):
        site.push(CONTENT, timeout=PATIENCE)
    assert time.monotonic() - begun < LONG


def test_f03_what_follows_a_success_is_not_read(site: DirectSite) -> None:
    honest = site.storage.rules["PUT /bucket/"]

    def rule(handler: Handler) -> bool:
        sent, handler.send = handler.send, lambda *_, **__: True  # type: ignore[method-assign]
        honest(handler)
        handler.send = sent  # type: ignore[method-assign]
        return _endless_success(handler)

    spoil(site.storage, "PUT /bucket/", rule)
    assert site.push(CONTENT, timeout=PATIENCE).sent == len(CONTENT)
