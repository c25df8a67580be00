# SPDX-License-Identifier: Apache-2.0
"""Step 4 of DESIGN §5: what the transparency log attests of a statement, and whether its signer was valid then.

Attested time T is the largest time among the valid cosignatures of the policy's witnesses; ``log.receipt`` finds it.
Three cases, and each is said in a sentence that every command shows:

* A receipt with T: the signer's validity window must contain T, whatever the clock says now.
* A receipt without T, because the policy names no witness besides the log itself: the leaf is in the log, but nobody
  independent says since when. The window is judged now, and a pinned release is exempt from it.
* ``log: exempt``: there is no receipt at all. Judged as the second case.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pq_registry.errors import IdentityLapsed, ReceiptMissing
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import format_instant, in_window
from pq_registry.format.leaf import Kind
from pq_registry.format.trustfile import TrustedIdentity
from pq_registry.format.trustlog import TrustedLog
from pq_registry.log.receipt import Receipt, verify_receipt

EXEMPT_NOTE = "transparency log: not checked, the trust file says `log: exempt`"


@dataclass(frozen=True, slots=True)
class Attestation:
    """What is known of when a statement was signed; ``receipt`` is None where the trust file asks for none."""

    receipt: Receipt | None

    @property
    def time(self) -> datetime | None:
        """T; None if no independent witness attests one."""
        return None if self.receipt is None else self.receipt.attested

    @property
    def note(self) -> str:
        """The sentence for people."""
        if self.receipt is None:
            return EXEMPT_NOTE
        where = f"transparency log: leaf {self.receipt.index} of {self.receipt.policy.origin}"
        if self.time is None:
            return f"{where}; no independent witness attests its time, so the clock of this machine decides"
        count = len(self.receipt.cosigners)
        return f"{where}, attested {format_instant(self.time)} by {count} {'witness' if count == 1 else 'witnesses'}"


def attest(
    envelope: Envelope, *, kind: Kind, name: str, identity: str, receipt: bytes | None, log: TrustedLog
) -> Attestation:
    """The receipt of a statement whose signature and signer have been verified.

    Args:
        envelope: the statement's envelope.
        kind: what the log must have recorded it as.
        name: the repository, or for key and status statements the namespace, as the statement spells it.
        identity: the id of the signer.
        receipt: the receipt's bytes, if there are any; not looked at where the log is exempt.
        log: what the trust file says.

    Raises:
        ReceiptMissing: if a receipt is demanded and there is none.
        LogError: if it does not prove that this statement is in a log that the trust file believes.
        FormatError: if it is malformed.
    """
    if not isinstance(log, tuple):
        return Attestation(None)
    if receipt is None:
        raise ReceiptMissing(
            f"there is no receipt of the log for this {kind.value} statement of {name}",
            expected="a receipt of " + " or ".join(sorted({entry.policy.origin for entry in log})),
            found="none",
            hint="get it again from a registry with this log (pqreg pull); or, if this site is to do without receipts, "
            "let the trust file say log: exempt",
        )
    return Attestation(
        verify_receipt(receipt, envelope=envelope, kind=kind, name=name, identity=identity, policies=log)
    )


def check_window(trusted: TrustedIdentity, attestation: Attestation, *, now: datetime, pinned: bool) -> None:
    """The signer's validity window contains the time that counts.

    Raises:
        IdentityLapsed: if it does not.
    """
    if pinned:
        return
    time = now if attestation.time is None else attestation.time
    if in_window(time, trusted.not_before, trusted.not_after):
        return
    start = format_instant(trusted.not_before) if trusted.not_before else "the beginning"
    end = format_instant(trusted.not_after) if trusted.not_after else "the end of time"
    if attestation.time is None:
        raise IdentityLapsed(
            f"the signer {trusted.id} is not valid at this time",
            expected=f"a time from {start} to before {end}",
            found=f"{format_instant(now)}; no witness attests an earlier one",
            hint="get a newer trust file; an old release you rely on can be pinned there by its digest",
        )
    raise IdentityLapsed(
        f"the signer {trusted.id} was not valid when this was logged",
        expected=f"a time from {start} to before {end}",
        found=f"attested {format_instant(attestation.time)}",
        hint="ask the publisher to sign again with a valid identity, or get a newer trust file",
    )
