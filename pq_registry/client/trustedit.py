# SPDX-License-Identifier: Apache-2.0
"""Changing a trust file: values in, a new value out. Nothing is read or written here, and the clock is an argument.

A change never weakens what is there by accident: an identity below the namespace's ``min_profile`` is refused instead
of being added in vain or lowering it, a validity window stays unless it is named, and nothing is removed. What a change
allows that was not allowed before, ``loosened`` says. Every change that is written counts ``version`` up,
because a client may demand that it never sees a lower one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.slhdsa import SlhPublic
from pq_registry.crypto.trustsigning import check_keys
from pq_registry.errors import UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.name import Namespace
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile, TrustRoot

Role = Literal["revokers", "enrolment"]


class Keep(Enum):
    """A bound of a validity window that is not named, so it stays as it is."""

    KEEP = "keep"


Bound = datetime | None | Literal[Keep.KEEP]
"""A bound of a validity window: a date, None for no bound, or the present one."""


def new_trust(*, now: datetime, lifetime: timedelta, grace_days: int = 0) -> TrustFile:
    """A trust file that trusts nobody yet.

    Raises:
        FormatError: if ``grace_days`` or the lifetime is out of range.
    """
    return TrustFile(version=1, created=now, expires=now + lifetime, namespaces={}, grace_days=grace_days)


def next_version(trust: TrustFile, *, now: datetime, lifetime: timedelta | None) -> TrustFile:
    """The same content as a newer file, valid for ``lifetime`` from now or as long as the present one.

    Raises:
        UsageError: if it would have expired already.
    """
    expires = trust.expires if lifetime is None else now + lifetime
    if is_expired(now, expires):
        raise UsageError(
            "the trust file has expired", expected="a later expiry", found=format_instant(expires),
            hint="give --expires-days with this change, e.g. --expires-days 365",
        )  # fmt: skip
    return replace(trust, version=trust.version + 1, created=now, expires=expires)


def add_publisher(
    trust: TrustFile,
    namespace: Namespace,
    identity: PublicIdentity,
    *,
    not_before: Bound = Keep.KEEP,
    not_after: Bound = Keep.KEEP,
    min_profile: int | None = None,
) -> TrustFile:
    """Believe what ``identity`` signs for ``namespace``, within a window if one is given.

    An identity that is there already keeps the bounds that are not given. ``min_profile`` is set for the namespace if
    given; a new namespace without it demands level 5.

    Raises:
        UsageError: if the identity's profile is below what the namespace demands, or nothing would change.
        FormatError: if the window is empty or there are too many identities.
    """
    present = trust.namespaces.get(namespace.key)
    demanded = min_profile or (present.min_profile if present else 5)
    _check_profile(namespace, identity, demanded)
    known = next((known for known in present.identities if known.id == identity.id), None) if present else None
    entry = TrustedIdentity(
        identity.id,
        identity.to_pem().decode("ascii"),
        (known.not_before if known else None) if not_before is Keep.KEEP else not_before,
        (known.not_after if known else None) if not_after is Keep.KEEP else not_after,
    )
    if present is None:
        return _with(trust, NamespaceTrust(namespace, (entry,), (entry.id,), demanded))
    changed = replace(
        present,
        identities=(*(known for known in present.identities if known.id != entry.id), entry),
        publishers=(*(known for known in present.publishers if known != entry.id), entry.id),
        min_profile=demanded,
    )
    if entry in present.identities and set(changed.publishers) == set(present.publishers):
        if changed.min_profile == present.min_profile:
            raise UsageError(f"{namespace} already trusts {identity.id}, with the same validity window")
        changed = replace(present, min_profile=demanded)
    return _with(trust, changed)


def add_role(trust: TrustFile, role: Role, namespace: Namespace, identity: PublicIdentity) -> TrustFile:
    """Let ``identity`` revoke for ``namespace``, or enrol recipients. That alone does not make it a publisher.

    Raises:
        UsageError: if it has that role already, its profile is too low, or the namespace has no publisher yet.
        FormatError: if there are too many identities.
    """
    present = _known(trust, namespace)
    holders: tuple[str, ...] = getattr(present, role)
    if identity.id in holders:
        raise UsageError(f"{identity.id} is already among the {role} of {namespace}")
    _check_profile(namespace, identity, present.min_profile)
    identities = present.identities
    if identity.id not in {known.id for known in identities}:
        identities = (*identities, TrustedIdentity(identity.id, identity.to_pem().decode("ascii")))
    holders = (*holders, identity.id)
    if role == "revokers":
        return _with(trust, replace(present, identities=identities, revokers=holders))
    return _with(trust, replace(present, identities=identities, enrolment=holders))


def pin(trust: TrustFile, namespace: Namespace, digest: Digest) -> TrustFile:
    """Accept the release ``digest`` of ``namespace`` even when its signer's window has passed.

    Raises:
        UsageError: if the file says nothing about the namespace, or the digest is pinned already.
        FormatError: if too many are pinned.
    """
    present = _known(trust, namespace)
    if digest in present.pinned:
        raise UsageError(f"{digest} is already pinned for {namespace}")
    return _with(trust, replace(present, pinned=present.pinned | {digest}))


def set_root(trust: TrustFile, identity: PublicIdentity, slh: SlhPublic | None) -> TrustFile:
    """Let ``identity``, and ``slh`` with it, sign the trust files that may follow this one.

    Raises:
        UsageError: if nothing would change, or the identity is below level 5.
    """
    if identity.profile.level < 5:
        raise UsageError("the root is below level 5", expected="an identity of profile 5",
                         found=f"profile {identity.profile.level}")  # fmt: skip
    root = TrustRoot(
        identity.id, identity.to_pem().decode("ascii"), None if slh is None else slh.to_pem().decode("ascii")
    )
    if root == trust.root:
        raise UsageError(f"{identity.id} is the root already")
    return replace(trust, root=root)


def check(trust: TrustFile, *, now: datetime) -> tuple[str, ...]:
    """Check the keys in a trust file, and answer what its owner should know about it, one sentence each.

    Raises:
        FormatError: if a key is malformed, not of the stated id, or half of two identities.
    """
    check_keys(trust)
    return tuple(_remarks(trust, now))


def loosened(before: TrustFile, after: TrustFile) -> tuple[str, ...]:
    """What ``after`` accepts that ``before`` did not, of namespaces and identities in both, one sentence each."""
    return tuple(_loosened(before, after))


def _loosened(before: TrustFile, after: TrustFile) -> Iterable[str]:
    if isinstance(before.log, tuple) and not isinstance(after.log, tuple):
        yield "no receipt of a log is asked for any more (log: exempt)"
    if isinstance(before.log, tuple) and isinstance(after.log, tuple):
        for entry in after.log:
            if entry not in before.log:
                yield f"receipts of {entry.policy.origin} are accepted under a policy or in a window that is new"
    for key, now in after.namespaces.items():
        then = before.namespaces.get(key)
        if then is None:
            continue
        if now.min_profile < then.min_profile:
            yield f"{now.namespace}: the lowest accepted profile is now {now.min_profile}; it was {then.min_profile}"
        earlier = {known.id: known for known in then.identities}
        for identity in now.identities:
            known = earlier.get(identity.id)
            if known is not None and _wider(known, identity):
                yield (
                    f"{now.namespace}: the validity window of {identity.id} is now {_window(identity)}; "
                    f"it was {_window(known)}"
                )


def _wider(then: TrustedIdentity, now: TrustedIdentity) -> bool:
    starts = then.not_before is not None and (now.not_before is None or now.not_before < then.not_before)
    ends = then.not_after is not None and (now.not_after is None or now.not_after > then.not_after)
    return starts or ends


def _window(identity: TrustedIdentity) -> str:
    start, end = identity.not_before, identity.not_after
    return f"{format_instant(start) if start else 'any time'} to {format_instant(end) if end else 'any time'}"


def _remarks(trust: TrustFile, now: datetime) -> Iterable[str]:
    left = trust.expires - now
    if timedelta(0) < left < timedelta(days=30):
        yield f"expires in {left.days} days, on {format_instant(trust.expires)}"
    if not trust.namespaces:
        yield "trusts nobody"
    yield from _log_remarks(trust, now)
    for known in trust.namespaces.values():
        if not known.revokers:
            yield f"{known.namespace}: no revoker, so revocation is not checked"
        for identity in known.identities:
            if identity.not_after is not None and is_expired(now, identity.not_after):
                yield f"{known.namespace}: identity {identity.id} lapsed on {format_instant(identity.not_after)}"


def _log_remarks(trust: TrustFile, now: datetime) -> Iterable[str]:
    if not isinstance(trust.log, tuple):
        yield "transparency log: exempt, so a stolen key's signatures cannot be told from earlier ones"
        return
    current = [entry.policy for entry in trust.log if entry.covers(now)]
    if not current:
        yield "transparency log: no policy holds now, so nothing new is believed"
    attested = {policy.origin for policy in current if policy.attesting}
    for policy in current:
        if not policy.attesting and policy.origin in attested:
            numbers = [number for number, entry in enumerate(trust.log, 1) if entry.policy is policy]
            yield (
                f"transparency log {policy.origin}: policy {numbers[0]} still holds and asks for no witness, so what "
                "no witness has seen is accepted too; to end it: "
                f"pqreg trust log window FILE {numbers[0]} --not-after DATE"
            )
        elif not policy.attesting:
            yield (
                f"transparency log {policy.origin}: no independent witness attests times, so what a lapsed identity "
                "signed is refused unless it is pinned"
            )


def _known(trust: TrustFile, namespace: Namespace) -> NamespaceTrust:
    present = trust.namespaces.get(namespace.key)
    if present is None:
        raise UsageError(
            f"the trust file says nothing about {namespace}",
            expected="a namespace with publishers",
            found=", ".join(str(known.namespace) for known in trust.namespaces.values()) or "no namespace",
            hint=f"add its publisher first: --publisher {namespace}=FILE.pqpub",
        )
    return present


def _check_profile(namespace: Namespace, identity: PublicIdentity, demanded: int) -> None:
    if identity.profile.level < demanded:
        raise UsageError(
            f"the identity {identity.id} is below the profile that {namespace} demands",
            expected=f"profile {demanded} or higher",
            found=f"profile {identity.profile.level}",
            hint="--min-profile 3 accepts it; level 5 is the recommended one",
        )


def _with(trust: TrustFile, changed: NamespaceTrust) -> TrustFile:
    return replace(trust, namespaces={**trust.namespaces, changed.namespace.key: changed})
