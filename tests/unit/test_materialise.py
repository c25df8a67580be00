# SPDX-License-Identifier: Apache-2.0
"""Verified files in a private directory: what is written, with which modes, what is refused, and that it goes away."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.crypto.shards import shard_digest
from pq_registry.errors import PqregError, ShardMismatch, StorageError, TensorTableMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.integrations import private
from pq_registry.loader.integrations.materialise import materialise, private_directory
from pq_registry.loader.opening import OpenRelease, open_release
from pq_registry.loader.selection import Run
from pq_registry.settings import Settings
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.tensors import safetensors_bytes

WEIGHTS = safetensors_bytes({"w": ("F32", (5 * limits.SHARD_BYTES // 4 + 1000,)), "b": ("F16", (77,))}, 1)[0]
FILES = {
    "config.json": b'{"a": 1}\n',
    "empty.txt": b"",
    "deep/er/template.jinja": b"{{ x }}",
    "model.safetensors": WEIGHTS,
    "big.bin": os.urandom(3 * limits.SHARD_BYTES + 5),
}


@pytest.fixture
def opened(tmp_path: Path) -> OpenRelease:
    release_directory(tmp_path / "r", FILES)
    settings = Settings({"trust": str(write_trust(tmp_path / "trust.json"))}, environment={"HOME": str(tmp_path)})
    return open_release(tmp_path / "r", expect="acme/minilm", settings=settings, now=NOW)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir(mode=0o700)
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if not file.is_dir()}


def test_every_file_and_only_for_the_owner(opened: OpenRelease, out: Path) -> None:
    meter = Meter()
    written = materialise(opened, out, meter=meter)
    assert contents(out) == FILES
    assert [entry.path.text for entry in written] == sorted(FILES)
    assert meter["hash"].count == sum(map(len, FILES.values()))
    for path in out.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_modes_do_not_depend_on_the_umask(opened: OpenRelease, out: Path) -> None:
    before = os.umask(0)
    try:
        materialise(opened, out)
    finally:
        os.umask(before)
    for path in out.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_only_what_is_asked_for_is_read(opened: OpenRelease, out: Path, tmp_path: Path) -> None:
    damage(tmp_path / "r" / "model.safetensors", 3_000_000)
    materialise(opened, out, include=lambda file: file.tensors is None)
    assert contents(out) == {name: data for name, data in FILES.items() if name != "model.safetensors"}


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["config.json", "big.bin", "model.safetensors"])
def test_nothing_unverified_has_a_name(opened: OpenRelease, out: Path, tmp_path: Path, name: str) -> None:
    damage(tmp_path / "r" / name, len(FILES[name]) - 1)
    with pytest.raises(ShardMismatch, match=name):
        materialise(opened, out)
    left = contents(out)
    assert name not in left
    assert left.items() <= FILES.items()  # no temporary file either


def test_what_was_being_read_when_another_file_failed_is_not_written(
    opened: OpenRelease, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Stopping()
    monkeypatch.setattr(OpenRelease, "filler", lambda *_: source)
    written: list[bytes] = []
    monkeypatch.setattr(
        "pq_registry.loader.integrations.materialise.write_fully", lambda _to, data, _at: written.append(bytes(data))
    )
    with pytest.raises(ShardMismatch, match="big"):
        materialise(replace(opened, workers=2), out, include=lambda file: file.path.text in {"big.bin", "config.json"})
    assert source.told == [True] and written == []
    assert contents(out) == {}


class Stopping:
    """Fails with the one file while the other is being read, of which it then leaves unchecked bytes."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.told: list[bool] = []

    def fill(self, run: Run, view: memoryview, stopped: Callable[[], bool]) -> None:
        if run.file.path.text == "big.bin":
            assert self.inside.wait(30)
            raise ShardMismatch("shard 0 of big.bin")
        self.inside.set()
        deadline = time.monotonic() + 10
        while not stopped() and time.monotonic() < deadline:
            time.sleep(0.001)
        self.told.append(stopped())
        view[:] = b"?" * len(view)

    def abort(self) -> None:
        """The other thread looks whether it is to stop."""

    def close(self) -> None:
        """Nothing is open."""


def test_a_header_that_is_not_the_signed_table_is_refused(
    opened: OpenRelease, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bytes(WEIGHTS).replace(b'"w"', b'"v"')
    entry = next(file for file in opened.files if file.tensors is not None)
    sha256, shards = digests(other)
    two_models = replace(opened, files=(FileEntry(entry.path, entry.size, sha256, shards, entry.tensors),))

    class Other:
        """Delivers the bytes with the other header, whose digests the manifest has."""

        def fill(self, run: object, view: memoryview, stopped: Callable[[], bool]) -> None:
            begin = run.offset  # type: ignore[attr-defined]
            view[:] = other[begin : begin + len(view)]

        def abort(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(OpenRelease, "filler", lambda *_: Other())
    with pytest.raises(TensorTableMismatch):
        materialise(two_models, out)
    assert contents(out) == {}


def digests(data: bytes) -> tuple[Digest, bytes]:
    shards = [data[at : at + limits.SHARD_BYTES] for at in range(0, len(data), limits.SHARD_BYTES)]
    return Digest(hashlib.sha256(data).hexdigest()), b"".join(shard_digest(shard) for shard in shards)


def test_a_directory_others_may_enter_is_refused(opened: OpenRelease, out: Path) -> None:
    out.chmod(0o750)
    with pytest.raises(StorageError, match="not private"):
        materialise(opened, out)
    assert contents(out) == {}


def test_a_link_in_the_way_is_not_followed(opened: OpenRelease, out: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (out / "deep").symlink_to(tmp_path / "elsewhere")
    (out / "config.json").symlink_to(tmp_path / "elsewhere" / "target")
    with pytest.raises(StorageError):
        materialise(opened, out)
    assert contents(tmp_path / "elsewhere") == {}


def test_sealed_files_are_written_in_the_clear(tmp_path: Path, out: Path) -> None:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        settings = Settings(
            {"trust": str(tmp_path / "trust.json"), "registry": registry.url},
            environment={"XDG_STATE_HOME": str(tmp_path / "state")},
        )
        opened = open_release(f"{NAME}:v1", expect=None, settings=settings, now=utc_now(), key=recipient())
        materialise(opened, out)
        assert contents(out) == model_files()
        site.close()


# -- the directory -----------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings({"private_dir": str(tmp_path)}, environment={"HOME": str(tmp_path)})


def test_it_is_private_and_gone_at_the_end(settings: Settings, tmp_path: Path) -> None:
    with private_directory(settings) as path:
        assert path.parent == tmp_path
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "x").mkdir()
        (path / "x" / "y").write_text("z")
    assert not path.exists()
    with pytest.raises(PqregError), private_directory(settings) as path:
        raise StorageError("anything")
    assert not path.exists()


def test_it_is_made_in_memory_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {tmp_path / "run": "tmpfs", tmp_path / "shm": "tmpfs"}
    for place in kinds:
        place.mkdir()
    monkeypatch.setattr(private, "_file_system", kinds.get)
    monkeypatch.setattr(private, "_SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(private, "_free", lambda place: 10 if place.name == "run" else 1000)
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}

    def where(room: int) -> Path:
        with private_directory(Settings(environment=environment), room=room) as path:
            return path.parent

    assert where(10) == tmp_path / "run"
    assert where(11) == tmp_path / "shm"
    kinds[tmp_path / "run"] = "ext4"
    assert where(10) == tmp_path / "shm"


def test_a_disk_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(private, "_file_system", lambda _: "ext4")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with private_directory(Settings(environment={"HOME": str(tmp_path)})) as path:
        assert path.parent == tmp_path
    assert "verified files go to the disk" in caplog.text


def test_the_kernel_says_what_is_in_memory() -> None:
    assert private._file_system(Path("/proc")) == "proc"
    assert private._file_system(Path("/does/not/exist")) is None


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    settings = Settings({"private_dir": str(tmp_path / "gone")}, environment={"HOME": str(tmp_path)})
    with pytest.raises(StorageError, match="gone"), private_directory(settings):
        pass


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_place_where_others_could_exchange_it(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "shared" / "inner"
    place.mkdir(parents=True)
    place.parent.chmod(mode)
    settings = Settings({"private_dir": str(place)}, environment={"HOME": str(tmp_path)})
    with pytest.raises(StorageError, match=r"exchange what is in \S*shared;"), private_directory(settings):
        pass
    place.parent.chmod(mode | stat.S_ISVTX)
    with private_directory(settings) as path:
        assert path.parent == place


def test_a_runtime_directory_of_somebody_else_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run", "shm"):
        (tmp_path / name).mkdir()
    (tmp_path / "run").chmod(0o777)  # as if sudo had kept XDG_RUNTIME_DIR
    monkeypatch.setattr(private, "_file_system", lambda _: "tmpfs")
    monkeypatch.setattr(private, "_SHARED_MEMORY", tmp_path / "shm")
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    with private_directory(Settings(environment=environment)) as path:
        assert path.parent == tmp_path / "shm"


def test_a_place_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(place, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with (
        pytest.raises(StorageError, match="others could exchange"),
        private_directory(Settings({"private_dir": str(place)})),
    ):
        pass
    assert list(place.iterdir()) == []


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a private directory with a file, and printed its path."""
    program = (
        "import signal, sys; from pathlib import Path; from pq_registry.settings import Settings\n"
        "from pq_registry.loader.integrations.private import private_directory\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup it is ignored
        "with private_directory(Settings({'private_dir': sys.argv[1]})) as path:\n"
        "    (path / 'secret').write_text('x'); print(path, flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip
    with process:
        yield process
        process.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_it_goes_away_with_a_process_that_is_killed(holder: subprocess.Popen[str], how: signal.Signals) -> None:
    assert holder.stdout is not None
    path = Path(holder.stdout.readline().strip())
    assert (path / "secret").exists()
    watch = gone(path)
    holder.send_signal(how)
    assert holder.wait() == -how
    watch()


def gone(path: Path) -> Callable[[], None]:
    """Wait for the guard of ``path``, by a descriptor of the process, and see that the directory went with it."""
    guard = next(number for number in os.listdir("/proc") if number.isdigit() and str(path) in arguments(number))
    descriptor = os.pidfd_open(int(guard))

    def wait() -> None:
        ready, _, _ = select.select([descriptor], [], [], 30)
        os.close(descriptor)
        assert ready, "the guard does not end"
        assert not path.exists()

    return wait


def arguments(process: str) -> list[str]:
    try:
        return Path("/proc", process, "cmdline").read_text().split("\0")
    except OSError:
        return []


def test_the_guard_outlives_the_signals_that_end_a_service(holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    path = Path(holder.stdout.readline().strip())
    watch = gone(path)
    guard = next(number for number in os.listdir("/proc") if number.isdigit() and str(path) in arguments(number))
    os.kill(int(guard), signal.SIGTERM)  # systemd signals every process of the unit
    holder.send_signal(signal.SIGTERM)
    watch()


def test_the_guard_outlives_the_end_of_a_whole_process_group(holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    path = Path(holder.stdout.readline().strip())
    watch = gone(path)
    os.killpg(holder.pid, signal.SIGKILL)  # as a terminal or a supervisor does
    watch()


FORKING = """
import os, sys
from pathlib import Path
from pq_registry.loader.integrations.private import private_directory
from pq_registry.settings import Settings
with private_directory(Settings({"private_dir": sys.argv[1]})) as path:
    child = os.fork()
    if not child:
        sys.exit(0)  # unwinds out of the context
    assert os.waitpid(child, 0)[1] == 0
    assert path.exists()
    assert len(list(Path(sys.argv[1]).iterdir())) == 1
assert not path.exists()
"""


def test_a_forked_process_that_ends_leaves_it_to_the_one_that_made_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path)], check=True, timeout=60)
