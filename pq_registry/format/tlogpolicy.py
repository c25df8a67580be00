# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints of a log count: C2SP tlog-policy text (https://c2sp.org/tlog-policy), with the rules of this house.

::

    log <vkey> [<url>]                          the log's Ed25519 key; exactly one
    witness log-pq <vkey>                       the log's own ML-DSA-44 key, under the log's name
    witness <name> <vkey> [<url>]               0x04 or 0x06
    group <name> all|any|<k> <member> ...       of names defined above; 1 <= k <= members
    quorum <name>                               exactly one

Rules of this house, so that a policy cannot be met by Ed25519 alone (DESIGN §6):

* ``log-pq`` is there, is an ML-DSA-44 key, and no quorum is met without it;
* where the quorum knows other witnesses, it is not met by ``log-pq`` and Ed25519 cosignatures alone;
* no key stands twice, and no other witness carries the log's name;
* a witness counts once: where keys of one name are in the quorum, they are members of one group, which is ``all`` or
  has no other members;
* ``quorum none`` is therefore refused.

A policy says who must have signed; it verifies nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, NoReturn

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.instant import check_instant, format_instant, in_window
from pq_registry.format.note import NoteKeyType, VerifierKey

LOG_PQ: Final = "log-pq"
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]", re.ASCII)
_COUNT: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_COSIGNERS: Final = (NoteKeyType.ED25519_COSIGNATURE, NoteKeyType.MLDSA44_COSIGNATURE)


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """One witness line; a witness that signs with two keys has two."""

    name: str
    key: VerifierKey
    url: str | None


@dataclass(frozen=True, slots=True)
class _Group:
    least: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A log, its witnesses and the quorum. Equal if the texts are. Made by ``parse`` and ``compose``."""

    text: str
    log: VerifierKey = field(compare=False)
    log_url: str | None = field(compare=False)
    witnesses: Mapping[str, PolicyWitness] = field(compare=False)
    quorum: str = field(compare=False)
    groups: Mapping[str, _Group] = field(compare=False, repr=False)

    @property
    def origin(self) -> str:
        """The log's name, which is the first line of its checkpoints."""
        return self.log.name

    @property
    def log_pq(self) -> VerifierKey:
        """The log's ML-DSA-44 key."""
        return self.witnesses[LOG_PQ].key

    @property
    def attesting(self) -> frozenset[str]:
        """The witnesses of the quorum besides log-pq: their cosignatures attest the time."""
        reached, left = set[str](), [self.quorum]
        while left:
            name = left.pop()
            if name in self.groups:
                left += self.groups[name].members
            else:
                reached.add(name)
        return frozenset(reached - {LOG_PQ})

    def satisfied(self, names: AbstractSet[str]) -> bool:
        """Whether valid cosignatures of the witnesses ``names`` meet the quorum."""
        met = {name for name in self.witnesses if name in names}
        for name, group in self.groups.items():  # in the order of their lines: members come first
            if sum(member in met for member in group.members) >= group.least:
                met.add(name)
        return self.quorum in met

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy.

        Raises:
            FormatError: if ``text`` is none, or breaks a rule of the specification or of this house.
        """
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            size = 0
        if not 0 < size <= limits.TLOG_POLICY_BYTES or _FORBIDDEN.search(text) or not text.endswith("\n"):
            raise FormatError(
                "not a log policy",
                expected=f"at most {limits.TLOG_POLICY_BYTES} bytes of lines that end in a newline",
                found=f"{size} bytes",
            )
        policy = _Reader(text).policy()
        _check_house_rules(policy)
        return policy

    @classmethod
    def compose(
        cls,
        log: VerifierKey,
        log_pq: VerifierKey,
        witnesses: Sequence[tuple[str, Sequence[VerifierKey], str | None]],
        quorum: int,
        *,
        log_url: str | None = None,
    ) -> Policy:
        """Write a policy: the log, and ``quorum`` of ``witnesses`` (name, keys, URL). All keys of one are needed.

        Raises:
            FormatError: if the policy would break a rule, e.g. a quorum of none or of more than there are.
        """
        if type(quorum) is not int or not (1 <= quorum <= len(witnesses) or (quorum == 0 and not witnesses)):
            raise FormatError(
                "a policy's quorum is impossible",
                expected=f"1 to {len(witnesses)}" if witnesses else "0, as there are no witnesses",
                found=repr(quorum)[:40],
            )
        lines = [_line("log", str(log), log_url), _line("witness", LOG_PQ, str(log_pq))]
        for name, keys, url in witnesses:
            if len(keys) == 1:
                lines.append(_line("witness", name, str(keys[0]), url))
                continue
            parts = [f"{name}-{'pq' if key.type is NoteKeyType.MLDSA44_COSIGNATURE else 'ed25519'}" for key in keys]
            lines += [_line("witness", part, str(key), url) for part, key in zip(parts, keys, strict=True)]
            lines.append(_line("group", name, "all", *parts))
        if witnesses:
            lines.append(_line("group", "witnesses", str(quorum), *(name for name, _, _ in witnesses)))
            lines.append(_line("group", "log-and-witnesses", "all", LOG_PQ, "witnesses"))
        lines.append(_line("quorum", "log-and-witnesses" if witnesses else LOG_PQ))
        return cls.parse("".join(lines))


def _line(*items: str | None) -> str:
    return " ".join(item for item in items if item is not None) + "\n"


class _Reader:
    """Reads the lines in order; names refer to lines above."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._log: tuple[VerifierKey, str | None] | None = None
        self._witnesses: dict[str, PolicyWitness] = {}
        self._groups: dict[str, _Group] = {}
        self._used: set[str] = set()
        self._quorum: str | None = None

    def policy(self) -> Policy:
        rules = {"log": self._read_log, "witness": self._read_witness, "group": self._read_group}
        for line in self._text.split("\n"):
            items = line.replace("\t", " ").split(" ")
            items = [item for item in items if item]  # not split(): other spaces are part of a name
            if not items or items[0].startswith("#"):
                continue
            keyword, *rest = items
            if keyword == "quorum":
                self._read_quorum(rest)
            elif keyword in rules:
                rules[keyword](rest)
            else:
                _refuse("an unknown line", "log, witness, group, quorum", keyword)
        if self._log is None or self._quorum is None:
            _refuse("no log or no quorum", "exactly one of each", "log" if self._log else "quorum")
        key, url = self._log
        return Policy(
            self._text, key, url, MappingProxyType(self._witnesses), self._quorum, MappingProxyType(self._groups)
        )

    def _read_log(self, items: list[str]) -> None:
        if self._log is not None or len(items) not in {1, 2}:
            _refuse("more than one log, or a malformed line", "log <vkey> [<url>], once", " ".join(items))
        key = VerifierKey.parse(items[0])
        if key.type is not NoteKeyType.ED25519:
            _refuse("a log key of another type", "an Ed25519 key (1)", str(key.type.value))
        self._log = key, items[1] if len(items) == 2 else None

    def _read_witness(self, items: list[str]) -> None:
        if len(items) not in {2, 3}:
            _refuse("a malformed line", "witness <name> <vkey> [<url>]", " ".join(items))
        key = VerifierKey.parse(items[1])
        if key.type not in _COSIGNERS:
            _refuse("a witness key of another type", "a cosignature key (4 or 6)", str(key.type.value))
        self._define(items[0])
        self._witnesses[items[0]] = PolicyWitness(items[0], key, items[2] if len(items) == 3 else None)

    def _read_group(self, items: list[str]) -> None:
        if len(items) < 3:
            _refuse("a malformed line", "group <name> all|any|<k> <member> ...", " ".join(items))
        name, count, *members = items
        for member in members:
            if member not in self._witnesses and member not in self._groups:
                _refuse("a member that is not defined above", "the name of a witness or group", member)
            if member in self._used:
                _refuse("a name that is a member twice", "each name in one group, once", member)
            self._used.add(member)
        least = {"all": len(members), "any": 1}.get(count) or (int(count) if _COUNT.fullmatch(count) else 0)
        if not 1 <= least <= len(members):
            _refuse("an impossible threshold", f"all, any, or 1 to {len(members)}", count)
        self._define(name)
        self._groups[name] = _Group(least, tuple(members))

    def _read_quorum(self, items: list[str]) -> None:
        if self._quorum is not None or len(items) != 1:
            _refuse("more than one quorum, or a malformed line", "quorum <name>, once", " ".join(items))
        if items[0] not in self._witnesses and items[0] not in self._groups:
            _refuse("a quorum that is not defined above", "the name of a witness or group", items[0])
        self._quorum = items[0]

    def _define(self, name: str) -> None:
        if name == "none" or name in self._witnesses or name in self._groups:
            _refuse("a name that is reserved or defined twice", "a name of its own", name)
        if len(self._witnesses) + len(self._groups) >= limits.POLICY_NAMES:
            _refuse("too many witnesses and groups", f"at most {limits.POLICY_NAMES}", name)


def _check_house_rules(policy: Policy) -> None:
    pq = policy.witnesses.get(LOG_PQ)
    if pq is None or pq.key.type is not NoteKeyType.MLDSA44_COSIGNATURE or pq.key.name != policy.origin:
        _refuse("no post-quantum key of the log", f"witness {LOG_PQ}, an ML-DSA-44 key named {policy.origin}", None)
    for witness in policy.witnesses.values():
        if witness.name != LOG_PQ and witness.key.name == policy.origin:
            _refuse("a witness that is the log", "keys of somebody else", witness.name)
    keys = [policy.log.public_key, *(witness.key.public_key for witness in policy.witnesses.values())]
    if len(set(keys)) != len(keys):
        _refuse("the same key twice", "each public key once", None)
    everyone = frozenset(policy.witnesses)
    if policy.satisfied(everyone - {LOG_PQ}):
        _refuse(f"a quorum that is met without {LOG_PQ}", f"a group `all` of {LOG_PQ} and the witnesses", None)
    if not policy.satisfied(everyone):
        _refuse("a quorum that cannot be met", "a quorum that all witnesses together meet", None)
    classical = {name for name in everyone if policy.witnesses[name].key.type is NoteKeyType.ED25519_COSIGNATURE}
    if policy.attesting and policy.satisfied(classical | {LOG_PQ}):
        _refuse("witnesses that Ed25519 alone can stand for", "an ML-DSA-44 cosignature in every quorum", None)
    for name in sorted({policy.witnesses[each].key.name for each in policy.attesting}):
        own = {each for each in policy.attesting if policy.witnesses[each].key.name == name}
        if len(own) > 1 and not any(_counts_once(group, own) for group in policy.groups.values()):
            _refuse("a witness that counts twice", "the keys of one name in a group `all` of their own", name)


def _counts_once(group: _Group, keys: AbstractSet[str]) -> bool:
    members = frozenset(group.members)
    return keys <= members and (group.least == len(members) or keys == members)


def _refuse(what: str, expected: str, found: str | None) -> NoReturn:
    raise FormatError(
        f"the log policy has {what}", expected=expected, found=None if found is None else repr(found)[:120]
    )


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """A policy of a trust file and the window of attested times in which it counts."""

    policy: Policy
    not_before: datetime | None = None
    not_after: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse a window that nothing fits in.

        Raises:
            FormatError: if an end is no instant, or they are the wrong way round.
        """
        for instant in (self.not_before, self.not_after):
            if instant is not None:
                check_instant(instant, "the end of a log policy's window")
        if self.not_before is not None and self.not_after is not None and self.not_before >= self.not_after:
            raise FormatError(
                "a log policy's window is empty",
                expected="not_before < not_after",
                found=f"{format_instant(self.not_before)} and {format_instant(self.not_after)}",
            )

    def covers(self, instant: datetime) -> bool:
        """Whether ``not_before <= instant < not_after``."""
        return in_window(instant, self.not_before, self.not_after)
