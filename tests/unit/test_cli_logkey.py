# SPDX-License-Identifier: Apache-2.0
"""The log a service starts with: keys made once, never other ones for the same log, and a policy that fits them."""

from __future__ import annotations

import shutil
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pq_registry.errors import FormatError, KeyFileExposed, SettingError
from pq_registry.format.instant import utc_now
from pq_registry.format.note import NoteKeyType
from pq_registry.server.config import ServerConfig
from pq_registry.service.registry import Registry
from pq_registry.settings import Settings
from pq_registry.storage.s3.config import S3Config
from pq_registry.storage.stores import StoreConfig, Stores
from pq_registry.storage.tiles import LocalTiles
from pqreg_cli.logkey import log_setup
from pqreg_keys.notekeyfile import LOG_TYPES, WITNESS_TYPES, generate_note_keys
from tests.logsamples import compose_policy, witness_signers
from tests.stack import store_config


def config(data: Path, **changes: Any) -> ServerConfig:
    stores = store_config(data)
    return ServerConfig(
        stores=stores, host="127.0.0.1", port=0, public_read=False, hosts=None, log_level="info", **changes
    )  # fmt: skip


def test_the_first_start_makes_keys_and_the_next_ones_use_them(tmp_path: Path) -> None:
    made = log_setup(config(tmp_path / "data"))
    path = tmp_path / "data" / "log.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.signers.origin.startswith("pqreg.local/")
    assert made.policy.attesting == frozenset()
    assert made.witnesses is None
    assert log_setup(config(tmp_path / "data")).signers.vkeys == made.signers.vkeys
    assert log_setup(config(tmp_path / "other")).signers.origin != made.signers.origin


def test_origin_and_place_can_be_chosen(tmp_path: Path) -> None:
    elsewhere = tmp_path / "keys" / "log.key"
    elsewhere.parent.mkdir()
    made = log_setup(config(tmp_path / "data", log_origin="log.example.org", log_key=elsewhere))
    assert made.signers.origin == "log.example.org"
    assert not (tmp_path / "data" / "log.key").exists()
    with pytest.raises(SettingError, match="log_origin is not the name"):
        log_setup(config(tmp_path / "data", log_origin="other.example.org", log_key=elsewhere))


def test_forgotten_stores_begin_no_second_history(tmp_path: Path) -> None:
    """An instance's directory has the log's keys, and nothing else of a registry whose stores are elsewhere."""
    data, other = tmp_path / "data", tmp_path / "other"
    generate_note_keys(tmp_path / "log.key", "log.example.org", LOG_TYPES)
    settings = {"storage": "s3://models/registry", "s3_endpoint": "https://s3.example.org"}
    stores = StoreConfig(
        data=data, database="postgresql://pqreg:secret@db/pqreg",
        s3=S3Config.from_settings(Settings(settings, environment={})),
    )  # fmt: skip
    key = tmp_path / "log.key"
    made = log_setup(replace(config(data, log_key=key), stores=stores))
    forgotten = replace(config(data, log_key=key), stores=StoreConfig(data=data))
    with pytest.raises(SettingError, match="do not name this registry's stores") as raised:
        log_setup(forgotten)
    assert str(data) in str(raised.value.found)
    assert "secret" not in (data / "stores.txt").read_text()
    assert log_setup(replace(forgotten, stores=StoreConfig(data=other))).signers.vkeys == made.signers.vkeys
    (data / "catalogue.sqlite3").touch()  # a backup was restored into this directory
    log_setup(forgotten)


def test_a_log_that_lost_its_keys_gets_no_others(tmp_path: Path) -> None:
    (tmp_path / "data" / "log").mkdir(parents=True)
    with pytest.raises(SettingError, match="has lost its keys"):
        log_setup(config(tmp_path / "data"))
    assert not (tmp_path / "data" / "log.key").exists()


@pytest.mark.parametrize("trace", ["catalogue", "tiles"])
def test_a_log_is_known_by_any_of_its_stores(tmp_path: Path, trace: str) -> None:
    """Also where the data directory is new, as on another host: the first instance's keys are the log's."""
    first = config(tmp_path / "data")
    setup = log_setup(first)
    Registry.open(first.stores, utc_now, log=setup).close()
    (tmp_path / "data" / "log.key").unlink()
    with closing(Stores.open(first.stores, upgrade=False)) as stores:
        if trace == "tiles":
            with stores.catalogue.writing() as session:
                session.execute(text("DELETE FROM log_state"))
        elif isinstance(stores.tiles, LocalTiles):
            shutil.rmtree(stores.tiles.root)
    with pytest.raises(SettingError, match="has lost its keys"):
        log_setup(first)
    assert not (tmp_path / "data" / "log.key").exists()


def test_keys_that_others_can_read_or_that_are_no_logs_are_refused(tmp_path: Path) -> None:
    log_setup(config(tmp_path / "data"))
    (tmp_path / "data" / "log.key").chmod(0o640)
    with pytest.raises(KeyFileExposed):
        log_setup(config(tmp_path / "data"))
    generate_note_keys(tmp_path / "witness.key", "witness.example", WITNESS_TYPES)
    with pytest.raises(SettingError, match="does not hold the keys of a log"):
        log_setup(config(tmp_path / "data", log_key=tmp_path / "witness.key"))


def test_a_policy_may_leave_the_logs_own_lines_out(tmp_path: Path) -> None:
    ed25519, mldsa = (signer.key for signer in witness_signers(1))
    assert mldsa.type is NoteKeyType.MLDSA44_COSIGNATURE
    lines = (
        f"witness w-ed25519 {ed25519} http://127.0.0.1:1", f"witness w-pq {mldsa} http://127.0.0.1:1",
        "group w all w-ed25519 w-pq", "group everyone all log-pq w", "quorum everyone",
    )  # fmt: skip
    path = tmp_path / "policy"
    path.write_text("".join(f"{line}\n" for line in lines))
    made = log_setup(config(tmp_path / "data", log_witnesses=path))
    assert (made.policy.log, made.policy.log_pq) == (made.signers.ed25519.key, made.signers.mldsa.key)
    assert made.policy.attesting == {"w-ed25519", "w-pq"}
    assert made.witnesses is not None
    made.witnesses.close()
    path.write_text(made.policy.text)  # with them it is the same
    again = log_setup(config(tmp_path / "data", log_witnesses=path))
    assert again.policy == made.policy
    assert again.witnesses is not None
    again.witnesses.close()


def test_the_policy_of_another_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    path.write_text(compose_policy().text)
    with pytest.raises(SettingError, match="the policy of another log"):
        log_setup(config(tmp_path / "data", log_witnesses=path))
    path.write_bytes(b"\xff")
    with pytest.raises(SettingError, match="not a log policy"):
        log_setup(config(tmp_path / "data", log_witnesses=path))
    path.write_text("quorum none\n")
    with pytest.raises(FormatError):
        log_setup(config(tmp_path / "data", log_witnesses=path))
