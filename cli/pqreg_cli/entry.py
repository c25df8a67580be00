# SPDX-License-Identifier: Apache-2.0
"""Where the process starts: Ctrl-C ends it with 130 and no traceback, from the first moment on.

An interrupt during imports would show a traceback of whatever is being imported, or be swallowed by a callback of the
import system. So until the command line is loaded, and again when it is done, Ctrl-C ends the process on the spot:
nothing was begun, or nothing is left to do. In between it is Python's KeyboardInterrupt, which ``main.run`` reports.
"""

from __future__ import annotations

import os
from typing import NoReturn

_INTERRUPTED = 130  # errors.EXIT_INTERRUPTED, without importing anything


def main() -> NoReturn:
    """Run one command and end the process with its exit status."""
    try:
        import signal

        # A process started in the background or by nohup ignores Ctrl-C, and goes on doing so.
        heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if heeded:
            signal.signal(signal.SIGINT, _leave)
        from pqreg_cli.main import main as command

        try:
            if heeded:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            command()
        finally:
            if heeded:
                signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)


def _leave(*_: object) -> NoReturn:
    os._exit(_INTERRUPTED)
