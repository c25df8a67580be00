# SPDX-License-Identifier: Apache-2.0
"""The servers that come with the development stack: they work, they are private, and they leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
import pytest

from pq_registry.errors import StorageError, UsageError
from pqreg_cli.engines import programs as installed
from pqreg_cli.engines import seaweedfs
from pqreg_cli.engines.child import Child, Command
from pqreg_cli.engines.claim import claimed
from pqreg_cli.engines.postgres import PostgreSQL
from pqreg_cli.engines.programs import programs
from tests import engines
from tests.engines import Bucket
from tests.server_harness import ROOT

SOURCES = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))


def command(tmp_path: Path, *words: str, **options: object) -> Command:
    return Command(name="it", argv=words, cwd=tmp_path, log=tmp_path / "log", **options)  # type: ignore[arg-type]


def test_an_object_written_is_there_also_after_a_crash(s3_bucket: Bucket) -> None:
    client = s3_bucket.client()
    client.put_object(Bucket=s3_bucket.name, Key=f"{s3_bucket.prefix}/a", Body=b"kept")
    endpoint = s3_bucket.server.endpoint
    s3_bucket.server.kill()
    s3_bucket.server.start()
    assert s3_bucket.server.endpoint == endpoint
    assert client.get_object(Bucket=s3_bucket.name, Key=f"{s3_bucket.prefix}/a")["Body"].read() == b"kept"
    assert s3_bucket.keys() == ["a"]
    client.close()


def test_the_object_store_wants_credentials(s3_bucket: Bucket) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{s3_bucket.server.endpoint}/{s3_bucket.name}")
    refused.value.close()
    assert refused.value.code == 403
    assert s3_bucket.server.credentials.secret_key not in repr(s3_bucket.server.credentials)


def test_a_database_wants_the_password_and_survives_a_crash(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1")
    engines.database_server().crash()
    engines.database_server().start()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT * FROM kept").fetchall() == [(1,)]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_url.replace(":", ":x", 2).replace(":x//", "://", 1))


@pytest.mark.parametrize("place", programs(), ids=str)
def test_every_postgresql_of_the_machine_starts_in_a_directory_of_root_s_alone(tmp_path: Path, place: Path) -> None:
    tmp_path.chmod(0o700)
    server = PostgreSQL(tmp_path / "deep" / "postgres", synced=False, programs=place)
    server.start()
    try:
        assert server.create("mine") == server.create("mine")
    finally:
        server.stop()


def test_programs_that_only_root_may_see_are_copied(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as another user")
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    found = next(path for path in programs() if path.parent.name.startswith("pginstall"))
    package = found.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, hidden / part.name, symlinks=True)
    server = PostgreSQL(tmp_path / "postgres", synced=False, programs=hidden / found.relative_to(package.parent))
    server.start()
    copy = server._programs.copy
    assert copy is not None
    assert copy.is_dir()
    server.stop()
    assert not copy.exists()


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "programs", list)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="PostgreSQL") as missing:
        PostgreSQL(tmp_path / "postgres")
    assert "dev-stack" in str(missing.value.hint)
    with pytest.raises(UsageError, match="object store") as missing:
        seaweedfs.SeaweedFS(tmp_path / "s3")
    assert "dev-stack" in str(missing.value.hint)


def test_a_cluster_of_another_version_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("7\n")
    with pytest.raises(UsageError, match="no PostgreSQL can be started") as refused:
        PostgreSQL(tmp_path)
    assert refused.value.expected == "the programs of PostgreSQL 7"


def test_the_object_store_leaves_no_sockets_behind(tmp_path: Path) -> None:
    with seaweedfs.seaweedfs(tmp_path / "s3", gently=False) as server:
        made = {path for port in server._ports.values() for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")}
        assert len(made) == 5
    assert not [path for path in made if path.exists()]


def test_two_servers_in_one_directory_are_one_too_many(tmp_path: Path) -> None:
    with claimed(tmp_path) as lock:
        child = Child(command(tmp_path, "/bin/sleep", "1000", keep=(lock,)))
    with pytest.raises(UsageError, match="another process"), claimed(tmp_path, wait=0.1):
        pass
    child.stop()
    with claimed(tmp_path, wait=0.1):
        pass


# -- the child process -----------------------------------------------------------------------------------------------


def test_a_server_that_ends_at_its_start_shows_its_last_words(tmp_path: Path) -> None:
    child = Child(command(tmp_path, "/bin/sh", "-c", "echo no such disk >&2; exit 3"))
    with pytest.raises(StorageError, match="it ended at its start") as failed:
        child.wait_until(lambda: False)
    assert failed.value.found == "no such disk"


def test_a_program_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be started"):
        Child(command(tmp_path, str(tmp_path / "absent")))


def test_stopping_asks_first(tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 0' INT; echo ready; while :; do read line || sleep 0.01; done"
    child = Child(command(tmp_path, "/bin/sh", "-c", script, stop=signal.SIGINT))
    child.wait_until(lambda: b"ready" in (tmp_path / "log").read_bytes())
    child.stop()
    assert (tmp_path / "log").read_text() == "ready\nasked\n"
    assert not child.running


def test_a_server_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    reading, writing = socket.socketpair()
    program = f"""
import pathlib, signal, sys
from pqreg_cli.engines.child import Child, Command
where = pathlib.Path({str(tmp_path)!r})
# The server holds the socket, and with it the socket's other end shows when the server ends.
Child(Command(name="it", argv=["/bin/sleep", "1000"], cwd=where, log=where / "log", keep=({writing.fileno()},)))
print("ready", flush=True)
signal.pause()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, pass_fds=[writing.fileno()],
        env={**os.environ, "PYTHONPATH": SOURCES},
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    writing.close()
    reading.setblocking(False)
    with pytest.raises(BlockingIOError):
        reading.recv(1)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    reading.settimeout(30)
    assert reading.recv(1) == b""
    reading.close()
