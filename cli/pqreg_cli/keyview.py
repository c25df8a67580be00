# SPDX-License-Identifier: Apache-2.0
"""How the public part of a key is shown."""

from __future__ import annotations

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.crypto.slhdsa import SlhPublic


def fields(public: PublicIdentity | PublicRecipient | SlhPublic) -> list[tuple[str, object]]:
    """As lines: what it is called, its profile, and more."""
    if isinstance(public, PublicRecipient):
        return [
            ("recipient", public.id),
            ("profile", f"level {public.kem.level}: {public.kem.algorithm}"),
        ]
    if isinstance(public, SlhPublic):
        return [
            ("SLH-DSA key", public.id),
            ("profile", f"level {public.profile.level}: {public.suite.algorithm}"),
        ]
    ec, pq = public.half_ids
    profile = public.profile
    return [
        ("identity", public.id),
        ("profile", profile.description),
        ("EC half", f"{profile.ec.algorithm}, sha256 {ec}"),
        ("PQ half", f"{profile.pq.algorithm}, sha256 {pq}"),
    ]


def described(public: PublicIdentity | PublicRecipient | SlhPublic) -> dict[str, object]:
    """As JSON."""
    if isinstance(public, PublicRecipient):
        return {
            "kind": "recipient",
            "id": public.id,
            "profile": public.kem.level,
            "kem": {"id": public.kem.value, "algorithm": public.kem.algorithm},
        }
    if isinstance(public, SlhPublic):
        return {
            "kind": "slh-dsa",
            "id": public.id,
            "profile": public.profile.level,
            "algorithm": public.suite.algorithm,
        }
    ec, pq = public.half_ids
    return {
        "kind": "identity",
        "id": public.id,
        "profile": public.profile.level,
        "halves": {
            "ec": {"algorithm": public.profile.ec.algorithm, "sha256": ec},
            "pq": {"algorithm": public.profile.pq.algorithm, "sha256": pq},
        },
    }
