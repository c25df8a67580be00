# SPDX-License-Identifier: Apache-2.0
"""For whom a publisher may grant: whose key somebody vouches for, and of a sufficient profile.

A recipient's key must be certified by an enrolment identity of the publisher's trust file, unless its owner's
fingerprint is given. Without that a registry could put a key of its own into the publisher's hands. What a registry
lists says where to look and no more.
"""

from __future__ import annotations

from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.consistency import ask_log
from pq_registry.client.proofs import adopt_status, fetch_receipt
from pq_registry.client.seenstatus import SeenStatuses
from pq_registry.client.status import Subject, check_not_revoked
from pq_registry.client.tagging import Publisher
from pq_registry.client.trust import Verifier
from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.errors import FormatError, PolicyError, RecipientUncertified, UsageError, VerificationError
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.name import Namespace


def certified(publisher: Publisher, namespace: Namespace, recipient: str) -> KeyStatement:
    """The key statement by which an enrolment identity of the trust file vouches for a recipient.

    Raises:
        RecipientUncertified: if there is none that counts.
        StatusError: if the registry has no status of the namespace that could count.
        LogMisbehaved: if the log contradicts what it has shown, this receipt included; the proof is kept.
        LogError: if the log's newest checkpoint is not what it must be.
        TransportError: if the registry does not answer.
    """
    if publisher.trust is None:
        raise _uncertified(recipient, "no trust file, so nobody's word counts")
    data = publisher.client.certificate_envelope(namespace, recipient)
    if data is None:
        raise _uncertified(recipient, "no key statement")
    verifier = Verifier(publisher.trust.encode(), publisher.now, online=True)
    adopt_status(publisher.client, verifier, namespace, SeenStatuses(publisher.state_dir))
    receipt = fetch_receipt(publisher.client, verifier, data)
    try:
        statement = verifier.certificate(data, namespace, receipt=receipt)
    except (VerificationError, FormatError, RecipientUncertified) as error:
        raise _uncertified(recipient, f"a key statement that does not count: {error}") from None
    if statement.recipient != recipient:
        raise _uncertified(recipient, f"the key statement of {statement.recipient}")
    if verifier.receipts:
        # A content key cannot be taken back: a certificate in a tree that nobody else is shown is none.
        ask_log(publisher.client, verifier, Checkpoints(publisher.state_dir))
    return statement


def look_up(publisher: Publisher, namespace: Namespace, name: str) -> PublicRecipient:
    """The certified recipient of a namespace with this id, or on the node of this name.

    The registry's listing is where to look and no more: which node holds a key, the certificate says.

    Raises:
        UsageError: if there is none, or several.
        RecipientUncertified: if nobody whose word counts certified it.
    """
    believed: dict[str, KeyStatement] = {}
    refusal: RecipientUncertified | None = None
    for item in publisher.client.certificates(namespace):
        if name not in (item.recipient, item.node):
            continue
        try:
            statement = certified(publisher, namespace, item.recipient)
        except RecipientUncertified as error:  # e.g. the lapsed one of the same node
            refusal = error
            continue
        if name in (statement.recipient, statement.node):
            believed[statement.recipient] = statement
        else:
            refusal = _uncertified(item.recipient, f"a key statement that names the node {statement.node}, not {name}")
    if not believed and refusal is not None:
        raise refusal
    if len(believed) != 1:
        raise UsageError(
            f"{name!r} is neither a file nor one recipient of {namespace}",
            expected="a recipient's .pqpub file, the name of a certified node, or a recipient id",
            found=f"{len(believed)} certified recipients of that name",
        )
    (statement,) = believed.values()
    return PublicRecipient(statement.kem, statement.public_key)


def refuse_revoked(publisher: Publisher, namespace: Namespace, subject: Subject) -> None:
    """Nothing is granted that every reader of the publisher's trust file would refuse.

    Raises:
        Revoked: if the namespace's status revokes what ``subject`` names.
        PqregError: if the status is not what it must be.
    """
    if publisher.trust is None:
        return
    verifier = Verifier(publisher.trust.encode(), publisher.now, online=True)
    adopt_status(publisher.client, verifier, namespace, SeenStatuses(publisher.state_dir))
    status = verifier.adopted(namespace)
    if status is not None:
        check_not_revoked(status.statement, subject, publisher.now)


def demanded_level(publisher: Publisher, namespace: Namespace) -> int:
    """The lowest profile the publisher's trust file believes in for a namespace; 0 where it says nothing."""
    listed = None if publisher.trust is None else publisher.trust.namespaces.get(namespace.key)
    return 0 if listed is None else listed.min_profile


def require_profile(publisher: Publisher, namespace: Namespace, recipient: PublicRecipient) -> None:
    """Demand that a recipient's key is of the profile that the publisher's trust file demands for the namespace.

    Raises:
        PolicyError: if it is of a lower one: the content would be protected by the lower one from then on.
    """
    demanded = demanded_level(publisher, namespace)
    if recipient.kem.level < demanded:
        raise PolicyError(
            f"the key of recipient {recipient.id} is of a lower profile than your trust file demands for {namespace}",
            expected=f"profile {demanded} or higher",
            found=f"profile {recipient.kem.level} ({recipient.kem.algorithm})",
            hint="have its owner make one: pqreg key generate NAME --recipient",
        )


def _uncertified(recipient: str, found: str) -> RecipientUncertified:
    return RecipientUncertified(
        f"nobody vouches for the recipient key {recipient}",
        expected="a key statement by an enrolment identity of your trust file",
        found=found,
        hint="have it certified (pqreg key certify); or compare the id with its owner over another channel, and give "
        "--fingerprint with it",
    )
