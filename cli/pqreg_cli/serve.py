# SPDX-License-Identifier: Apache-2.0
"""``pqreg serve``: run the registry service on this machine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import EXIT_REFUSED
from pqreg_cli.console import Output
from pqreg_cli.options import JsonOption
from pqreg_cli.storecheck import check_store, show_checks, store_facts
from pqreg_cli.stores import DatabaseOption, DataOption, EndpointOption, StorageOption, store_settings

if TYPE_CHECKING:
    from pq_registry.server.config import ServerConfig
    from pq_registry.settings import Settings


def serve(
    *,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Where to listen; port 0 is any. [setting: PQREG_LISTEN, 127.0.0.1:8470]",
        ),
    ] = None,
    public_read: Annotated[
        bool | None,
        typer.Option("--public-read/--no-public-read", help="Let anyone read. [setting: PQREG_PUBLIC_READ, no]"),
    ] = None,
    private_log: Annotated[
        bool | None,
        typer.Option(
            "--private-log/--no-private-log",
            help="Show the log only to those who may read something. [setting: PQREG_PRIVATE_LOG, no]",
        ),
    ] = None,
    dev_s3: Annotated[
        bool, typer.Option("--dev-s3", help="Run an object store in DIR/dev-s3 and keep weights and log there.")
    ] = False,
    dev_postgres: Annotated[
        bool, typer.Option("--dev-postgres", help="Run PostgreSQL in DIR/dev-postgres and keep the catalogue there.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Check and show the configuration, and do not serve.")] = False,
    json: JsonOption = False,
) -> None:
    """Run a registry service. The first start makes an admin token, printed once, and the keys of its log.

    It logs to standard output and says on standard error when it is ready. SIGTERM lets requests under way finish.

    Examples:
      pqreg serve --data /var/lib/pqreg
      pqreg serve --data ./registry --listen 127.0.0.1:0
      pqreg serve --data ./registry --dev-s3 --dev-postgres    the full stack, for trying it
    """
    from pq_registry.settings import Settings

    given = {
        **store_settings(data, database, storage, s3_endpoint),
        "listen": listen,
        "public_read": None if public_read is None else str(public_read).lower(),
        "private_log": None if private_log is None else str(private_log).lower(),
    }
    require_server()
    with contextlib.ExitStack() as running:
        if dev_s3 or dev_postgres:
            given |= _start_dev_stack(given, running, s3=dev_s3, postgres=dev_postgres)
        _serve(Settings(given), Output(json=json), check=check)


def _serve(settings: Settings, output: Output, *, check: bool) -> None:
    from pq_registry.server.config import ServerConfig
    from pq_registry.server.serve import serve as run

    config = ServerConfig.from_settings(settings)
    if check:
        _show(config, settings, output)
        return
    from pqreg_cli.logkey import log_setup

    run(config, log_setup, _announce)


def _start_dev_stack(
    given: Mapping[str, str | None], running: contextlib.ExitStack, *, s3: bool, postgres: bool
) -> dict[str, str]:
    """Start the servers, to be stopped with ``running``; answers the settings that lead to them."""
    from pq_registry.errors import UsageError
    from pq_registry.settings import Settings, tell_libraries
    from pqreg_cli.engines.stack import dev_stack

    for wanted, option, others in (
        (s3, "--dev-s3", ("storage", "s3_endpoint")),
        (postgres, "--dev-postgres", ("database",)),
    ):
        for other in others:
            if wanted and given[other] is not None:
                raise UsageError(f"{option} and --{other.replace('_', '-')} cannot be given together")
    data = Path(Settings(given).require("data")).absolute()
    stack = running.enter_context(dev_stack(data, s3=s3, postgres=postgres))
    tell_libraries(stack.credentials)
    for line in stack.notice:
        _announce(f"pqreg: {line}")
    return stack.settings


def _announce(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def require_server() -> None:
    """Refuse where the service's parts are not installed.

    Raises:
        UsageError: saying how to install them.
    """
    from importlib.util import find_spec

    from pq_registry.errors import UsageError

    absent = [name for name in ("alembic", "fastapi", "httptools", "sqlalchemy", "uvicorn") if find_spec(name) is None]
    if absent:
        raise UsageError(
            "the registry service is not installed", found=f"no {', '.join(absent)}",
            hint="pip install 'pq-registry[server]'",
        )  # fmt: skip


def _show(config: ServerConfig, settings: Settings, output: Output) -> None:
    from pqreg_cli.effective import concerns, effective_settings

    effective, found = effective_settings(settings), list(concerns(config))
    checks = check_store(config.stores)
    facts = {
        "data": str(config.data),
        **store_facts(config.stores),
        "listen": f"{config.host}:{config.port}",
        "public_read": config.public_read,
        "private_log": config.private_log,
        "log_key": str(config.log_key or config.data / "log.key"),
        "log_witnesses": None if config.log_witnesses is None else str(config.log_witnesses),
        "hosts": None if config.hosts is None else sorted(config.hosts),
        "log_level": config.log_level,
    }
    output.data(facts | {"object_store": checks, "settings": effective, "concerns": found})
    hosts = "any" if config.hosts is None else ", ".join(sorted(config.hosts))
    shown = facts | {name: "yes" if facts[name] else "no" for name in ("public_read", "private_log")} | {"hosts": hosts}
    output.fields((name.replace("_", " "), value) for name, value in shown.items())
    changed = [(name, of["value"], of["source"]) for name, of in effective.items() if of["source"] != "default"]
    if changed:
        output.line("")
        output.table(("setting", "value", "from"), changed)
    for concern in found:
        output.warning(concern)
    if checks and not show_checks(checks, output):
        raise typer.Exit(EXIT_REFUSED)
