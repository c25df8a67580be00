# SPDX-License-Identifier: Apache-2.0
"""``pqreg serve``: run the registry service on this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pqreg_cli.console import Output
from pqreg_cli.options import JsonOption
from pqreg_cli.stores import DatabaseOption, DataOption, EndpointOption, StorageOption, store_settings


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
    check: Annotated[bool, typer.Option("--check", help="Check and show the configuration, and do not serve.")] = False,
    json: JsonOption = False,
) -> None:
    """Run a registry service. The first start makes an admin token, printed once, and the keys of its log.

    It logs to standard output and says on standard error when it is ready. SIGTERM lets requests under way finish.

    Examples:
      pqreg serve --data /var/lib/pqreg
      pqreg serve --data ./registry --listen 127.0.0.1:0
    """
    from pq_registry.settings import Settings

    given = {
        **store_settings(data, database, storage, s3_endpoint),
        "listen": listen,
        "public_read": None if public_read is None else str(public_read).lower(),
        "private_log": None if private_log is None else str(private_log).lower(),
    }
    settings = Settings(given)
    require_server()
    from pq_registry.server.config import ServerConfig
    from pq_registry.server.serve import serve as run

    config = ServerConfig.from_settings(settings)
    if check:
        _show(config, Output(json=json))
        return
    from pqreg_cli.logkey import log_setup

    run(config, log_setup, lambda line: print(line, file=sys.stderr, flush=True))


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


def _show(config: object, output: Output) -> None:
    from pq_registry.server.config import ServerConfig

    assert isinstance(config, ServerConfig)
    facts = {
        "data": str(config.data),
        "listen": f"{config.host}:{config.port}",
        "public_read": config.public_read,
        "private_log": config.private_log,
        "log_key": str(config.log_key or config.data / "log.key"),
        "log_witnesses": None if config.log_witnesses is None else str(config.log_witnesses),
        "hosts": None if config.hosts is None else sorted(config.hosts),
        "log_level": config.log_level,
    }
    output.data(facts)
    hosts = "any" if config.hosts is None else ", ".join(sorted(config.hosts))
    shown = facts | {name: "yes" if facts[name] else "no" for name in ("public_read", "private_log")} | {"hosts": hosts}
    output.fields((name.replace("_", " "), value) for name, value in shown.items())
