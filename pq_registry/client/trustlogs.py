# SPDX-License-Identifier: Apache-2.0
"""Changing which logs a trust file believes: values in, a new value out (as ``client.trustedit``).

A log's keys come as the text it serves at ``/log/vkey``: two lines, its Ed25519 and its ML-DSA-44 key, both under the
log's name. The SHA-256 of that text is the log's fingerprint; it is to be compared over another channel, or taken at
first use with open eyes. Policies are numbered from 1 in the order they stand in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pq_registry import limits
from pq_registry.client.trustedit import Bound, Keep
from pq_registry.errors import FormatError, PolicyError, UsageError
from pq_registry.format.note import NoteKeyType, VerifierKey
from pq_registry.format.tlogpolicy import LogPolicy, Policy
from pq_registry.format.trustfile import TrustFile
from pq_registry.format.trustlog import EXEMPT


def fingerprint(vkey_text: bytes) -> str:
    """The hex SHA-256 of what a log serves as its verifier keys."""
    return hashlib.sha256(vkey_text).hexdigest()


def check_fingerprint(vkey_text: bytes, expected: str) -> None:
    """Compare it with the one that came over another channel.

    Raises:
        UsageError: if ``expected`` is none.
        PolicyError: if it is another one.
    """
    wanted = expected.lower()
    if len(wanted) != 64 or not set(wanted) <= set("0123456789abcdef"):
        raise UsageError("not a fingerprint", expected="64 hex digits", found=repr(expected)[:80])
    if fingerprint(vkey_text) != wanted:
        raise PolicyError(
            "the log's keys are not the ones expected",
            expected=f"fingerprint {wanted}",
            found=fingerprint(vkey_text),
            hint="somebody may stand between you and the log, or it has new keys: ask its operator before you go on",
        )


def verifier_keys(text: bytes) -> tuple[VerifierKey, ...]:
    """The keys in a file of verifier keys, one per line.

    Raises:
        FormatError: if it holds anything else.
    """
    if len(text) > limits.TLOG_POLICY_BYTES:
        raise FormatError("too many verifier keys", expected=f"at most {limits.TLOG_POLICY_BYTES} bytes")
    try:
        lines = text.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise FormatError("not a file of verifier keys", expected="name+id+key, one per line") from None
    if not lines:
        raise FormatError("the file holds no verifier key", expected="name+id+key, one per line")
    return tuple(VerifierKey.parse(line) for line in lines)


def log_policy(
    vkey_text: bytes,
    witnesses: Mapping[str, Sequence[VerifierKey]],
    quorum: int | None,
    *,
    url: str | None = None,
    witness_urls: Mapping[str, str] | None = None,
) -> Policy:
    """The policy for a log with these keys: ``quorum`` of the witnesses must have cosigned, all if it is None.

    ``witness_urls`` says where witnesses take checkpoints, which the log needs to know and its readers do not.

    Raises:
        FormatError: if the keys are not those of a log, or the quorum is impossible or could be met without ML-DSA-44.
    """
    keys = {key.type: key for key in verifier_keys(vkey_text)}
    classical, pq = keys.get(NoteKeyType.ED25519), keys.get(NoteKeyType.MLDSA44_COSIGNATURE)
    if classical is None or pq is None or len(keys) != 2 or len(vkey_text.splitlines()) != 2:
        raise FormatError(
            "these are not the verifier keys of a log",
            expected="an Ed25519 key (1) and an ML-DSA-44 key (6), one per line",
            found=", ".join(str(int(type_)) for type_ in sorted(keys)),
        )
    urls = witness_urls or {}
    members = [(name, tuple(found), urls.get(name)) for name, found in witnesses.items()]
    return Policy.compose(classical, pq, members, len(members) if quorum is None else quorum, log_url=url)


def add_log(trust: TrustFile, policy: Policy, not_before: datetime | None, not_after: datetime | None) -> TrustFile:
    """Believe a log from now on: the first one ends ``log: exempt``.

    Raises:
        UsageError: if exactly this stands there already.
        FormatError: if the window is empty or there are too many.
    """
    entry = LogPolicy(policy, not_before, not_after)
    present = logs_of(trust)
    if entry in present:
        raise UsageError(f"the trust file has this policy for {policy.origin} already, with the same window")
    return replace(trust, log=(*present, entry))


def set_window(trust: TrustFile, number: int, not_before: Bound, not_after: Bound) -> TrustFile:
    """Change from when to when a policy counts; bounds that are not named stay.

    Raises:
        UsageError: if there is no such policy, or nothing would change.
        FormatError: if the window is empty.
    """
    entries = list(logs_of(trust))
    old = _numbered(entries, number)
    new = LogPolicy(
        old.policy,
        old.not_before if not_before is Keep.KEEP else not_before,
        old.not_after if not_after is Keep.KEEP else not_after,
    )
    if new == old:
        raise UsageError(f"policy {number} has this window already")
    entries[number - 1] = new
    return replace(trust, log=tuple(entries))


def remove_log(trust: TrustFile, number: int, *, exempt: bool) -> TrustFile:
    """Take a policy out; what was logged under it is believed no more. ``exempt`` allows the last one to go.

    Raises:
        UsageError: if there is no such policy, or it is the last one and that was not said to be meant.
    """
    entries = list(logs_of(trust))
    _numbered(entries, number)
    del entries[number - 1]
    if not entries and not exempt:
        raise UsageError(
            "this is the only log of the trust file",
            expected="another log, or --exempt if nothing is to be looked up in a log any more",
            hint="to end it at a date and begin another: pqreg trust log add, then pqreg trust log window",
        )
    return replace(trust, log=tuple(entries) if entries else EXEMPT)


def logs_of(trust: TrustFile) -> tuple[LogPolicy, ...]:
    """The policies of a trust file; none where the log is exempt."""
    return trust.log if isinstance(trust.log, tuple) else ()


def _numbered(entries: Sequence[LogPolicy], number: int) -> LogPolicy:
    if not 1 <= number <= len(entries):
        raise UsageError(
            "there is no such log policy",
            expected=f"1 to {len(entries)}" if entries else "none: the trust file says log: exempt",
            found=number,
            hint="pqreg trust log list shows them with their numbers",
        )
    return entries[number - 1]
