# SPDX-License-Identifier: Apache-2.0
"""What is to be on a Hub for one release, file by file, and the words that go with it.

A release goes there as it is: its files in their stored bytes, ``pqreg.json`` and the evidence, and not one file more,
because a file that is not covered breaks the verification by stock tools. So what people are to know, the digest and
how to verify, stands in the message of the commit. Sealed releases are their ciphertext.

Mirrored as a card only, a repository holds the evidence, ``pqreg.json`` and a ``README.md``: that of the release if it
is open and has one, else the operator's, else one that says where the release is. It verifies as nothing; it shows that
the release exists, who signed it and that the log has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pq_registry.client.verified import VerifiedRelease
from pq_registry.errors import UsageError
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.statement import EC_BUNDLE_NAME, EVIDENCE, PQ_BUNDLE_NAME, TLOG_PROOF_NAME
from pq_registry.mirror.config import Form

README = "README.md"
REPOSITORY_TRAILER = "Pqreg-Repository: "
RELEASE_TRAILER = "Pqreg-Release: "
UNTOUCHED = frozenset({".gitattributes"})
"""What a Hub keeps for itself in a repository; every verifier lets it be."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: ``inline`` are its bytes where they are at hand; otherwise it is the release's file of this path."""

    path: str
    size: int
    sha256: Digest
    inline: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a release looks like on a Hub."""

    verified: VerifiedRelease
    form: Form
    files: Mapping[str, Wanted]

    @property
    def release(self) -> Digest:
        """Which release it is."""
        return self.verified.release.digest

    @property
    def key(self) -> str:
        """Equal for what is equal but for its evidence."""
        what = hashlib.sha256()
        for path, file in sorted(self.files.items()):
            if not is_evidence(path):
                what.update(f"{file.sha256.hex} {path}\n".encode())
        return f"{self.release.hex}-{what.hexdigest()}"


def content_of(
    verified: VerifiedRelease, form: Form, *, registry: str, readme: bytes | None = None, card: bytes | None = None
) -> Content:
    """What is to be on a Hub.

    Args:
        verified: the release.
        form: in which form.
        registry: URL of the registry, for those who read the card.
        readme: for a card only: the verified README.md of the release, if it has one.
        card: the operator's README for releases that have none to show.

    Raises:
        UsageError: if the release cannot be mirrored in this form, or at all.
    """
    files = {name: _inline(name, data) for name, data in evidence(verified).items()}
    if form is Form.CARD_ONLY:
        text = readme or card or default_card(verified, registry)
        files[README] = _inline(README, text)
    else:
        for entry in verified.release.manifest.files:
            _require_path(entry)
            files[entry.path.text] = Wanted(entry.path.text, entry.size, entry.sha256)
    return Content(verified=verified, form=form, files=files)


def evidence(verified: VerifiedRelease) -> dict[str, bytes]:
    """The manifest and the evidence of a release, as a directory that holds it has them."""
    release, signer = verified.release, verified.signer
    found = {
        MANIFEST_NAME: release.manifest_bytes,
        EC_BUNDLE_NAME: encode_bundle(release.envelope, "ec", signer.ec_pem),
        PQ_BUNDLE_NAME: encode_bundle(release.envelope, "pq", signer.pq_pem),
    }
    if verified.receipt is not None:
        found[TLOG_PROOF_NAME] = verified.receipt.proof
    return found


def is_evidence(path: str) -> bool:
    """Whether the file of this path may differ between two copies of one release: receipts can be renewed."""
    return path in EVIDENCE


def title(content: Content) -> str:
    """The first line of a commit's message."""
    release = content.verified.release
    return f"Release {release.digest} of {release.name}"


def message(content: Content, *, registry: str) -> str:
    """The rest of it: what this is, how to verify it, and the trailers by which a mirror knows its own commits."""
    release = content.verified.release
    name, digest = release.name, release.digest
    if content.form is Form.CARD_ONLY:
        what = [
            "The card and the evidence only; the files of this release are not here.",
            "",
            "Fetch it, verified, from its registry:",
            f"  pqreg pull {name}@{digest} ./{name.name} --registry {registry} --trust trust.json",
        ]
    else:
        sealed = release.manifest.sealing is not None
        what = [
            "A faithful copy of a sealed release: its ciphertext and its evidence."
            if sealed
            else "A faithful copy of a signed release, with its evidence.",
            "",
            "Verify what you downloaded, offline, with the publisher's trust file:",
            f"  pqreg verify ./{name.name} --expect {name}@{digest} --trust trust.json",
            "or its classical half with stock OpenSSF Model Signing tools, given the publisher's EC key (ec.pem):",
            f"  model_signing verify key ./{name.name} --public_key ec.pem --signature ./{name.name}/{EC_BUNDLE_NAME}",
        ]
        if sealed:
            what += ["", f"Opening it takes a recipient key that was granted to: pqreg pull {name}@{digest}"]
    return "\n".join([*what, "", f"{REPOSITORY_TRAILER}{name}", f"{RELEASE_TRAILER}{digest}"])


def default_card(verified: VerifiedRelease, registry: str) -> bytes:
    """A README.md for a release whose files are elsewhere."""
    release = verified.release
    sealed = release.manifest.sealing is not None
    kind = "a sealed (end-to-end encrypted) model" if sealed else "a model"
    return "\n".join(
        [
            "---",
            "tags:",
            "- pq-registry",
            "---",
            "",
            f"# {release.name}",
            "",
            f"This page stands for {kind} whose files are not here. They are in the registry at {registry}.",
            "",
            f"- release: `{release.digest}`",
            f"- signer: `{release.manifest.signer}`",
            "",
            "`pqreg.json`, `model.sig`, `model.pq.sig` and `model.tlog-proof` beside this page are its manifest and",
            "its evidence: who signed it, with which post-quantum hybrid, and that this is in a public log.",
            "",
            "```",
            f"pqreg pull {release.name}@{release.digest} ./{release.name.name} --registry {registry}",
            "```",
            "",
        ]
    ).encode()


def _inline(path: str, data: bytes) -> Wanted:
    return Wanted(path, len(data), Digest.of(data), data)


def _require_path(entry: FileEntry) -> None:
    # huggingface_hub refuses to touch these folders, wherever they are.
    if {".git", ".cache"} & set(entry.path.parts):
        raise UsageError(
            f"{entry.path} cannot be put on a Hub", expected="no folder called .git or .cache",
            hint="mirror this release as a card only, or publish it with other names",
        )  # fmt: skip
