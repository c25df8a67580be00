# SPDX-License-Identifier: Apache-2.0
"""What is PostgreSQL's alone: its URL stays secret, several processes take turns, and each of its failures is told."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from pq_registry import limits
from pq_registry.errors import Conflict, FormatError, PqregError, SettingError, StorageError
from pq_registry.server.problems import problem_of
from pq_registry.storage.catalogue import migrate
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.failures import is_full, is_undone
from pq_registry.storage.catalogue.postgres import WRITER_LOCK, connector
from pq_registry.storage.catalogue.tables import NamespaceRow
from pq_registry.storage.stores import StoreConfig
from tests import engines

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET = "Xk2-canary-9"


@pytest.fixture
def catalogue(postgres_url: str) -> Iterator[Catalogue]:
    found = Catalogue.open_postgres(postgres_url, upgrade=True)
    yield found
    found.close()


def namespace(key: str) -> NamespaceRow:
    return NamespaceRow(key=key, name=key, created=NOW)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://pqreg:{SECRET}@127.0.0.1:1/none",
        f"postgresql://pqreg:{SECRET}%ZZ@127.0.0.1/none",
        f"postgresql://pqreg:{SECRET}@127.0.0.1/none?nonsense=1",
        f"postgresql://pqreg:{SECRET}@[::1/none",
        f"postgres://{SECRET}:{SECRET}@127.0.0.1:70000/none?sslpassword={SECRET}",
    ],
)
def test_the_password_is_in_no_message_and_no_traceback(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(PqregError) as caught:
        Catalogue.open_postgres(url, upgrade=True)
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value) + (caught.value.hint or "")
    assert SECRET not in shown.replace(url, "")  # the test's own source line is in the traceback
    assert SECRET not in caplog.text
    assert SECRET not in repr(StoreConfig(data=tmp_path, database=url))


def test_a_wrong_password_is_not_shown(postgres_url: str) -> None:
    with pytest.raises(StorageError) as caught:
        Catalogue.open_postgres(postgres_url.replace("://", f"://nobody:{SECRET}@", 1).replace("@pqreg@", "@"),
                                upgrade=False)  # fmt: skip
    assert SECRET not in str(caught.value)


def test_what_is_not_a_url_says_how_it_should_look() -> None:
    with pytest.raises(SettingError, match="sslmode=verify-full"):
        connector("postgresql://pqreg:a%ZZ@host/name")


def test_a_database_that_does_not_exist_is_named(postgres_url: str) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        Catalogue.open_postgres(postgres_url + "_not", upgrade=True)


@pytest.mark.parametrize("upgrade", [True, False])
def test_a_newer_schema_is_refused_and_left_alone(postgres_url: str, upgrade: bool, catalogue: Catalogue) -> None:
    with catalogue.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match="another version"):
        Catalogue.open_postgres(postgres_url, upgrade=upgrade)
    with catalogue.reading() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_an_empty_database_is_only_filled_when_asked(postgres_url: str) -> None:
    with pytest.raises(StorageError, match="another version"):
        Catalogue.open_postgres(postgres_url, upgrade=False)


def test_instances_that_start_at_once_migrate_once(postgres_url: str) -> None:
    barrier = threading.Barrier(4)

    def start(_: int) -> str | None:
        barrier.wait()
        catalogue = Catalogue.open_postgres(postgres_url, upgrade=True)
        with catalogue.connection() as connection:
            revision = migrate.current(connection)
        catalogue.close()
        return revision

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(start, range(4))) == {migrate.head()}


def test_every_text_column_is_ordered_by_code_point(catalogue: Catalogue) -> None:
    query = text(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND data_type IN ('text', 'character varying') AND collation_name IS DISTINCT FROM 'C'"
        " AND table_name <> 'alembic_version'"
    )
    with catalogue.reading() as session:
        assert session.scalar(query) == 0


@pytest.mark.parametrize("bad", ["a\0b", "x" * 97, "\ud800"])
def test_text_it_cannot_hold_is_refused_as_such(catalogue: Catalogue, bad: str) -> None:
    with pytest.raises(FormatError), catalogue.writing() as session:
        session.add(namespace(bad))
    with catalogue.reading() as session:
        assert session.scalars(select(NamespaceRow)).all() == []


def test_what_a_session_is_told(catalogue: Catalogue) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "synchronous_commit",
             "application_name", "transaction_isolation", "transaction_read_only")  # fmt: skip
    with catalogue.reading() as session:
        found = [session.scalar(text(f"SHOW {name}")) for name in names]
    assert found == ["1min", "15s", "1h", "on", "pq-registry", "repeatable read", "on"]
    with catalogue.writing() as session:
        found = [session.scalar(text(f"SHOW {name}")) for name in names]
    assert found == ["1min", "15s", "5s", "on", "pq-registry", "read committed", "off"]


def test_readers_cannot_write(catalogue: Catalogue) -> None:
    with pytest.raises(StorageError, match="read-only"), catalogue.reading() as session:
        session.execute(text("DELETE FROM namespaces"))


def _count_up(url: str, times: int) -> None:
    catalogue = Catalogue.open_postgres(url, upgrade=False)
    for _ in range(times):
        with catalogue.writing() as session:
            row = session.scalars(select(NamespaceRow)).one()
            row.name = str(int(row.name) + 1)
    catalogue.close()


def test_processes_take_turns(postgres_url: str, catalogue: Catalogue) -> None:
    """What one read did not change before it wrote, although no row was locked."""
    with catalogue.writing() as session:
        session.add(NamespaceRow(key="count", name="0", created=NOW))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count_up, args=(postgres_url, 40)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    with catalogue.reading() as session:
        assert session.scalars(select(NamespaceRow.name)).one() == "80"


def test_a_writer_that_hangs_is_thrown_out(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that sleeps in a transaction loses it; the next writer goes on."""
    monkeypatch.setattr(limits, "CATALOGUE_IDLE_SECONDS", 1)
    asleep = Catalogue.open_postgres(postgres_url, upgrade=True)
    awake = Catalogue.open_postgres(postgres_url, upgrade=False)
    with pytest.raises(StorageError), asleep.writing() as session:
        session.add(namespace("asleep"))
        session.flush()
        with awake.writing() as other:  # waits for the lock until the server ends the first transaction
            other.add(namespace("awake"))
        session.execute(text("SELECT 1"))
    with awake.reading() as session:
        assert session.scalars(select(NamespaceRow.key)).all() == ["awake"]
    asleep.close()
    awake.close()


def test_waiting_for_other_writers_has_an_end(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CATALOGUE_LOCK_SECONDS", 1)
    catalogue = Catalogue.open_postgres(postgres_url, upgrade=True)
    holder = connector(postgres_url)()
    with holder.transaction():
        holder.execute("SELECT pg_advisory_xact_lock(%s)", (WRITER_LOCK,))
        with pytest.raises(StorageError) as caught, catalogue.writing() as session:
            session.execute(text("SELECT 1"))
    assert "55P03" in str(caught.value)
    answer = problem_of(caught.value, "0" * 32)
    assert (answer.status, answer.headers["Retry-After"]) == (503, str(limits.S3_SLOW_DOWN_SECONDS))
    holder.close()
    catalogue.close()


def test_more_readers_than_connections_wait_and_are_told(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CATALOGUE_CONNECTIONS", 1)
    monkeypatch.setattr(limits, "CATALOGUE_LOCK_SECONDS", 1)
    catalogue = Catalogue.open_postgres(postgres_url, upgrade=True)
    with catalogue.reading() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(StorageError, match="busy") as caught:
            catalogue.check()
    assert caught.value.retry_after == limits.S3_SLOW_DOWN_SECONDS
    catalogue.check()
    catalogue.close()


@pytest.mark.parametrize(
    ("sqlstate", "undone", "full"),
    [("40001", True, False), ("40P01", True, False), ("53100", True, True), ("25P03", True, False),
     ("40003", False, False), ("57P01", False, False), ("08006", False, False), ("XX000", False, False)],
)  # fmt: skip
def test_what_a_failed_commit_means(catalogue: Catalogue, sqlstate: str, undone: bool, full: bool) -> None:
    raising = f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{sqlstate}'; END $$"
    with pytest.raises(StorageError) as caught, catalogue.writing() as session:
        session.connection().exec_driver_sql(raising)
    assert (is_undone(caught.value), is_full(caught.value)) == (undone, full)
    assert problem_of(caught.value, "0" * 32).status == (507 if full else 503)


def test_a_deferred_constraint_that_fails_at_commit_is_undone(catalogue: Catalogue) -> None:
    with catalogue.writing() as session:
        session.execute(text("CREATE TABLE later (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)"))
    with pytest.raises(Conflict) as caught, catalogue.writing() as session:
        session.execute(text("INSERT INTO later VALUES (1), (1)"))
    assert is_undone(caught.value)


def test_a_restart_of_the_server_in_a_transaction_undoes_it(postgres_url: str, catalogue: Catalogue) -> None:
    server = engines.database_server()
    with pytest.raises(StorageError) as caught, catalogue.writing() as session:
        session.add(namespace("lost"))
        session.flush()
        server.crash()
        server.start()
    assert not is_undone(caught.value)  # nobody can say so who was not told
    assert problem_of(caught.value, "0" * 32).headers["Retry-After"]
    with catalogue.writing() as session:  # the pool's other connections are as dead, and nobody notices
        session.add(namespace("kept"))
    with catalogue.reading() as session:
        assert session.scalars(select(NamespaceRow.key)).all() == ["kept"]
