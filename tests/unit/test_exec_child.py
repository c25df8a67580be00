# SPDX-License-Identifier: Apache-2.0
"""The words of a command that pqreg exec runs, and how it is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pq_registry.errors import UsageError
from pqreg_cli import execchild
from pqreg_cli.execwords import check_places, filled, for_vllm, plugin_config

OURS = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "cli")}


def test_vllm_serve_is_told_to_use_the_plug_in() -> None:
    config = plugin_config("acme/x@sha256:0", None)
    words = filled(for_vllm(["/opt/bin/vllm", "serve", "{dir}"], name="acme/x"), {"dir": "/d", "config": config})
    assert words == ["/opt/bin/vllm", "serve", "/d", "--load-format", "pqreg", "--model-loader-extra-config", config,
                     "--served-model-name", "acme/x"]  # fmt: skip
    own = ["vllm", "serve", "{dir}", "--load_format=auto", "--served-model-name", "x"]
    assert for_vllm(own, name="acme/x") == own
    extra = ["vllm", "serve", "{dir}", "--model-loader-extra-config={}"]
    assert for_vllm(extra, name="x") == [*extra, "--load-format", "pqreg", "--served-model-name", "x"]
    for named in (["--load-format", "pqreg"], ["--load_format=PQREG"]):
        ours = ["vllm", "serve", "{dir}", *named]
        added = ["--model-loader-extra-config", "{config}", "--served-model-name", "x"]
        assert for_vllm(ours, name="x") == [*ours, *added]
    for other in (["vllm", "bench", "{dir}"], ["python", "serve", "{dir}"], ["vllm"]):
        assert for_vllm(other, name="x") == other


def test_places_are_filled_once() -> None:
    assert filled(["{dir}"], {"dir": "{release}", "release": "x"}) == ["{release}"]
    assert filled(["{file}"], {"dir": "x"}) == ["{file}"]
    check_places(["x", "--m={file}"], memfd=True, with_weights=False)
    with pytest.raises(UsageError):
        check_places(["{file}"], memfd=True, with_weights=True)


@dataclass(frozen=True)
class Told:
    """What sigtimedwait answers."""

    si_signo: int
    si_code: int


def test_what_the_terminal_sent_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.returncode = 0
    si_user, si_queue, si_kernel = 0, -1, 128  # sigaction(2)
    arriving = [
        Told(signal.SIGINT, si_kernel), Told(signal.SIGWINCH, si_kernel), Told(signal.SIGTERM, si_user),
        Told(signal.SIGINT, si_queue), Told(signal.SIGCHLD, 1),
    ]  # fmt: skip
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(signal, "sigtimedwait", lambda _awaited, _seconds: arriving.pop(0))
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    assert execchild._follow(child.pid) == 0
    assert sent == [(child.pid, signal.SIGTERM), (child.pid, signal.SIGINT)]


def test_what_the_kernel_sent_to_us_alone_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that was set before we were started, and a terminal that is gone, if we lead its session."""
    si_kernel = 128
    for leader in (True, False):
        child = subprocess.Popen(["true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        child.returncode = 0
        arriving = [
            Told(signal.SIGALRM, si_kernel), Told(signal.SIGHUP, si_kernel), Told(signal.SIGQUIT, si_kernel),
            Told(signal.SIGCHLD, 1),
        ]  # fmt: skip
        sent: list[int] = []
        with monkeypatch.context() as patched:
            patched.setattr(signal, "sigtimedwait", lambda _awaited, _seconds, told=arriving: told.pop(0))
            patched.setattr(os, "kill", lambda _pid, number, sent=sent: sent.append(number))
            patched.setattr(os, "getsid", lambda _pid, leader=leader: os.getpid() if leader else 1)
            assert execchild._follow(child.pid) == 0
        assert sent == [signal.SIGALRM, *([signal.SIGHUP] if leader else [])]


def test_as_process_1_orphans_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    child, orphan = (subprocess.Popen(["true"]) for _ in range(2))
    for process in (child, orphan):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process.returncode = 0
    monkeypatch.setattr(os, "getpid", lambda: 1)
    found = [execchild._reap(child.pid)]
    while os.path.exists(f"/proc/{orphan.pid}"):
        found.append(execchild._reap(child.pid))
    assert 0 in found


def test_a_program_that_is_none_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nothing")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(UsageError, match="cannot be run"):
        execchild.run([str(tmp_path / "x")], environment={})
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


IGNORING = """
import os, signal, sys
from pqreg_cli import execchild
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
status = execchild.run(["/bin/sh", "-c", "exit 3"], environment=dict(os.environ))
assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
os._exit(status)
"""
INTERRUPTED = """
import os, signal, sys
from pqreg_cli import execchild
mask = signal.pthread_sigmask
def interrupted(how, signals):  # in the child, before it is the command
    if how == signal.SIG_SETMASK and os.getpid() != ours:
        os.kill(os.getpid(), signal.SIGINT)
    return mask(how, signals)
signal.signal(signal.SIGINT, signal.default_int_handler)
ours, signal.pthread_sigmask = os.getpid(), interrupted
os._exit(-execchild.run(["/bin/sh", "-c", "exit 3"], environment=dict(os.environ)))
"""


def test_with_the_signal_ignored_the_status_is_not_lost() -> None:
    assert subprocess.run([sys.executable, "-c", IGNORING], timeout=60, env=OURS).returncode == 3


def test_ctrl_c_before_the_child_is_the_command() -> None:
    assert subprocess.run([sys.executable, "-c", INTERRUPTED], timeout=60, env=OURS).returncode == signal.SIGINT


CRASHED = """
import ctypes, os, signal
from pqreg_cli import execchild
os.kill = lambda pid, number: os._exit(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
execchild.end_as(-signal.SIGSEGV)
"""


def test_after_a_crash_of_the_command_we_leave_no_core() -> None:
    assert subprocess.run([sys.executable, "-c", CRASHED], timeout=60, env=OURS).returncode == 0


LATE = """
import os, sys, threading
from pqreg_cli import execchild
follow = execchild._follow
def late(child):
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and its SIGCHLD is gone with the other thread
    return follow(child)
execchild._follow = late
threading.Thread(target=threading.Event().wait, daemon=True).start()
os._exit(-execchild.run(["/bin/sh", "-c", "kill -9 $$"], environment=dict(os.environ)))
"""


def test_a_signal_that_another_thread_swallowed_is_not_waited_for() -> None:
    assert subprocess.run([sys.executable, "-c", LATE], timeout=60, env=OURS).returncode == signal.SIGKILL
