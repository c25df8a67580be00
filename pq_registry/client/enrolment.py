# SPDX-License-Identifier: Apache-2.0
"""Certifying a recipient: an enrolment identity says which node of which namespace holds a key.

Readers believe such a statement only if their own trust file gives its signer the enrolment role; the registry that
keeps it is asked because it is at hand, not because it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pq_registry.client.loganswers import Logged
from pq_registry.client.push import register
from pq_registry.client.tagging import Publisher
from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace


@dataclass(frozen=True, slots=True)
class Certified:
    """A key statement just published, and where the log has it."""

    statement: KeyStatement
    logged: Logged


def certify(
    signer: Publisher, recipient: PublicRecipient, *, namespace: Namespace, node: str, lifetime: timedelta | None
) -> Certified:
    """Sign and publish a key statement.

    Args:
        signer: the enrolment identity, and where it publishes.
        recipient: whose key it is.
        namespace: for which it is certified.
        node: the name of the node that holds the secret key.
        lifetime: how long, if not for good.

    Raises:
        FormatError: if the name of the node is none.
        AccessDenied: if the token may not.
        TransportError: if the registry does not answer.
    """
    statement = KeyStatement(
        signer=signer.signer.identity.id,
        namespace=namespace,
        node=node,
        kem=recipient.kem,
        public_key=recipient.public_key,
        issued=signer.now,
        not_after=None if lifetime is None else signer.now + lifetime,
    )
    envelope = sign_envelope(statement.encode(), signer.signer)
    register(signer, namespace)
    answer = signer.client.put_certificate(namespace, recipient.id, envelope.encode())
    return Certified(statement, signer.checked(answer, envelope, Kind.KEY, namespace))
