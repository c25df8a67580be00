# SPDX-License-Identifier: Apache-2.0
"""``pqreg login``, ``logout`` and ``whoami``: which registry this user talks to, and as whom."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import UsageError
from pq_registry.settings import Settings, write_config
from pqreg_cli.console import Output, is_terminal
from pqreg_cli.options import JsonOption, RegistryOption, TokenOption
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.answers import Caller

_TOKEN_LINE = 1024


def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="The registry service, e.g. https://models.example.org.")],
    *,
    token: TokenOption = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="FILE", help="Also keep the path of this trust file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Keep a registry and a token in the config file, so that no command needs to name them again.

    The token is asked for, or read from standard input, and tried before it is kept. The config file is readable by
    you alone (mode 0600). What the environment says still wins over it.

    If the registry keeps weights in an object store on another host, it says where, and that is kept, too: commands
    read and write weights there, without the token, and at no other host but the registry's own.

    Examples:
      pqreg login https://models.example.org
      pqreg login http://127.0.0.1:8470 < DIR/admin.token
    """
    output = Output(json=json)
    token = token or _ask_token()
    session = Session(output, registry=url, token=token)
    with session.client() as client:
        me = client.whoami()
        elsewhere = [str(origin) for origin in client.storage_origins() if origin.host != client.origin.host]
    changes: dict[str, str | None] = {
        "registry": url, "token": token, "storage_origins": ",".join(elsewhere) or None,
    }  # fmt: skip
    if trust is not None:
        if not trust.is_file():
            raise UsageError(f"there is no trust file {trust}", hint="make one: pqreg trust init --help")
        changes["trust"] = str(trust.absolute())
    path = session.settings.config_file
    write_config(path, changes)
    output.line(f"logged in to {url} as {describe(me)}", "good")
    output.line(f"registry and token are kept in {path}")
    for origin in elsewhere:
        output.line(f"weights may be read from and written to {origin} (setting storage_origins)")
    output.data({"registry": url, "config_file": str(path), "storage_origins": elsewhere, **_as_json(me)})


def logout(*, json: JsonOption = False) -> None:
    """Remove registry and token from the config file. The token stays valid until it expires or is revoked.

    Example:
      pqreg logout
    """
    output = Output(json=json)
    path = Settings().config_file
    removed = path.exists()
    if removed:
        write_config(path, {"registry": None, "token": None, "storage_origins": None})
        output.line(f"registry and token are removed from {path}")
        output.note("the token itself stays valid: pqreg token revoke ends it")
    else:
        output.line(f"there is nothing to remove: {path} does not exist")
    output.data({"config_file": str(path), "removed": removed})


def whoami(*, registry: RegistryOption = None, token: TokenOption = None, json: JsonOption = False) -> None:
    """Say what the token allows at the registry.

    Example:
      pqreg whoami --json
    """
    output = Output(json=json)
    session = Session(output, registry=registry, token=token)
    with session.client() as client:
        me = client.whoami()
    output.line(f"{session.settings.require('registry')}: {describe(me)}")
    output.data(_as_json(me))


def describe(me: Caller) -> str:
    """A sentence about a ``whoami`` answer."""
    from pq_registry.format.instant import format_instant

    where = "every namespace" if "*" in me.namespaces else ", ".join(me.namespaces) or "no namespace"
    text = f"{me.role} for {where}"
    return text if me.expires is None else f"{text}, until {format_instant(me.expires)}"


def _as_json(me: Caller) -> dict[str, object]:
    from pq_registry.format.instant import format_instant

    expires = None if me.expires is None else format_instant(me.expires)
    return {"role": me.role, "namespaces": list(me.namespaces), "expires": expires}


def _ask_token() -> str:
    typed = getpass.getpass("Token: ") if is_terminal(sys.stdin) else sys.stdin.readline(_TOKEN_LINE)
    token = typed.strip()
    if not token:
        raise UsageError(
            "no token was given",
            expected="a token typed at the prompt or as the first line of standard input",
            hint="whoever runs the registry makes one: pqreg token create",
        )
    return token
