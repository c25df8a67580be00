# SPDX-License-Identifier: Apache-2.0
"""A ring of buffers between the processor and a device: each is handed out again only when its last copy is done.

A buffer that is written while the device still reads it is the way loaders corrupt weights without anybody noticing.
So a slot comes back together with the ticket of whatever still uses it, and ``take`` waits for that ticket itself;
there is no way to a slot past it. Buffers are made when they are first needed, in the thread that will fill them (so
that several are page-locked at once, and a short load locks few), and given back when the ring is closed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from pq_registry.errors import DeviceFailed, StorageError
from pq_registry.loader.device.accelerator import Ticket


class Slot(Protocol):
    """A buffer, or several that are used together."""

    def close(self) -> None:
        """Give the memory back."""


S = TypeVar("S", bound=Slot)


class Ring(Generic[S]):
    """At most ``most`` slots, made by ``make``."""

    def __init__(self, make: Callable[[], S], *, most: int) -> None:
        self._make = make
        self._most = most
        self._made = 0
        self._idle: deque[tuple[S, Ticket | None]] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def take(self) -> S:
        """A slot nobody uses. Waits for one.

        Raises:
            DeviceFailed: if the device failed, or the ring was closed meanwhile.
            StorageError: if there is no memory for the first slot.
        """
        while True:
            with self._changed:
                while not self._closed and not self._idle and self._made == self._most:
                    self._changed.wait()
                if self._closed:
                    raise DeviceFailed("the load has ended")
                if self._idle and (self._made == self._most or _is_free(self._idle[0][1])):
                    slot, ticket = self._idle.popleft()
                    break
                self._made += 1
            try:
                return self._make()
            except BaseException as error:
                with self._changed:
                    self._made -= 1
                    self._changed.notify_all()
                    if not (self._made and isinstance(error, DeviceFailed | StorageError)):
                        raise
                    self._most = self._made  # no more can be had: go on with those there are
        try:
            if ticket is not None:
                ticket.wait()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify_all()
            slot.close()
            raise
        return slot

    def put(self, slot: S, ticket: Ticket | None) -> None:
        """Take ``slot`` back; ``ticket`` is of the last work that uses it, None if nothing does."""
        with self._changed:
            if not self._closed:
                self._idle.append((slot, ticket))
                self._changed.notify()
                return
        try:
            if ticket is not None:
                ticket.wait()
        finally:
            slot.close()

    def close(self) -> None:
        """Give every slot back, once the device is done with it. Slots in use follow when they are put back.

        Raises:
            DeviceFailed: if the device failed; the slots are given back all the same.
        """
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, deque()
            self._changed.notify_all()
        failed: DeviceFailed | None = None
        for slot, ticket in idle:
            try:
                if ticket is not None:
                    ticket.wait()
            except DeviceFailed as error:
                failed = error
            slot.close()
        if failed is not None:
            raise failed


def _is_free(ticket: Ticket | None) -> bool:
    return ticket is None or ticket.done()
