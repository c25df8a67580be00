# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP/1.1 protocol with bounds it does not have: on a request's head, and on a client that takes no answer.

The head is bounded in size and duration, and so is the time for which a client may take nothing of what it is sent.

Without them one connection can hold memory and a descriptor for as long as it likes, before any policy is asked.
Bodies pass with two copies less than in the base class: they are what the weights arrive in.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pq_registry import limits


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose request line and headers are too large or too slow."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """Expect the first request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes less than it is sent. Merely closing the connection would wait until it has taken all."""
        super().pause_writing()
        self._stop_stall_timer()
        self._stall_timer = self.loop.call_later(limits.SEND_SILENCE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It took what there was."""
        self._stop_stall_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Count what arrives before the head is complete."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._expect_head()
        super().data_received(data)
        if self._in_head and self._head_bytes > limits.REQUEST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Request head is too large.")

    def on_headers_complete(self) -> None:
        """The head is complete; the body is bounded by the route's policy."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body. As in the base class, but without copying it twice and without stopping after each."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body = cycle.body + body if cycle.body else body  # type: ignore[assignment]  # only read as bytes
        if len(cycle.body) > limits.RECEIVE_BUFFER_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The next bytes are another request's head."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(limits.REQUEST_HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
