# SPDX-License-Identifier: Apache-2.0
"""Who may do what: four roles, a table of permissions, and callers.

A caller is a token as it stood when the request came in. Rights are only ever looked up in ``PERMISSIONS``; what is
not in the table is denied. Namespaces are compared by their keys (without regard to case), and ``None`` stands for all
namespaces, including those that do not exist yet.

Whether a namespace is inside a token's reach says nothing about whether it exists, so refusals may name it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique
from types import MappingProxyType

from pq_registry import limits
from pq_registry.errors import AccessDenied, FormatError
from pq_registry.format.name import Namespace

ALL = "*"
"""How all namespaces are written."""


@unique
class Role(Enum):
    """Roles, weakest first; each may do all that the weaker ones may."""

    READER = "reader"
    PUBLISHER = "publisher"
    OWNER = "owner"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Position among the roles, 0 for the weakest."""
        return list(Role).index(self)


@unique
class Permission(Enum):
    """What a route may demand."""

    READ = "read"
    PUBLISH = "publish"
    REGISTER_IDENTITY = "register-identity"
    REGISTER_KEY = "register-key"
    REVOKE = "revoke"
    MANAGE_TOKENS = "manage-tokens"


_READER = frozenset({Permission.READ})
_PUBLISHER = _READER | {Permission.PUBLISH}
_OWNER = _PUBLISHER | {
    Permission.REGISTER_IDENTITY,
    Permission.REGISTER_KEY,
    Permission.REVOKE,
    Permission.MANAGE_TOKENS,
}

PERMISSIONS = MappingProxyType(
    {Role.READER: _READER, Role.PUBLISHER: _PUBLISHER, Role.OWNER: _OWNER, Role.ADMIN: frozenset(Permission)}
)
"""The whole table. Admin differs from owner by reaching every namespace, which a token of that role must."""


def parse_role(text: str) -> Role:
    """A role by its name.

    Raises:
        FormatError: if there is no such role.
    """
    for role in Role:
        if role.value == text:
            return role
    raise FormatError("no such role", expected=", ".join(role.value for role in Role), found=repr(text)[:40])


def parse_namespaces(texts: Iterable[str]) -> frozenset[str] | None:
    """Namespace keys, or None for ``["*"]``.

    Raises:
        FormatError: if there are none or too many, or ``*`` is mixed with names.
        NameSyntaxError: if one is not a namespace.
    """
    names = list(texts)
    if names == [ALL]:
        return None
    if not 1 <= len(names) <= limits.TOKEN_NAMESPACES:
        raise FormatError(
            "a token needs namespaces", expected=f"1 to {limits.TOKEN_NAMESPACES} of them, or only {ALL}",
            found=len(names),
        )  # fmt: skip
    return frozenset(Namespace(name).key for name in names)


def format_namespaces(namespaces: frozenset[str] | None) -> list[str]:
    """The written form, sorted."""
    return [ALL] if namespaces is None else sorted(namespaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """A role within a set of namespaces; None for all."""

    role: Role
    namespaces: frozenset[str] | None

    def covers(self, other: Rights) -> bool:
        """Whether ``other`` is no more than this."""
        if other.role.rank > self.role.rank:
            return False
        if self.namespaces is None:
            return True
        return other.namespaces is not None and other.namespaces <= self.namespaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    ``token_id`` is empty for a caller without a token, whose ``rights`` are None. ``public_read`` is the operator's
    decision that anyone may read everything. ``publishes`` marks who signed in to the page with a token that may
    publish: the token of the sign-in only reads, but the page shows its holder what publishers see.
    """

    token_id: str
    rights: Rights | None
    expires: datetime | None
    public_read: bool
    request_id: str
    publishes: bool = False

    def sees_as_publisher(self, namespace: str) -> bool:
        """Whether what only publishers see in the namespace with this key is shown to the caller."""
        rights = self.rights
        if rights is None or not (self.publishes or Permission.PUBLISH in PERMISSIONS[rights.role]):
            return False
        return rights.namespaces is None or namespace in rights.namespaces

    def may(self, permission: Permission, namespace: str) -> bool:
        """Whether the permission holds in the namespace with this key."""
        if self.public_read and permission is Permission.READ:
            return True
        rights = self.rights
        return (
            rights is not None
            and permission in PERMISSIONS[rights.role]
            and (rights.namespaces is None or namespace in rights.namespaces)
        )

    def may_somewhere(self, permission: Permission) -> bool:
        """Whether the permission holds in any namespace at all."""
        if self.public_read and permission is Permission.READ:
            return True
        return self.rights is not None and permission in PERMISSIONS[self.rights.role]

    def may_everywhere(self, permission: Permission) -> bool:
        """Whether the caller's own token holds the permission in every namespace; public reading does not count."""
        rights = self.rights
        return rights is not None and permission in PERMISSIONS[rights.role] and rights.namespaces is None

    @property
    def readable(self) -> frozenset[str] | None:
        """Keys of the namespaces the caller may read; None for all."""
        if self.public_read:
            return None
        if self.rights is None or Permission.READ not in PERMISSIONS[self.rights.role]:
            return frozenset()
        return self.rights.namespaces

    def own_rights(self) -> Rights:
        """The rights of the caller's token.

        Raises:
            AccessDenied: if the caller has no token.
        """
        if self.rights is None:
            raise AccessDenied("this needs a token")
        return self.rights


def anonymous(*, public_read: bool, request_id: str) -> Caller:
    """A caller without a token."""
    return Caller(token_id="", rights=None, expires=None, public_read=public_read, request_id=request_id)


def denied(permission: Permission, where: str) -> AccessDenied:
    """The refusal of ``permission`` in ``where``."""
    roles = [role.value for role in Role if permission in PERMISSIONS[role]]
    return AccessDenied(
        f"the token does not allow to {permission.value.replace('-', ' ')} in {where}",
        expected=f"role {' or '.join(roles)} for {where}",
        hint="ask an owner of the namespace or the registry's operator for such a token",
    )
