# SPDX-License-Identifier: Apache-2.0
"""How a trust file is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pqreg_cli.console import Output

if TYPE_CHECKING:
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
            ("log", trust.log),
            ("root", None if trust.root is None else trust.root.id + (" and SLH-DSA" if trust.root.slh_pem else "")),
            ("offline status", trust.offline_status),
        ]
    )
    rows = [row for known in trust.namespaces.values() for row in _rows(known)]
    if rows:
        output.line("")
        output.table(["namespace", "what", "identity or digest", "from", "until"], rows)
    for remark in remarks:
        output.note(remark)
    output.data(trust_json(trust))


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
