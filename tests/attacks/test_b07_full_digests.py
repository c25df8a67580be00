# SPDX-License-Identifier: Apache-2.0
"""B7: digests stay whole. One shortened to a cache key let a log promise what it had not logged (sunlight v0.8.1)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pq_registry.errors import NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pq_registry", "cli/pqreg_cli", "keys/pqreg_keys")
ALLOWED = {
    # The id of a note key has four bytes (C2SP signed-note). It finds the line to verify; the whole key decides.
    (
        "pq_registry/format/note.py",
        "hashlib.sha256(name.encode('utf-8') + b'\\n' + bytes([type_]) + public_key).digest()[:KEY_ID_BYTES]",
    ),
    # A fan-out directory; the file in it has the whole digest. The demo looks for one to spoil it.
    ("pq_registry/storage/local.py", "digest.hex[:2]"),
    ("pq_registry/storage/s3/blobs.py", "blob.digest.hex[:2]"),
    ("cli/pqreg_cli/demo/attacks.py", "digest[:2]"),
    # The Hub's clients know commits of 40 digits only. One finds a revision; whole digests verify what it holds.
    ("pq_registry/service/hub/model.py", "release.hex[:40]"),
    ("pq_registry/format/draft.py", "Digest.of(encode_canonical(description)).hex[:COMMIT_DIGITS]"),
    # HKDF-Expand of 32 bytes (RFC 5869 §2.3): the output is an HMAC's first bytes by definition, and no digest.
    ("pq_registry/crypto/sealing.py", "hmac.digest(self._prk, _COMMIT_INFO + b'\\x01', 'sha512')[:COMMITMENT_BYTES]"),
    (
        "pq_registry/crypto/sealing.py",
        (
            "hmac.digest(self._prk, self._prefix + index.to_bytes(8, 'big') + self._suffix, 'sha512')"
            "[:_KEY_BYTES + _NONCE_BYTES]"
        ),
    ),
    # The Hugging Face cache names a snapshot by 40 digits, and other tools look for it under that name. What stands
    # there is verified against the whole digest.
    ("pq_registry/client/hfcache.py", "verified.release.digest.hex[:COMMIT_DIGITS]"),
}


def shortened(source: str) -> list[str]:
    """Expressions that take a part of a digest, or of an identity's id."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Subscript):
            continue
        value = node.value.func if isinstance(node.value, ast.Call) else node.value
        whole = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
        if whole in {"hex", "raw", "hexdigest", "digest", "sha256", "payload_digest", "id"} and _is_slice(node.slice):
            found.append(ast.unparse(node))
    return found


def _is_slice(node: ast.expr) -> bool:
    return isinstance(node, ast.Slice)


def test_no_source_shortens_a_digest() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), expression)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for expression in shortened(path.read_text("utf-8"))
    }
    assert found <= ALLOWED


def test_the_test_can_fail() -> None:
    for source in (
        "d.hex[:16]",
        "h.hexdigest()[:8]",
        "hashlib.sha256(x).digest()[0:16]",
        "str(d.raw[4:])",
        "a.id[:12]",
    ):
        assert shortened(source), source


@pytest.mark.parametrize("digits", [0, 1, 7, 12, 32, 40, 63, 65, 128])
def test_only_whole_digests_are_digests(digits: int) -> None:
    with pytest.raises(NameSyntaxError):
        Digest("a" * digits)
    with pytest.raises(NameSyntaxError):
        Digest.parse("sha256:" + "a" * digits)
    with pytest.raises(NameSyntaxError):
        Reference.parse("acme/minilm@sha256:" + "a" * digits)


def test_digests_are_compared_whole() -> None:
    one, other = Digest("a" * 63 + "b"), Digest("a" * 63 + "c")
    assert one != other
    assert len({one, other}) == 2
