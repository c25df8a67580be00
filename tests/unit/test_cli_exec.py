# SPDX-License-Identifier: Apache-2.0
"""pqreg exec: what the command is given and told, how it ends, and that nothing is left when it has."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import UsageError
from pq_registry.format.digest import Digest
from pqreg_cli import execchild
from pqreg_cli.execwords import check_places, filled, for_vllm, plugin_config
from tests.releases import release_directory
from tests.sealing_site import sealed_trust
from tests.tensors import safetensors_bytes

ROOT = Path(__file__).resolve().parents[2]
MODEL = b"GGUF" + os.urandom(3 * limits.SHARD_BYTES)
WEIGHTS = safetensors_bytes({"lm_head.weight": ("BF16", (2000, 1000)), "b": ("F16", (77,))}, 1)[0]
FILES = {
    "config.json": b'{"a": 1}\n',
    "model.gguf": MODEL,
    "model.safetensors": WEIGHTS,
    "sub/Gr\u00fc\u00dfe.txt": "Grüße\n".encode(),
}
PATIENCE = 60.0


@dataclass(frozen=True)
class Node:
    """A machine with one release in a directory."""

    home: Path
    digest: Digest

    @property
    def place(self) -> Path:
        return self.home / "private"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PQREG_", "XDG_", "HF_"))}
        path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
        return {
            **kept, "PYTHONPATH": path, "HOME": str(self.home), "PQREG_TRUST": str(self.home / "trust.json"),
            "PQREG_PRIVATE_DIR": str(self.place),
        }  # fmt: skip

    def words(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "pqreg_cli", "exec", str(self.home / "r"), "--expect", "acme/minilm", *more]

    def run(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(*more), env={**self.environment, **variables}, capture_output=True, text=True,
                              timeout=PATIENCE, stdin=subprocess.DEVNULL)  # fmt: skip

    def start(self, code: str) -> subprocess.Popen[str]:
        """Run Python code, which says ``ready`` when it is; {dir} is its argument."""
        process = subprocess.Popen(self.words("-q", "--", sys.executable, "-c", code, "{dir}"), env=self.environment,
                                   stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def is_clean(self) -> bool:
        return not list(self.place.iterdir())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    digest = release_directory(tmp_path / "r", FILES)
    (tmp_path / "trust.json").write_bytes(sealed_trust().encode())
    (tmp_path / "private").mkdir()
    return Node(tmp_path, digest)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


LIST = (
    "import json, os, stat, sys\n"
    "found = {}\n"
    "for folder, _, names in os.walk(sys.argv[1]):\n"
    "    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700\n"
    "    for name in names:\n"
    "        path = os.path.join(folder, name)\n"
    "        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600\n"
    "        found[os.path.relpath(path, sys.argv[1])] = open(path, 'rb').read().hex()\n"
    "print(json.dumps({'files': found, 'words': sys.argv[2:], 'environment': dict(os.environ)}))\n"
)


def test_the_command_gets_verified_files_and_headers_of_weights(node: Node) -> None:
    done = node.run("--", sys.executable, "-c", LIST, "{dir}", "{release}", "{config}", "a{b}{", "x={release}")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    files = {name: bytes.fromhex(content) for name, content in said["files"].items()}
    header = WEIGHTS[: 8 + int.from_bytes(WEIGHTS[:8], "little")]
    assert files.pop("model.safetensors") == header.replace(b", ", b",").replace(b": ", b":").ljust(len(header), b" ")
    assert files == {name: content for name, content in FILES.items() if name != "model.safetensors"}
    release = f"acme/minilm@{node.digest}"
    config = json.dumps({"release": release, "directory": str(node.home / "r")})
    assert said["words"] == [release, config, "a{b}{", f"x={release}"]
    assert said["environment"]["VLLM_PLUGINS"] == "pqreg"
    assert said["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "revocation" in done.stderr and release in done.stderr
    assert node.is_clean()


def test_with_weights_everything_is_there(node: Node) -> None:
    done = node.run("--with-weights", "--", sys.executable, "-c", LIST, "{dir}")
    assert {name: bytes.fromhex(content) for name, content in json.loads(done.stdout)["files"].items()} == FILES
    assert node.is_clean()


def test_one_file_in_sealed_memory_and_no_directory(node: Node) -> None:
    code = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as model:\n"
        "    print(len(model), model[:4])\n"
        "try:\n"
        "    open(sys.argv[1], 'r+b', buffering=0).write(b'x')\n"
        "except OSError:\n"
        "    print('refused')\n"
    )
    done = node.run("--memfd", "model.gguf", "--", sys.executable, "-c", code, "{file}")
    assert done.stdout.splitlines() == [f"{len(MODEL)} b'GGUF'", "refused"], done.stderr
    assert str(node.place) not in done.stderr
    assert "in sealed memory" in done.stderr


def test_the_exit_status_is_the_commands_own(node: Node) -> None:
    for status in (0, 1, 7, 130, 255):
        done = node.run("-q", "--", "sh", "-c", f"exit {status}", "sh", "{dir}")
        assert (done.returncode, done.stderr) == (status, "")
    assert node.is_clean()


def test_a_command_that_a_signal_ended_ends_us_by_the_same(node: Node) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        done = node.run("-q", "--", "sh", "-c", f"kill -{int(number)} $$", "sh", "{dir}")
        assert done.returncode == -number
        assert node.is_clean()


UNTIL_TOLD = (
    "import signal, sys\n"
    "told = []\n"
    "numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
    "print('ready', flush=True)\n"
    "while not told or told[-1] != 'SIGTERM':\n"
    "    told.append(signal.Signals(signal.sigwait(numbers)).name)\n"
    "    print(told[-1], flush=True)\n"
    "open(sys.argv[1] + '/config.json').read()\n"
    "sys.exit(5)\n"
)


def test_signals_are_passed_on(node: Node) -> None:
    process = node.start(UNTIL_TOLD)
    assert process.stdout is not None
    with process:
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            assert process.stdout.readline().strip() == number.name
        assert process.wait(PATIENCE) == 5
    assert node.is_clean()


def test_ctrl_c_reaches_the_command_once(node: Node) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe(sys.executable, node.words("-q", "--", sys.executable, "-c", UNTIL_TOLD, "{dir}"), node.environment)
    output = b""

    def until(text: bytes) -> None:
        nonlocal output
        deadline = time.monotonic() + PATIENCE
        while text not in output and time.monotonic() < deadline and select.select([terminal], [], [], PATIENCE)[0]:
            output += os.read(terminal, 4096)
        assert text in output, output

    until(b"ready")
    os.write(terminal, b"\x03")
    until(b"SIGINT")
    os.kill(pid, signal.SIGTERM)  # passed on after whatever else would have been
    until(b"SIGTERM")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(terminal)
    assert re.findall(rb"SIG\w+", output) == [b"SIGINT", b"SIGTERM"]
    assert node.is_clean()


@dataclass(frozen=True)
class Told:
    """What sigwaitinfo answers."""

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
    monkeypatch.setattr(signal, "sigwaitinfo", lambda _awaited: arriving.pop(0))
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    assert execchild._follow(child.pid) == 0
    assert sent == [(child.pid, signal.SIGTERM), (child.pid, signal.SIGINT)]


def test_killed_and_the_command_is_told_to_end_and_nothing_is_left(node: Node) -> None:
    process = node.start(f"import os; print('ready', flush=True); print(os.getpid(), flush=True)\n{UNTIL_TOLD}")
    assert process.stdout is not None
    command = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    assert not node.is_clean()
    process.kill()
    process.wait(PATIENCE)
    with process.stdout as output:
        assert output.readline() == "SIGTERM\n"
    assert eventually(lambda: not os.path.exists(f"/proc/{command}"))
    assert eventually(node.is_clean)


def test_what_was_altered_is_not_run(node: Node) -> None:
    path = node.home / "r" / "config.json"
    path.write_bytes(b'{"a": 2}\n')
    done = node.run("--", "sh", "-c", "echo ran", "sh", "{dir}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "config.json" in done.stderr and "shard 0" in done.stderr
    path.write_bytes(FILES["config.json"])
    weights = node.home / "r" / "model.safetensors"
    weights.write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    done = node.run("--with-weights", "--", "sh", "-c", "echo ran", "sh", "{dir}")
    assert (done.returncode, done.stdout) == (1, "")
    assert node.is_clean()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--", "no-such-program", "{dir}"], "no program 'no-such-program'"),
        (["--", "true"], "{dir} among its words"),
        (["--", "true", "{file}"], "--memfd PATH"),
        (["--memfd", "model.gguf", "--", "true", "{dir}"], "{file} among its words"),
        (["--memfd", "other.gguf", "--", "true", "{file}"], "no file 'other.gguf'"),
        (["--memfd", "model.gguf", "--with-weights", "--", "true", "{file}"], "{dir} among its words"),
        ([], "COMMAND"),
    ],
)
def test_what_cannot_be_meant_is_refused(node: Node, words: list[str], said: str) -> None:
    done = node.run(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert node.is_clean()


def test_a_directory_must_be_expected_to_be_something(node: Node) -> None:
    done = subprocess.run([sys.executable, "-m", "pqreg_cli", "exec", str(node.home / "r"), "--", "true", "{dir}"],
                          env=node.environment, capture_output=True, text=True, timeout=PATIENCE)  # fmt: skip
    assert done.returncode == 2
    assert "--expect" in done.stderr


def test_what_was_given_goes_on_to_the_command_and_secrets_stay_off_its_line(node: Node) -> None:
    given = ["--registry", "http://127.0.0.1:1", "--token", "the-secret", "--connections", "3"]
    code = LIST + "print(open('/proc/self/cmdline').read(), file=sys.stderr)"
    done = node.run(*given, "--", sys.executable, "-c", code, "{dir}", PQREG_PASSPHRASE_FD="9")
    environment = json.loads(done.stdout)["environment"]
    assert environment["PQREG_REGISTRY"] == "http://127.0.0.1:1"
    assert (environment["PQREG_TOKEN"], environment["PQREG_CONNECTIONS"]) == ("the-secret", "3")
    assert environment["PQREG_TRUST"] == str(node.home / "trust.json")
    assert "PQREG_PASSPHRASE_FD" not in environment
    assert "the-secret" not in done.stderr


def test_f1_a_token_for_another_registry_does_not_follow(node: Node) -> None:
    mine = {"PQREG_REGISTRY": "https://mine.example.org", "PQREG_TOKEN": "for-mine"}
    done = node.run("--registry", "https://theirs.example.org", "--", sys.executable, "-c", LIST, "{dir}", **mine)
    environment = json.loads(done.stdout)["environment"]
    assert environment["PQREG_REGISTRY"] == "https://theirs.example.org"
    assert "PQREG_TOKEN" not in environment
    done = node.run("--", sys.executable, "-c", LIST, "{dir}", **mine)
    assert json.loads(done.stdout)["environment"]["PQREG_TOKEN"] == "for-mine"


def test_vllm_serve_is_told_to_use_the_plug_in() -> None:
    config = plugin_config("acme/x@sha256:0", None)
    words = filled(for_vllm(["/opt/bin/vllm", "serve", "{dir}"], name="acme/x"), {"dir": "/d", "config": config})
    assert words == ["/opt/bin/vllm", "serve", "/d", "--load-format", "pqreg", "--model-loader-extra-config", config,
                     "--served-model-name", "acme/x"]  # fmt: skip
    own = ["vllm", "serve", "{dir}", "--load_format=auto", "--served-model-name", "x"]
    assert for_vllm(own, name="acme/x") == own
    extra = ["vllm", "serve", "{dir}", "--model-loader-extra-config={}"]
    assert for_vllm(extra, name="x") == [*extra, "--load-format", "pqreg", "--served-model-name", "x"]
    for other in (["vllm", "bench", "{dir}"], ["python", "serve", "{dir}"], ["vllm"]):
        assert for_vllm(other, name="x") == other


def test_places_are_filled_once() -> None:
    assert filled(["{dir}"], {"dir": "{release}", "release": "x"}) == ["{release}"]
    assert filled(["{file}"], {"dir": "x"}) == ["{file}"]
    check_places(["x", "--m={file}"], memfd=True, with_weights=False)
    with pytest.raises(UsageError):
        check_places(["{file}"], memfd=True, with_weights=True)


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
