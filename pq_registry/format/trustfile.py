# SPDX-License-Identifier: Apache-2.0
"""The trust file ``trust.json``: the only root a client believes.

It says, per namespace, which identities exist, from when to when, with which minimal profile, which releases are
pinned, and in which role each identity is believed: publishers sign releases and tags, revokers status statements,
enrolment identities certify recipients, refreshers renew what is about to expire. An identity without a role signs
nothing that is believed. It also says which transparency logs must vouch for all of that (``format.trustlog``).

People edit the file, so it is strict JSON rather than canonical JSON and is written indented; its bytes are not hashed
or signed here. Unknown fields, numbers that are not integers, and booleans in the place of numbers are refused: a
trust file that is not understood completely is not believed at all. docs/spec/trust.md and
docs/spec/trust.schema.json are its specification.

This module turns bytes into values. That a PEM block is a key, and that its id is the one stated, is checked by
``pq_registry.crypto.trustkeys``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id
from pq_registry.format.instant import check_instant, format_instant, parse_instant
from pq_registry.format.name import Namespace
from pq_registry.format.strict_json import Fields, Value, parse_strict
from pq_registry.format.trustlog import EXEMPT, TrustedLog, check_log, log_value, parse_log

SCHEMA: Final = "urn:pq-registry:trust:v1"
PROFILES: Final = (3, 5)
ROLES: Final = ("publishers", "revokers", "enrolment", "refreshers")

OfflineStatus = Literal["warn", "require"]


@dataclass(frozen=True, slots=True)
class TrustedIdentity:
    """An identity and when its signatures count: ``not_before <= t < not_after``, None leaving that side open."""

    id: str
    public_pem: str
    not_before: datetime | None = None
    not_after: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what ``TrustFile.parse`` would refuse.

        Raises:
            FormatError: if the id is malformed, the key too large, or the window empty.
        """
        parse_identity_id(self.id)
        if not 0 < len(self.public_pem) <= limits.IDENTITY_FILE_BYTES:
            raise FormatError(
                f"identity {self.id}: the public key is empty or too large",
                expected=f"1 to {limits.IDENTITY_FILE_BYTES} characters of PEM",
                found=len(self.public_pem),
            )
        for name, instant in (("not_before", self.not_before), ("not_after", self.not_after)):
            if instant is not None:
                check_instant(instant, f"identity {self.id}: {name}")
        if self.not_before is not None and self.not_after is not None and self.not_before >= self.not_after:
            raise FormatError(
                f"identity {self.id}: the validity window is empty",
                expected="not_before < not_after",
                found=f"{format_instant(self.not_before)} to {format_instant(self.not_after)}",
            )


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """Whose signature lets a newer trust file follow this one: an identity, and an SLH-DSA key if one is demanded."""

    id: str
    public_pem: str
    slh_pem: str | None = None

    def __post_init__(self) -> None:
        """Refuse what ``TrustFile.parse`` would refuse.

        Raises:
            FormatError: if the id is malformed, or a key empty or too large.
        """
        parse_identity_id(self.id)
        for pem in (self.public_pem, self.slh_pem):
            if pem is not None and not 0 < len(pem) <= limits.IDENTITY_FILE_BYTES:
                raise FormatError(
                    "the trust file's root: a public key is empty or too large",
                    expected=f"1 to {limits.IDENTITY_FILE_BYTES} characters of PEM",
                    found=len(pem),
                )


@dataclass(frozen=True, slots=True)
class NamespaceTrust:
    """Who is believed for one namespace. The roles, ``publishers`` to ``refreshers``, hold ids of ``identities``."""

    namespace: Namespace
    identities: tuple[TrustedIdentity, ...]
    publishers: tuple[str, ...]
    min_profile: int
    pinned: frozenset[Digest] = frozenset()
    revokers: tuple[str, ...] = ()
    enrolment: tuple[str, ...] = ()
    refreshers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what ``TrustFile.parse`` would refuse.

        Raises:
            FormatError: naming the namespace and the rule.
        """
        where = f"namespace {self.namespace}"
        # type(), not isinstance: True is an int, and a trust file that says so was not written on purpose.
        if type(self.min_profile) is not int or self.min_profile not in PROFILES:
            raise FormatError(f"{where}: unknown min_profile", expected="3 or 5", found=repr(self.min_profile))
        if not 0 < len(self.identities) <= limits.IDENTITIES_PER_NAMESPACE:
            raise FormatError(
                f"{where}: no identities or too many",
                expected=f"1 to {limits.IDENTITIES_PER_NAMESPACE}",
                found=len(self.identities),
            )
        known = {identity.id for identity in self.identities}
        if len(known) != len(self.identities):
            raise FormatError(f"{where}: an identity is listed twice", expected="each id once")
        if len(self.pinned) > limits.PINNED_DIGESTS:
            raise FormatError(
                f"{where}: too many pinned releases",
                expected=f"at most {limits.PINNED_DIGESTS}",
                found=len(self.pinned),
            )
        for role in ROLES:
            ids: tuple[str, ...] = getattr(self, role)
            if len(set(ids)) != len(ids) or not known.issuperset(ids):
                raise FormatError(
                    f"{where}: {role} are not identities of this namespace, each once",
                    expected="ids listed under identities",
                    found=", ".join(sorted(set(ids) - known))[:200] or "an id twice",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustFile:
    """The content of trust.json; ``namespaces`` is keyed by ``Namespace.key``."""

    version: int
    created: datetime
    expires: datetime
    namespaces: Mapping[str, NamespaceTrust]
    grace_days: int = 0
    offline_status: OfflineStatus = "warn"
    log: TrustedLog = EXEMPT
    root: TrustRoot | None = None

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the field.
        """
        _check_integer("version", self.version, 1, limits.JSON_INTEGER)
        _check_integer("grace_days", self.grace_days, 0, limits.GRACE_DAYS)
        check_log(self.log)
        check_instant(self.created, "the trust file's field 'created'")
        check_instant(self.expires, "the trust file's field 'expires'")
        if self.created >= self.expires:
            raise FormatError(
                "the trust file expires before it was made",
                expected="created < expires",
                found=f"{format_instant(self.created)} and {format_instant(self.expires)}",
            )
        if len(self.namespaces) > limits.NAMESPACES:
            raise FormatError(
                "too many namespaces", expected=f"at most {limits.NAMESPACES}", found=len(self.namespaces)
            )
        for key, trusted in self.namespaces.items():
            if key != trusted.namespace.key:
                raise FormatError("a namespace stands under another key", expected=trusted.namespace.key, found=key)
        # A frozen value must not change through the dictionary it was made from.
        object.__setattr__(self, "namespaces", MappingProxyType(dict(self.namespaces)))

    def encode(self) -> bytes:
        """The file's bytes, indented for people; ``parse`` gives this value back."""
        document = {
            "schema": SCHEMA,
            "version": self.version,
            "created": format_instant(self.created),
            "expires": format_instant(self.expires),
            "grace_days": self.grace_days,
            "offline_status": self.offline_status,
            "log": log_value(self.log),
            "root": _root_value(self.root),
            "namespaces": {
                str(trusted.namespace): _namespace_value(trusted) for _, trusted in sorted(self.namespaces.items())
            },
        }
        return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> TrustFile:
        """Read a trust file.

        Raises:
            FormatError: if ``data`` is not a trust file of version 1 of the schema, completely understood.
        """
        fields = Fields(parse_strict(data, what="the trust file", limit=limits.TRUST_FILE_BYTES), "trust file")
        fields.literal("schema", SCHEMA)
        log = parse_log(fields)
        offline_status = fields.text("offline_status")
        if offline_status not in ("warn", "require"):
            fields.fail("offline_status", "warn or require", offline_status)
        version = fields.integer("version", minimum=1)
        created = fields.parsed("created", parse_instant)
        expires = fields.parsed("expires", parse_instant)
        grace_days = fields.integer("grace_days", maximum=limits.GRACE_DAYS)
        root = _parse_root(fields)
        namespaces = _parse_namespaces(fields.take("namespaces"))
        fields.done()
        return cls(
            version=version,
            created=created,
            expires=expires,
            namespaces=namespaces,
            grace_days=grace_days,
            offline_status="require" if offline_status == "require" else "warn",
            log=log,
            root=root,
        )


def _check_integer(name: str, value: int, minimum: int, maximum: int) -> None:
    if type(value) is not int or not minimum <= value <= maximum:
        raise FormatError(
            f"trust file: field {name!r} is wrong",
            expected=f"an integer from {minimum} to {maximum}",
            found=repr(value)[:80],
        )


def _instant_value(instant: datetime | None) -> Value:
    return None if instant is None else format_instant(instant)


def _root_value(root: TrustRoot | None) -> Value:
    return None if root is None else {"id": root.id, "public": root.public_pem, "slh": root.slh_pem}


def _parse_root(fields: Fields) -> TrustRoot | None:
    # Files of before there were roots lack the field, which is the same as null.
    value = fields.take("root") if fields.has("root") else None
    if value is None:
        return None
    entry = Fields(value, "trust file.root")
    slh = entry.take("slh")
    if slh is not None and not isinstance(slh, str):
        entry.fail("slh", "PEM or null", slh)
    root = TrustRoot(entry.parsed("id", parse_identity_id), entry.text("public", limit=limits.IDENTITY_FILE_BYTES), slh)
    entry.done()
    return root


def _namespace_value(trusted: NamespaceTrust) -> dict[str, Value]:
    return {
        "min_profile": trusted.min_profile,
        "identities": [
            {
                "id": identity.id,
                "public": identity.public_pem,
                "not_before": _instant_value(identity.not_before),
                "not_after": _instant_value(identity.not_after),
            }
            for identity in trusted.identities
        ],
        "pinned": [str(digest) for digest in sorted(trusted.pinned)],
        "publishers": list(trusted.publishers),
        "revokers": list(trusted.revokers),
        "enrolment": list(trusted.enrolment),
        "refreshers": list(trusted.refreshers),
    }


def _parse_namespaces(value: Value) -> dict[str, NamespaceTrust]:
    if not isinstance(value, dict):
        raise FormatError("trust file: field 'namespaces' is wrong", expected="an object", found=repr(value)[:80])
    if len(value) > limits.NAMESPACES:  # before any of them is looked at
        raise FormatError("too many namespaces", expected=f"at most {limits.NAMESPACES}", found=len(value))
    namespaces: dict[str, NamespaceTrust] = {}
    for name, item in value.items():
        try:
            namespace = Namespace(name)
        except NameSyntaxError as error:
            raise FormatError(f"trust file: {error.message}", expected=error.expected, found=error.found) from None
        if namespace.key in namespaces:
            raise FormatError(
                "trust file: a namespace is listed twice",
                expected="namespaces distinct without regard to case",
                found=f"{namespaces[namespace.key].namespace} and {namespace}",
            )
        namespaces[namespace.key] = _parse_namespace(namespace, Fields(item, f"trust file.namespaces.{namespace}"))
    return namespaces


def _parse_namespace(namespace: Namespace, fields: Fields) -> NamespaceTrust:
    identities = []
    for entry in fields.objects("identities", minimum=1, limit=limits.IDENTITIES_PER_NAMESPACE):
        identities.append(
            TrustedIdentity(
                entry.parsed("id", parse_identity_id),
                entry.text("public", limit=limits.IDENTITY_FILE_BYTES),
                entry.optional("not_before", parse_instant),
                entry.optional("not_after", parse_instant),
            )
        )
        entry.done()
    min_profile = fields.integer("min_profile")
    pinned = [_pinned(fields, text) for text in fields.texts("pinned", limit=limits.PINNED_DIGESTS)]
    if len(set(pinned)) != len(pinned):
        fields.fail("pinned", "each digest once", "a digest twice")
    roles = {role: tuple(fields.texts(role, limit=limits.IDENTITIES_PER_NAMESPACE)) for role in ROLES}
    fields.done()
    return NamespaceTrust(namespace, tuple(identities), min_profile=min_profile, pinned=frozenset(pinned), **roles)


def _pinned(fields: Fields, text: str) -> Digest:
    try:
        return Digest.parse(text)
    except NameSyntaxError:
        fields.fail("pinned", "digests sha256:<hex>", text)
