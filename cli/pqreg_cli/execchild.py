# SPDX-License-Identifier: Apache-2.0
"""Runs one command in our place, until it has ended.

The command is a child in our process group and on our terminal. Signals that somebody sends to us are passed on to it;
those of the terminal (Ctrl-C, a window that changes) it has had itself, and they are not passed on a second time. It is
told to end (SIGTERM) when we are killed in a way that nobody can handle. A terminal that is gone is told to the leader
of its session only: if that is us, we pass it on. As process 1 of a container we take the exit
status of every orphan, as somebody must.

All signals in question are blocked and waited for one by one, so no handler runs anywhere else. Libraries may have made
threads that do not block them, as numpy's OpenBLAS does: a SIGCHLD that comes while we are not waiting goes to one of
these, which discards it. So we look by ourselves, too, whether the command has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from pq_registry.errors import UsageError

_PASSED_ON: Final = frozenset(
    {
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
        signal.SIGWINCH,
    }
)  # fmt: skip
_AWAITED: Final = _PASSED_ON | {signal.SIGCHLD}
_OF_THE_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGWINCH})
_LOOK_SECONDS: Final = 0.5
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_PR_SET_DUMPABLE: Final = 4
_SIGNALLED: Final = 128
"""What a shell adds to the number of the signal that ended a command."""


def run(command: Sequence[str], *, environment: Mapping[str, str], keep: Collection[int] = ()) -> int:
    """Run ``command`` and wait for it; answers its exit status, or minus the number of the signal that ended it.

    Args:
        command: the program, by its path, and its arguments.
        environment: all of its environment.
        keep: file descriptors it inherits under their numbers.

    Raises:
        UsageError: if it cannot be run.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    # Whoever started us may have it ignored, and then the kernel forgets how children ended.
    heeded = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        return _follow(_start(command, environment, keep, before))
    finally:
        signal.signal(signal.SIGCHLD, heeded or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_as(status: int) -> int:
    """Our exit status for a command that ended with ``status``; after a signal we end by the same signal.

    Whoever waits for us, a shell or a service manager, then sees what they would have seen without us.
    """
    if status >= 0:
        return status
    number = -status
    with contextlib.suppress(OSError, ValueError):
        # The core worth looking at is the command's, and ours may hold secrets. A limit of the size would not do: the
        # kernel does not heed it where cores go to a program (core(5)).
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
    return _SIGNALLED + number  # process 1 does not die of a signal


def _start(command: Sequence[str], environment: Mapping[str, str], keep: Collection[int], mask: Collection[int]) -> int:
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # we were killed before it could be told of
            os._exit(_SIGNALLED + signal.SIGTERM)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # As it will be for the command: a Ctrl-C that came by now ends it, and raises nothing here.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        # No other thread runs here that could hold a lock across the fork.
        child = subprocess.Popen(  # noqa: S603  what to run is the whole purpose; it comes from the user
            command, env=environment, pass_fds=tuple(keep), preexec_fn=prepare  # noqa: PLW1509  see above
        )  # fmt: skip
    except OSError as error:
        raise UsageError(
            f"{command[0]} cannot be run", expected="a program", found=error.strerror, hint="check the command after --"
        ) from None
    child.returncode = 0  # it is waited for below, together with orphans
    return child.pid


def _follow(child: int) -> int:
    while True:
        told = signal.sigtimedwait(_AWAITED, _LOOK_SECONDS)
        if told is None or told.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                return status
        elif told.si_code <= 0 or not _has_had(told.si_signo):  # SI_USER and the like: some process sent it to us
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, told.si_signo)


def _has_had(number: int) -> bool:
    """Whether the kernel, which sent us a signal, sent it to the command as well."""
    if number == signal.SIGHUP:
        return os.getsid(0) != os.getpid()
    return number in _OF_THE_TERMINAL


def _reap(child: int) -> int | None:
    """The status of ``child`` if it has ended."""
    anybody = os.getpid() == 1
    while True:
        try:
            pid, status = os.waitpid(-1 if anybody else child, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if not pid:
            return None
