# SPDX-License-Identifier: Apache-2.0
"""D5: rights that outlive their grant (TOB-PYPI26-13, PyPI 2025-04).

A state machine makes, uses, revokes and outlives tokens, and compares every decision of the service with a model that
is nothing but a dictionary of sets.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from pq_registry.errors import AccessDenied, NotAuthenticated, NotFound
from pq_registry.service.access import Caller, Permission, Rights, Role
from pq_registry.service.tokens import Tokens, host_caller
from pq_registry.storage.catalogue.database import Catalogue

NAMESPACES = ("acme", "lab", "mill")
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
CAN = {
    Role.READER: {Permission.READ},
    Role.PUBLISHER: {Permission.READ, Permission.PUBLISH},
    Role.OWNER: {
        Permission.READ,
        Permission.PUBLISH,
        Permission.REGISTER_IDENTITY,
        Permission.REGISTER_KEY,
        Permission.MANAGE_TOKENS,
        Permission.REVOKE,
    },
    Role.ADMIN: set(Permission),
}
RIGHTS = st.builds(
    lambda role, spaces: Rights(role=role, namespaces=None if role is Role.ADMIN else spaces),
    st.sampled_from(Role),
    st.one_of(st.none(), st.frozensets(st.sampled_from(NAMESPACES), min_size=1)),
)


@dataclass
class Known:
    """What the model knows of a token: pairs of permission and namespace, and until when."""

    id: str
    rank: int
    pairs: set[tuple[Permission, str]]
    everywhere: bool
    expires: datetime
    parent: str | None
    revoked: bool = False


def pairs(rights: Rights) -> set[tuple[Permission, str]]:
    spaces = NAMESPACES if rights.namespaces is None else rights.namespaces
    return {(permission, space) for permission in CAN[rights.role] for space in spaces}


class Grants(RuleBasedStateMachine):
    """The service beside the model."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.stack = ExitStack()
        root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        catalogue = Catalogue.open_sqlite(root / "catalogue.sqlite3", upgrade=True)
        self.stack.callback(catalogue.close)
        self.service = Tokens(catalogue, lambda: self.now)
        self.model: dict[str, Known] = {}

    def teardown(self) -> None:
        self.stack.close()

    def caller(self, token: str) -> Caller | None:
        try:
            return self.service.authenticate(token, public_read=False, request_id="test")
        except NotAuthenticated:
            return None

    def live(self, token: str) -> bool:
        known = self.model[token]
        return not known.revoked and self.now < known.expires

    def remember(self, text: str, token_id: str, rights: Rights, expires: datetime, parent: str | None) -> str:
        self.model[text] = Known(token_id, rights.role.rank, pairs(rights), rights.namespaces is None, expires, parent)
        return text

    @initialize(target=tokens)
    def first(self) -> str:
        rights = Rights(role=Role.ADMIN, namespaces=None)
        made = self.service.create(host_caller(), rights=rights, expires_days=100)
        return self.remember(made.text, made.item.id, rights, made.item.expires, None)

    @rule(target=tokens, maker=tokens, rights=RIGHTS, days=st.integers(1, 60))
    def make(self, maker: str, rights: Rights, days: int) -> str:
        known = self.model[maker]
        caller = self.caller(maker)
        assert (caller is not None) == self.live(maker)
        if caller is None:
            return maker
        expires = self.now + timedelta(days=days)
        within = pairs(rights) <= known.pairs and rights.role.rank <= known.rank
        allowed = within and (known.everywhere or rights.namespaces is not None) and expires <= known.expires
        try:
            made = self.service.create(caller, rights=rights, expires_days=days)
        except AccessDenied:
            assert not allowed
            return maker
        assert allowed
        return self.remember(made.text, made.item.id, rights, expires, known.id)

    @rule(by=tokens, victim=tokens)
    def revoke(self, by: str, victim: str) -> None:
        caller = self.caller(by)
        if caller is None:
            return
        own, other = self.model[by], self.model[victim]
        allowed = other.pairs <= own.pairs and other.rank <= own.rank and (own.everywhere or not other.everywhere)
        try:
            self.service.revoke(caller, other.id)
        except NotFound:
            assert not allowed
            return
        assert allowed
        gone = {other.id}
        while more := {k.id for k in self.model.values() if k.parent in gone} - gone:
            gone |= more
        for known in self.model.values():
            known.revoked |= known.id in gone

    @rule(token=tokens)
    def replay_of_a_caller_from_before_a_revocation(self, token: str) -> None:
        # A request that was let in just before its token was revoked must not make tokens afterwards.
        caller = self.caller(token)
        if caller is None or not self.model[token].everywhere:
            return
        made = self.service.create(caller, rights=Rights(role=Role.READER, namespaces=None), expires_days=1) \
            if self.now + timedelta(days=1) <= self.model[token].expires else None  # fmt: skip
        if made is not None:
            expires = made.item.expires
            self.remember(made.text, made.item.id, made.item.rights, expires, self.model[token].id)

    @rule(days=st.integers(0, 20), seconds=st.sampled_from([-1, 0, 1]))
    def time_passes(self, days: int, seconds: int) -> None:
        if days:
            self.now += timedelta(days=days, seconds=seconds)

    @rule(token=consumes(tokens))
    def forget(self, token: str) -> None:
        """Its holder lost it; it stays in the model."""

    @invariant()
    def decisions_are_those_of_the_model(self) -> None:
        for token, known in self.model.items():
            caller = self.caller(token)
            assert (caller is not None) == self.live(token)
            if caller is None:
                continue
            for permission in Permission:
                for space in NAMESPACES:
                    assert caller.may(permission, space) == ((permission, space) in known.pairs)
                assert not caller.may(permission, "elsewhere") or known.everywhere
                assert caller.may_everywhere(permission) == (
                    known.everywhere and (permission, NAMESPACES[0]) in known.pairs
                )


TestGrants = Grants.TestCase
TestGrants.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
