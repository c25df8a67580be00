# SPDX-License-Identifier: Apache-2.0
"""Bearer tokens: ``pqreg_`` and 43 characters that are 256 random bits.

Only the SHA-256 of a token is stored; its text is answered once, when it is made. That is enough: the text has full
entropy, so there is nothing to guess and no salt is needed. A token is good for this registry only, since no other
knows its hash.

A token made by another never exceeds it: no higher role, no further namespace, no later expiry. Revoking a token
revokes every token that was made with it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import AccessDenied, AlreadyExists, FormatError, NotAuthenticated, NotFound
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.service import audit
from pq_registry.service.access import (
    PERMISSIONS,
    Caller,
    Permission,
    Rights,
    Role,
    format_namespaces,
    parse_namespaces,
    parse_role,
)
from pq_registry.service.clock import Clock
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import TokenRow

TOKEN_PREFIX = "pqreg_"  # noqa: S105 - what every token begins with, so that scanners find leaked ones
HUB_PREFIX = "hf_"
"""May stand before a token: the Hub's JavaScript client sends only what begins so."""
TOKEN_PATTERN = re.compile(r"pqreg_[A-Za-z0-9_-]{43}", re.ASCII)
SESSION_NOTE = "signed in to the page"
"""The note of tokens that ``sign_in`` makes."""
_FEWEST_CHARACTERS = 16
"""Different characters below which 43 of them were not drawn at random (the odds are below 1 in 10^9)."""


def new_token() -> str:
    """A fresh token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(limits.TOKEN_BYTES)


def is_strong(token: str) -> bool:
    """Whether ``token`` is of the form this module makes and not obviously made by hand."""
    return TOKEN_PATTERN.fullmatch(token) is not None and len(set(token[len(TOKEN_PREFIX) :])) >= _FEWEST_CHARACTERS


def hash_token(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenItem:
    """A token, without its secret."""

    id: str
    rights: Rights
    created: datetime
    expires: datetime
    revoked: datetime | None
    note: str


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made; the only time its text is seen."""

    item: TokenItem
    text: str


class Tokens:
    """Making, checking, listing and revoking tokens."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def authenticate(self, token: str, *, public_read: bool, request_id: str, page: bool = False) -> Caller:
        """The caller behind a token; for a ``page`` the token of a sign-in remembers whether it was a publisher's.

        Raises:
            NotAuthenticated: if the token is unknown, expired or revoked.
            StorageError: if the catalogue fails; then nobody is let in.
        """
        row, token = None, token.removeprefix(HUB_PREFIX)
        if TOKEN_PATTERN.fullmatch(token):
            wanted = hash_token(token)
            with self._catalogue.reading() as session:
                row = session.scalars(select(TokenRow).where(TokenRow.hash == wanted)).one_or_none()
            # The look-up is by hash, so its timing tells nothing about a token; compared again out of habit.
            if row is not None and not hmac.compare_digest(row.hash, wanted):
                row = None
        caller = self._caller(row, public_read=public_read, request_id=request_id)
        if page and row is not None and row.note == SESSION_NOTE and row.parent_id is not None:
            return replace(caller, publishes=self._may_publish(row.parent_id))
        return caller

    def _may_publish(self, token_id: str) -> bool:
        # Of a live token: revoking the one that signed in has revoked the sign-in, which does not outlive it either.
        with self._catalogue.reading() as session:
            row = session.get(TokenRow, token_id)
        return row is not None and Permission.PUBLISH in PERMISSIONS[_rights(row).role]

    def holder(self, token_id: str, *, public_read: bool, request_id: str) -> Caller:
        """The caller to whom this service gave a capability: a token as it stands now, by its id.

        Raises:
            NotAuthenticated: if the token is unknown, expired or revoked.
            StorageError: if the catalogue fails; then nobody is let in.
        """
        with self._catalogue.reading() as session:
            row = session.get(TokenRow, token_id)
        return self._caller(row, public_read=public_read, request_id=request_id)

    def _caller(self, row: TokenRow | None, *, public_read: bool, request_id: str) -> Caller:
        if row is None:
            raise NotAuthenticated("the token is not known here", hint="create one with pqreg token create")
        if row.revoked is not None:
            raise NotAuthenticated("the token was revoked", found=format_instant(row.revoked))
        if is_expired(self._clock(), row.expires):
            raise NotAuthenticated("the token has expired", found=format_instant(row.expires))
        return Caller(
            token_id=row.id,
            rights=_rights(row),
            expires=row.expires,
            public_read=public_read,
            request_id=request_id,
        )

    def create(self, caller: Caller, *, rights: Rights, expires_days: int, note: str = "") -> NewToken:
        """Make a token that is no more than the caller's.

        Raises:
            AccessDenied: if it would be.
            FormatError: if lifetime, note or rights are out of bounds, or the note is that of sign-ins.
        """
        _check_lifetime(expires_days)
        if note == SESSION_NOTE:
            raise FormatError("this note is for sign-ins to the page", expected="another note")
        text = new_token()
        expires = self._clock() + timedelta(days=expires_days)
        return NewToken(self._add(caller, text, rights=rights, expires=expires, note=note), text)

    def sign_in(self, caller: Caller) -> NewToken:
        """Make the token of a sign-in to the page: for reading, within the caller's reach, for a working day.

        Raises:
            AccessDenied: if the caller has no token.
            NotAuthenticated: if the caller's token has been revoked meanwhile.
        """
        text = new_token()
        expires = self._clock() + timedelta(seconds=limits.SESSION_SECONDS)
        if caller.expires is not None:
            expires = min(expires, caller.expires)
        rights = Rights(role=Role.READER, namespaces=caller.own_rights().namespaces)
        return NewToken(self._add(caller, text, rights=rights, expires=expires, note=SESSION_NOTE), text)

    def sign_out(self, caller: Caller) -> None:
        """End a sign-in. A token that was made otherwise stays as it is: it may be used elsewhere."""
        with self._catalogue.reading() as session:
            row = session.get(TokenRow, caller.token_id)
        if row is not None and row.note == SESSION_NOTE:
            self.revoke(caller, caller.token_id)

    def adopt_admin(self, caller: Caller, text: str) -> TokenItem | None:
        """Register a token made elsewhere as the first one, with all rights; None if another is there already.

        Raises:
            FormatError: if it is weak.
        """
        if not is_strong(text):
            raise FormatError("the admin token is weak", expected="a token made by pqreg")
        rights = Rights(role=Role.ADMIN, namespaces=None)
        expires = self._clock() + timedelta(days=limits.TOKEN_LIFETIME_DAYS)
        try:
            return self._add(caller, text, rights=rights, expires=expires, note="first token", first=True)
        except AlreadyExists:
            return None

    def _add(
        self, caller: Caller, text: str, *, rights: Rights, expires: datetime, note: str, first: bool = False
    ) -> TokenItem:
        _check_request(rights, note)
        now = self._clock()
        if not caller.own_rights().covers(rights):
            raise AccessDenied(
                "a token cannot make one with more rights",
                expected=_describe(caller.own_rights()),
                found=_describe(rights),
            )
        if caller.expires is not None and expires > caller.expires:
            raise AccessDenied(
                "a token cannot make one that outlives it",
                expected=f"expiry by {format_instant(caller.expires)}",
                found=format_instant(expires),
            )
        row = TokenRow(
            id=secrets.token_hex(8),
            hash=hash_token(text),
            parent_id=caller.token_id or None,
            role=rights.role.value,
            namespaces=" ".join(format_namespaces(rights.namespaces)),
            note=note,
            created=now,
            expires=expires,
            revoked=None,
        )
        with self._catalogue.writing() as session:
            if first and session.scalars(select(TokenRow.id).limit(1)).first() is not None:
                raise AlreadyExists("there is a token already")
            if row.parent_id is not None:
                self._require_live(session, row.parent_id)
            session.add(row)
            audit.record(
                session, caller, now, audit.Action.TOKEN_CREATED, row.id,
                role=row.role, namespaces=row.namespaces, expires=format_instant(expires),
                note=TOKEN_PATTERN.sub("[token]", note) or None,  # a pasted one must not travel with the events
            )  # fmt: skip
        return _item(row)

    def list(self, caller: Caller) -> list[TokenItem]:
        """The tokens whose rights the caller's cover, oldest first."""
        own = caller.own_rights()
        with self._catalogue.reading() as session:
            rows = session.scalars(select(TokenRow).order_by(TokenRow.created, TokenRow.id)).all()
        return [item for item in map(_item, rows) if own.covers(item.rights)]

    def revoke(self, caller: Caller, token_id: str) -> None:
        """End a token and every token made with it. Revoking it again changes nothing.

        Raises:
            NotFound: if there is no such token, or its rights go beyond the caller's.
        """
        now = self._clock()
        with self._catalogue.writing() as session:
            row = session.get(TokenRow, token_id, with_for_update=True)
            if row is None or not caller.own_rights().covers(_rights(row)):
                raise NotFound(f"no token {token_id[:40]}")
            if row.revoked is not None:
                return
            revoked = [row]
            while revoked:
                current = revoked.pop()
                if current.revoked is None:
                    current.revoked = now
                    audit.record(session, caller, now, audit.Action.TOKEN_REVOKED, current.id, because=row.id)
                children = select(TokenRow).where(TokenRow.parent_id == current.id).with_for_update()
                revoked.extend(session.scalars(children).all())

    def exist(self) -> bool:
        """Whether any token was ever made here."""
        with self._catalogue.reading() as session:
            return session.scalars(select(TokenRow.id).limit(1)).first() is not None

    def _require_live(self, session: Session, token_id: str) -> None:
        # Between authentication and now the parent may have been revoked; then its child must not come to be.
        parent = session.get(TokenRow, token_id, with_for_update=True)
        if parent is None or parent.revoked is not None:
            raise NotAuthenticated("the token was revoked")


def rights_of(*, role: str, namespaces: list[str]) -> Rights:
    """Rights from their written form.

    Raises:
        FormatError: if the role does not exist, or an admin's namespaces are not all of them.
        NameSyntaxError: if a namespace is not well formed.
    """
    return Rights(role=parse_role(role), namespaces=parse_namespaces(namespaces))


def host_caller() -> Caller:
    """Whoever holds the data directory itself: first start, and ``pqreg token --data`` on the host."""
    rights = Rights(role=Role.ADMIN, namespaces=None)
    return Caller(token_id="", rights=rights, expires=None, public_read=False, request_id="host")


def _check_request(rights: Rights, note: str) -> None:
    if rights.role is Role.ADMIN and rights.namespaces is not None:
        raise FormatError("an admin's token reaches every namespace", expected='namespaces ["*"]')
    if len(note) > limits.TOKEN_NOTE_CHARS or (note and not note.isprintable()):
        raise FormatError("the note is malformed", expected=f"at most {limits.TOKEN_NOTE_CHARS} printable characters")


def _check_lifetime(expires_days: int) -> None:
    if not 1 <= expires_days <= limits.TOKEN_LIFETIME_DAYS:
        raise FormatError(
            "the token's lifetime is out of bounds",
            expected=f"1 to {limits.TOKEN_LIFETIME_DAYS} days",
            found=expires_days,
        )


def _rights(row: TokenRow) -> Rights:
    return rights_of(role=row.role, namespaces=row.namespaces.split(" "))


def _item(row: TokenRow) -> TokenItem:
    return TokenItem(
        id=row.id,
        rights=_rights(row),
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
        note=row.note,
    )


def _describe(rights: Rights) -> str:
    return f"at most {rights.role.value} for {' '.join(format_namespaces(rights.namespaces))}"
