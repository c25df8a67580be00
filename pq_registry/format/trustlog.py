# SPDX-License-Identifier: Apache-2.0
"""The trust file's field ``log``: which transparency logs are believed, and from when to when (docs/spec/trust.md).

Either ``"exempt"``, which asks for no receipt at all, or a list of policies, each the text of a C2SP tlog-policy and a
validity window. The window is about attested times, so a log, its keys or its witnesses are exchanged by ending one
policy and beginning the next: what was logged before stays believed under the policy of its time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.strict_json import Fields, Value
from pq_registry.format.tlogpolicy import LogPolicy, Policy

EXEMPT: Final = "exempt"
TrustedLog = Literal["exempt"] | tuple[LogPolicy, ...]


def check_log(log: TrustedLog) -> None:
    """Refuse what ``parse_log`` would refuse.

    Raises:
        FormatError: if there is no policy or too many, or two entries are the same.
    """
    if log == EXEMPT:
        return
    if not isinstance(log, tuple) or not 0 < len(log) <= limits.LOG_POLICIES:
        raise FormatError(
            "trust file: field 'log' is wrong",
            expected=f"exempt, or 1 to {limits.LOG_POLICIES} policies",
            found=len(log) if isinstance(log, tuple) else repr(log)[:80],
        )
    keys = [(entry.policy.text, entry.not_before, entry.not_after) for entry in log]
    if len(set(keys)) != len(keys):
        raise FormatError("trust file: a log policy is listed twice", expected="each policy and window once")


def log_value(log: TrustedLog) -> Value:
    """The field's value; ``parse_log`` gives ``log`` back."""
    if not isinstance(log, tuple):
        return log
    return [
        {
            "policy": entry.policy.text,
            "not_before": _instant_value(entry.not_before),
            "not_after": _instant_value(entry.not_after),
        }
        for entry in log
    ]


def parse_log(fields: Fields) -> TrustedLog:
    """Take the field ``log``.

    Raises:
        FormatError: if it is neither ``exempt`` nor a list of policies, each completely understood.
    """
    value = fields.take("log")
    if value == EXEMPT:
        return EXEMPT
    if not isinstance(value, list) or not 0 < len(value) <= limits.LOG_POLICIES:
        fields.fail("log", f"exempt, or 1 to {limits.LOG_POLICIES} policies", value)
    found = []
    for index, item in enumerate(value):
        entry = Fields(item, f"trust file.log[{index}]")
        found.append(
            LogPolicy(
                entry.parsed("policy", Policy.parse, limit=limits.TLOG_POLICY_BYTES),
                entry.optional("not_before", parse_instant),
                entry.optional("not_after", parse_instant),
            )
        )
        entry.done()
    return tuple(found)


def _instant_value(instant: datetime | None) -> Value:
    return None if instant is None else format_instant(instant)
