# SPDX-License-Identifier: Apache-2.0
"""What the log answered to a statement just published, checked as a reader with the publisher's trust file would."""

from __future__ import annotations

from dataclasses import replace

from pq_registry.client.attested import attest
from pq_registry.client.loganswers import Logged
from pq_registry.errors import QuorumNotMet
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.trustfile import TrustFile


def check_logged(
    logged: Logged, envelope: Envelope, *, kind: Kind, name: str, signer: str, trust: TrustFile | None
) -> Logged:
    """Verify the receipt of a statement, if the publisher has a trust file that demands receipts.

    Too few cosignatures are no refusal, for the witnesses may be out of reach at the moment: the answer then says so.
    Anything else is: what was published would be refused by every reader of that trust file.

    Args:
        logged: the registry's answer.
        envelope: what was sent.
        kind: of the statement.
        name: the repository, or for key and status statements the namespace.
        signer: the id of the publisher's identity.
        trust: the publisher's trust file, if there is one.

    Returns:
        ``logged``, with ``quorum`` as that trust file sees it.

    Raises:
        ReceiptMissing, ReceiptInvalid, CheckpointInvalid: step 4, if the receipt does not prove what it should.
        FormatError: if it is malformed.
    """
    if trust is None:
        return logged
    try:
        attest(envelope, kind=kind, name=name, identity=signer, receipt=logged.receipt, log=trust.log)
    except QuorumNotMet:
        return replace(logged, quorum=False)
    return logged
