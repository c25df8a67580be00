# SPDX-License-Identifier: Apache-2.0
"""The compose file: to the published schema, hardened, without secrets or unpinned images; setup makes its files.

``compose-spec.json`` is the schema of the Compose specification as github.com/compose-spec/compose-go v2.9.1 has it
(Apache-2.0).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.watchedlog import WatchedLog
from pq_registry.service.tokens import is_strong
from pq_registry.settings import SETTINGS
from tests import engines
from tests.deploy.tooling import DEPLOY, ROOT, needs, run

FOLDER = DEPLOY / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "PQREG_IMAGE" in service["image"]}
DIGEST = "0123456789abcdef" * 4


def test_it_is_to_the_schema_of_the_specification() -> None:
    schema = json.loads((ROOT / "tests" / "deploy" / "compose-spec.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert not [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(COMPOSE)]
    broken = {**COMPOSE, "services": {**SERVICES, "registry-1": {**SERVICES["registry-1"], "read_onyl": True}}}
    assert list(validator.iter_errors(broken))


def test_everything_the_issue_asks_for_is_there() -> None:
    assert {"registry-1", "registry-2", "seaweedfs", "postgres", "proxy", "witness", "prometheus"} <= set(SERVICES)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_are_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0 and int(group) > 0
    assert "privileged" not in service and service.get("network_mode") != "host"
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    for volume in service.get("volumes", []):
        assert volume.startswith("./data/"), volume  # no socket of an engine, nothing of the host's


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_come_by_variable_without_default(name: str) -> None:
    assert re.fullmatch(r"\$\{([A-Z]+_IMAGE)(:\?[^}]*)?\}", SERVICES[name]["image"])


def test_only_the_proxy_can_be_reached_from_outside() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert name == "proxy" or port.startswith("127.0.0.1:"), f"{name}: {port}"
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name in ("postgres", "seaweedfs", "witness", "bucket"):
        assert SERVICES[name]["networks"] == ["inside"]
    # Witnesses and a provider's store are elsewhere; nobody but the instances shares that network.
    outside = {name for name, service in SERVICES.items() if "out" in service["networks"]}
    assert {"registry-1", "registry-2"} <= outside <= OURS - {"witness", "bucket"}


def test_settings_exist_and_secrets_are_files() -> None:
    known = {setting.variable: setting for setting in SETTINGS}
    for name in OURS:
        for variable, value in SERVICES[name].get("environment", {}).items():
            if variable.startswith("PQREG_"):
                assert variable in known, variable
                assert not known[variable].secret, variable
            if str(value).startswith("/run/secrets/"):
                assert Path(value).name in SERVICES[name]["secrets"]
    text = (FOLDER / "compose.yaml").read_text() + (FOLDER / "env.example").read_text()
    assert not re.search(r"(?i)(password|secret_access_key|token)\s*[:=]\s*[^\s/{\[.-]", text)


def test_all_that_is_mounted_is_declared_and_is_in_the_tree_or_made_by_setup() -> None:
    made = (FOLDER / "setup").read_text()
    for kind in ("secrets", "configs"):
        wanted = {
            entry if isinstance(entry, str) else entry["source"]
            for service in SERVICES.values()
            for entry in service.get(kind, [])
        }
        assert wanted == set(COMPOSE[kind])
        for entry in COMPOSE[kind].values():
            path = entry["file"].removeprefix("./")
            assert (FOLDER / path).is_file() or path in made or Path(path).name in made, path


def test_every_variable_without_default_is_in_the_example() -> None:
    wanted = set(re.findall(r"\$\{([A-Z0-9_]+):\?", (FOLDER / "compose.yaml").read_text()))
    given = set(re.findall(r"^([A-Z0-9_]+)=", (FOLDER / "env.example").read_text(), re.MULTILINE))
    assert wanted <= given


def test_the_proxys_address_is_the_one_that_is_trusted() -> None:
    address = SERVICES["proxy"]["networks"]["inside"]["ipv4_address"]
    for name in ("registry-1", "registry-2"):
        assert SERVICES[name]["environment"]["PQREG_TRUSTED_PROXIES"] == address


def test_stopping_takes_as_long_as_the_service_may_take() -> None:
    from pq_registry import limits

    for name in ("registry-1", "registry-2"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 3 * limits.DRAIN_SECONDS


# -- setup ------------------------------------------------------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="setup makes files for several users, so it wants root")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the folder with its .env filled in."""
    return filled_in(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after setup has run, for those who only look."""
    site = filled_in(tmp_path_factory.mktemp("made"))
    assert "log_key" in setup(site, "--self-signed").stdout
    return site


def filled_in(root: Path) -> Path:
    copy = root / "deploy" / "compose"
    shutil.copytree(FOLDER, copy)
    for name in ("prometheus", "proxy"):
        shutil.copytree(DEPLOY / name, root / "deploy" / name)
    lines = (FOLDER / "env.example").read_text()
    (copy / ".env").write_text(
        re.sub(r"^(\w+_IMAGE)=$", rf"\1=example.org/x@sha256:{DIGEST}", lines, flags=re.MULTILINE)
    )
    return copy


def setup(site: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
    return run(
        site / "setup",
        *words,
        status=status,
        PQREG=f"{sys.executable} -m pqreg_cli",
        PYTHON=sys.executable,
        PYTHONPATH=path,
    )


@as_root
@needs("openssl")
def test_setup_makes_every_file_for_its_one_user(made: Path) -> None:
    site = made
    owners = {}
    for kind in ("secrets", "configs"):
        for name, entry in COMPOSE[kind].items():
            path = site / entry["file"]
            assert path.is_file(), path
            if kind == "secrets":
                state = path.stat()
                assert stat.S_IMODE(state.st_mode) & 0o077 == 0, path
                owners[name] = state.st_uid
    for name, service in SERVICES.items():
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            assert owners[source] == int(service["user"].split(":")[0]), f"{name}: {source}"
        for volume in service.get("volumes", []):
            path = site / volume.split(":")[0]
            assert path.stat().st_uid == int(service["user"].split(":")[0]), f"{name}: {path}"


@as_root
@needs("openssl")
def test_what_setup_makes_fits_together(made: Path) -> None:
    site = made
    read = {path.name: path.read_text() for path in (site / "secrets").iterdir()}
    assert is_strong(read["admin_token"].strip())
    assert f":{read['pqreg_password']}@postgres:" in read["database_url"]
    identities = {item["name"]: item for item in json.loads(read["seaweedfs.json"])["identities"]}
    for user, file in (("admin", "s3_admin_credentials"), ("registry", "s3_credentials")):
        assert f"= {identities[user]['credentials'][0]['secretKey']}\n" in read[file]
    assert all(action.endswith(":models") for action in identities["registry"]["actions"])
    WatchedLog.parse((site / "config" / "log.vkey").read_text())
    policy = Policy.parse((site / "config" / "witnesses.policy").read_text())
    assert policy.log.name.startswith("models.example.org/log-")
    assert (site / "data" / "witness" / "witness.vkey").read_text().split()[0] in (
        site / "config" / "witnesses.policy"
    ).read_text()
    chain = run("openssl", "verify", "-CAfile", site / "config" / "ca.pem", site / "secrets" / "tls.crt").stdout
    assert chain.strip().endswith("OK")
    names = run("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", site / "secrets" / "tls.crt").stdout
    assert "DNS:models.example.org, DNS:weights.example.org" in names
    assert len({read[name] for name in ("postgres_password", "pqreg_password", "admin_token")}) == 3


@as_root
@needs("openssl")
def test_setup_replaces_nothing_and_can_go_on_after_it_was_cut_off(made: Path, tmp_path: Path) -> None:
    site = tmp_path / "compose"
    shutil.copytree(made, site)
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    setup(site, "--self-signed")
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before
    (site / "secrets" / "seaweedfs.json").unlink()
    setup(site)
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


@as_root
def test_setup_says_what_is_missing(site: Path) -> None:
    (site / ".env").rename(site / "env")
    assert "copy env.example to .env" in setup(site, status=1).stderr
    (site / ".env").write_text("PQREG_HOST=\n")
    assert "PQREG_HOST" in setup(site, status=1).stderr
    (site / "env").replace(site / ".env")
    assert "still missing: secrets/tls.crt" in setup(site).stderr


@needs("docker-compose")
@as_root
def test_docker_compose_accepts_it(site: Path) -> None:
    # The plug-in's version 2; version 1 knows neither `name` nor profiles of today.
    if not re.search(r"v2|dev|\b[2-9]\d*\.", run("docker-compose", "version", status=None).stdout):
        pytest.skip("docker-compose is version 1")
    done = run("docker-compose", "--profile", "*", "--file", site / "compose.yaml", "config", "--quiet", cwd=site)
    assert not done.stdout
    (site / ".env").write_text("")
    refused = run("docker-compose", "--file", site / "compose.yaml", "config", "--quiet", cwd=site, status=None)
    assert refused.returncode != 0 and "in .env" in refused.stderr + refused.stdout


def test_the_database_is_made_for_a_role_that_can_do_nothing_else() -> None:
    script = (FOLDER / "postgres-init.sh").read_text()
    assert "NOSUPERUSER NOCREATEDB NOCREATEROLE" in script
    assert "REVOKE ALL ON DATABASE pqreg FROM PUBLIC" in script


@needs("psql")
def test_the_database_is_made_and_its_role_owns_it_and_nothing_else(tmp_path: Path) -> None:
    import psycopg

    server = engines.database_server()
    secret = tmp_path / "password"
    secret.write_text("a'b\\c$d")  # a password is a value, whatever is in it
    script = tmp_path / "init.sh"
    text = (FOLDER / "postgres-init.sh").read_text().replace("/run/secrets/pqreg_password", str(secret))
    # The server of the suite has an administrator of this name.
    script.write_text(re.sub(r"\bpqreg\b(?=[ ;])", "made", text))
    where: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(server.create("postgres_init_test"))
    over: dict[str, Any] = {
        "PGHOST": str(where["host"]),
        "PGPORT": str(where["port"]),
        "PGPASSWORD": str(where.get("password", "")),
    }
    with psycopg.connect(**{**where, "dbname": "postgres"}, autocommit=True) as connection:
        run("sh", script, POSTGRES_USER=str(where["user"]), **over)
        try:
            role = connection.execute(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = 'made'"
            ).fetchone()
            assert role == (False, False, False, False)
            found = connection.execute(
                "SELECT pg_get_userbyid(datdba), datcollate, pg_encoding_to_char(encoding), datacl::text "
                "FROM pg_database WHERE datname = 'made'"
            ).fetchone()
            assert found is not None
            assert found[:3] == ("made", "C", "UTF8")
            assert str(found[3]) == "{made=CTc/made}"  # and not everybody's
            assert "a'b" not in run("sh", script, status=None, POSTGRES_USER=str(where["user"]), **over).stderr
        finally:
            connection.execute("DROP DATABASE IF EXISTS made")
            connection.execute("DROP ROLE IF EXISTS made")
            server.drop("postgres_init_test")
