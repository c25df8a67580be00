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
from pathlib import Path

import pytest

from pq_registry import limits
from tests.exec_node import LIST, PATIENCE, Node
from tests.releases import release_directory
from tests.sealing_site import sealed_trust
from tests.tensors import safetensors_bytes

MODEL = b"GGUF" + os.urandom(3 * limits.SHARD_BYTES)
WEIGHTS = safetensors_bytes({"lm_head.weight": ("BF16", (2000, 1000)), "b": ("F16", (77,))}, 1)[0]
FILES = {
    "config.json": b'{"a": 1}\n',
    "model.gguf": MODEL,
    "model.safetensors": WEIGHTS,
    "sub/Gr\u00fc\u00dfe.txt": "Grüße\n".encode(),
}


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


# The terminal becomes that of the session; by a program, because a process with threads may not fork as tests please.
ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_ctrl_c_reaches_the_command_once(node: Node) -> None:
    terminal, theirs = pty.openpty()
    words = node.words("-q", "--", sys.executable, "-c", UNTIL_TOLD, "{dir}")
    process = subprocess.Popen([sys.executable, "-c", ON_A_TERMINAL, *words], env=node.environment, stdin=theirs,
                               stdout=theirs, stderr=theirs, start_new_session=True)  # fmt: skip
    os.close(theirs)
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
    process.terminate()  # passed on after whatever else would have been
    until(b"SIGTERM")
    assert process.wait(PATIENCE) == 5
    os.close(terminal)
    assert re.findall(rb"SIG\w+", output) == [b"SIGINT", b"SIGTERM"]
    assert node.is_clean()


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


@pytest.mark.parametrize("complete", [["--with-weights"], ["--memfd", "model.gguf"]])
def test_f2_a_command_that_needs_no_more_of_the_release_gets_no_secrets(node: Node, complete: list[str]) -> None:
    given = ["--token", "the-secret", "--recipient-key", "node1.pqkey", *complete]
    place = "{dir}" if complete == ["--with-weights"] else "{file}"
    done = node.run(*given, "--", "env", f"PLACE={place}")
    assert "PLACE=/" in done.stdout
    assert "the-secret" not in done.stdout
    assert "PQREG_RECIPIENT_KEY" not in done.stdout


def test_f1_a_token_for_another_registry_does_not_follow(node: Node) -> None:
    mine = {"PQREG_REGISTRY": "https://mine.example.org", "PQREG_TOKEN": "for-mine"}
    done = node.run("--registry", "https://theirs.example.org", "--", sys.executable, "-c", LIST, "{dir}", **mine)
    environment = json.loads(done.stdout)["environment"]
    assert environment["PQREG_REGISTRY"] == "https://theirs.example.org"
    assert "PQREG_TOKEN" not in environment
    done = node.run("--", sys.executable, "-c", LIST, "{dir}", **mine)
    assert json.loads(done.stdout)["environment"]["PQREG_TOKEN"] == "for-mine"


def test_every_reader_refuses_headers_as_weights(node: Node) -> None:
    code = "import sys\nfrom safetensors.numpy import load_file\nload_file(sys.argv[1] + '/model.safetensors')"
    done = node.run("-q", "--", sys.executable, "-c", code, "{dir}")
    assert done.returncode == 1
    assert "SafetensorError" in done.stderr
