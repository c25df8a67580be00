# SPDX-License-Identifier: Apache-2.0
"""``pqreg token create|list|revoke``: over the API, or with ``--data`` in the data directory on the host itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import UsageError
from pqreg_cli.console import Output
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption, RegistryOption, TokenOption
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.answers import TokenItem
    from pq_registry.service.tokens import TokenItem as StoredToken
    from pq_registry.storage.stores import StoreConfig

app = new_app(
    help="Create, list and revoke access tokens. A token never makes one with more rights than its own, and takes the "
    "tokens made with it along when it is revoked.",
)
_ROLES = ("reader", "publisher", "owner", "admin")
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Work in this data directory instead of over the API; for operators on the host."
    ),
]


@app.command()
def create(
    *,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="reader, publisher, owner or admin.")],
    namespace: Annotated[
        list[str], typer.Option("--namespace", metavar="NAME", help="A namespace it is for, or '*'; may be repeated.")
    ],
    days: Annotated[int, typer.Option("--days", metavar="N", help="Days until it expires.")] = 90,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for.")] = "",
    data: DataOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Make a token and print it. It is shown this once; the registry keeps only its hash.

    Examples:
      pqreg token create --role publisher --namespace acme --days 30 --note "nightly build"
      pqreg token create --role admin --namespace '*' --data /var/lib/pqreg
    """
    output = Output(json=json)
    if role not in _ROLES:
        raise UsageError("--role is wrong", expected=", ".join(_ROLES), found=repr(role)[:40])
    if not 1 <= days <= limits.TOKEN_LIFETIME_DAYS:
        raise UsageError("--days is wrong", expected=f"1 to {limits.TOKEN_LIFETIME_DAYS}", found=days)
    if data is not None:
        token_id, text = _create_on_host(data, role, namespace, days, note)
    else:
        with Session(output, registry=registry, token=token).client() as client:
            made = client.create_token(role=role, namespaces=namespace, expires_days=days, note=note)
        token_id, text = made.id, made.token
    output.data({"id": token_id, "token": text, "role": role, "namespaces": namespace, "expires_days": days})
    output.note(f"token {token_id}: {role} for {', '.join(namespace)}, {days} days; it is shown only now")
    output.line(text)


@app.command("list")
def list_(
    *, data: DataOption = None, registry: RegistryOption = None, token: TokenOption = None, json: JsonOption = False
) -> None:
    """List the tokens you could revoke, without their secrets.

    Examples:
      pqreg token list
      pqreg token list --data /var/lib/pqreg --json
    """
    output = Output(json=json)
    if data is not None:
        items: Iterable[TokenItem] = map(_without_secret, _list_on_host(data))
    else:
        with Session(output, registry=registry, token=token).client() as client:
            items = client.tokens()
    rows = list(map(_row, items))
    output.data(rows)
    columns = ("id", "role", "namespaces", "expires", "state", "note")
    output.table(columns, [[_shown(row[name]) for name in columns] for row in rows])


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, from pqreg token list.")],
    *,
    data: DataOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Revoke a token and every token made with it, at once.

    Examples:
      pqreg token revoke 0f3c9a1b2d4e5f60
    """
    output = Output(json=json)
    if data is not None:
        _revoke_on_host(data, token_id)
    else:
        with Session(output, registry=registry, token=token).client() as client:
            client.revoke_token(token_id)
    output.data({"revoked": token_id})
    output.line(f"revoked {token_id}")


def _stores(data: Path) -> StoreConfig:
    from pq_registry.settings import Settings
    from pqreg_cli.stores import store_config

    return store_config(Settings({"data": str(data)}))


def _create_on_host(data: Path, role: str, namespaces: list[str], days: int, note: str) -> tuple[str, str]:
    from pq_registry.format.instant import utc_now
    from pq_registry.service.host import open_tokens, operator
    from pq_registry.service.tokens import rights_of

    with open_tokens(_stores(data), utc_now) as tokens:
        rights = rights_of(role=role, namespaces=namespaces)
        made = tokens.create(operator(), rights=rights, expires_days=days, note=note)
    return made.item.id, made.text


def _list_on_host(data: Path) -> list[StoredToken]:
    from pq_registry.format.instant import utc_now
    from pq_registry.service.host import open_tokens, operator

    with open_tokens(_stores(data), utc_now) as tokens:
        return tokens.list(operator())


def _revoke_on_host(data: Path, token_id: str) -> None:
    from pq_registry.format.instant import utc_now
    from pq_registry.service.host import open_tokens, operator

    with open_tokens(_stores(data), utc_now) as tokens:
        tokens.revoke(operator(), token_id)


def _without_secret(item: StoredToken) -> TokenItem:
    from pq_registry.client.answers import TokenItem
    from pq_registry.service.access import format_namespaces

    return TokenItem(
        id=item.id,
        role=item.rights.role.value,
        namespaces=tuple(format_namespaces(item.rights.namespaces)),
        expires=item.expires,
        revoked=item.revoked is not None,
        note=item.note,
    )


def _row(item: TokenItem) -> dict[str, object]:
    from pq_registry.format.instant import format_instant, is_expired, utc_now

    state = "revoked" if item.revoked else "valid"
    if state == "valid" and item.expires is not None and is_expired(utc_now(), item.expires):
        state = "expired"
    return {
        "id": item.id,
        "role": item.role,
        "namespaces": list(item.namespaces),
        "expires": None if item.expires is None else format_instant(item.expires),
        "state": state,
        "note": item.note,
    }


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "-")
