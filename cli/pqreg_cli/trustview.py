# SPDX-License-Identifier: Apache-2.0
"""How a trust file is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pqreg_cli.console import Output, count_text

if TYPE_CHECKING:
    from pq_registry.format.tlogpolicy import Policy
    from pq_registry.format.trustfile import NamespaceTrust, TrustFile


def show_trust(output: Output, trust: TrustFile, remarks: tuple[str, ...]) -> None:
    """Print a trust file and what its owner should know about it."""
    from pq_registry.format.instant import format_instant

    output.fields(
        [
            ("version", trust.version),
            ("created", format_instant(trust.created)),
            ("expires", format_instant(trust.expires)),
            ("grace", f"{trust.grace_days} days for verify and load" if trust.grace_days else None),
            ("log", _log_text(trust)),
            ("root", None if trust.root is None else trust.root.id + (" and SLH-DSA" if trust.root.slh_pem else "")),
            ("offline status", trust.offline_status),
        ]
    )
    rows = [row for known in trust.namespaces.values() for row in _rows(known)]
    if rows:
        output.line("")
        output.table(["namespace", "what", "identity or digest", "from", "until"], rows)
    logs = log_rows(trust)
    if logs:
        output.line("")
        output.table(["number", "log", "witnesses", "from", "until"], logs)
    for remark in remarks:
        output.note(remark)
    output.data(trust_json(trust))


def log_rows(trust: TrustFile) -> list[tuple[int, str, str, str, str]]:
    """The log policies as rows: number, origin, who must cosign, and the window."""
    from pq_registry.client.trustlogs import logs_of
    from pq_registry.format.instant import format_instant

    return [
        (
            number,
            entry.policy.origin,
            _witness_text(entry.policy),
            format_instant(entry.not_before) if entry.not_before else "-",
            format_instant(entry.not_after) if entry.not_after else "-",
        )
        for number, entry in enumerate(logs_of(trust), 1)
    ]


def _log_text(trust: TrustFile) -> str:
    from pq_registry.client.trustlogs import logs_of

    count = len(logs_of(trust))
    return "exempt: no receipts are asked for" if not count else f"receipts demanded, {count_text(count, 'log')}"


def _witness_text(policy: Policy) -> str:
    """The names of those who attest the time; a witness with two keys signs under one name."""
    names = sorted({policy.witnesses[name].key.name for name in policy.attesting})
    return ", ".join(names) or "none: no attested time"


def _rows(known: NamespaceTrust) -> Iterator[tuple[str, str, str, str, str]]:
    from pq_registry.format.instant import format_instant

    named = (
        (f"publisher (level {known.min_profile}+)", known.publishers),
        ("revoker", known.revokers),
        ("enrolment", known.enrolment),
        ("refresher", known.refreshers),
    )
    for identity in known.identities:
        start = format_instant(identity.not_before) if identity.not_before else "-"
        end = format_instant(identity.not_after) if identity.not_after else "-"
        what = ", ".join(role for role, holders in named if identity.id in holders) or "nothing"
        yield str(known.namespace), what, identity.id, start, end
    for digest in sorted(known.pinned):
        yield str(known.namespace), "pinned release", str(digest), "-", "-"


def trust_json(trust: TrustFile) -> dict[str, object]:
    """The document as it stands in the file."""
    value: dict[str, object] = json.loads(trust.encode())
    return value
