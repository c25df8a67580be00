# SPDX-License-Identifier: Apache-2.0
"""Reading the card of a release from the blob store: README.md of its manifest.

A card that is not as it should be is a card with a problem, never a failure; only bytes that cannot be read are one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, PqregError, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry, Manifest
from pq_registry.service.cards.card import Base, Card, clean_line
from pq_registry.service.cards.header import decode_card, read_header, split_card
from pq_registry.service.resolve import Resolving
from pq_registry.service.tokens import host_caller
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue

CARD_NAME: Final = "README.md"
_ADAPTER: Final = "adapter_config.json"
_QUANTIZED: Final = ".gguf"
_LICENSE_CHARS: Final = 64
_LINES: Final = 400
"""How far into a card its title and first paragraph are looked for."""
_LINK: Final = re.compile(r"!?\[([^\[\]]{0,200})\]\([^()\s]{0,500}\)")
_TAG: Final = re.compile(r"<[^<>]{0,500}>")
_MARKS: Final = re.compile(r"[*`]|(?<!\w)_|_(?!\w)")


class CardReader:
    """Reads manifests and cards for the service itself; who may see them is decided by whoever asks for them."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore) -> None:
        self._resolving = Resolving(catalogue, blobs)

    def manifest(self, digest: Digest) -> Manifest:
        """The manifest that is this blob.

        Raises:
            StorageError: if it cannot be read, or is damaged.
        """
        try:
            return Manifest.parse(self._read(digest, limits.MANIFEST_BYTES))
        except FormatError as error:
            raise StorageError(
                f"{MANIFEST_NAME} of a release is damaged", found=error, hint="run pqreg fsck"
            ) from error

    def text(self, manifest: Manifest) -> str | None:
        """The card's text; None if the release has none, or is sealed.

        Raises:
            FormatError: if it is too long, or not UTF-8.
            StorageError: if it cannot be read.
        """
        entry = find_file(manifest, CARD_NAME)
        if entry is None or manifest.sealing is not None:
            return None
        if entry.size > limits.CARD_BYTES:
            raise FormatError("the card is too long", expected=f"at most {limits.CARD_BYTES} bytes", found=entry.size)
        return decode_card(self._read(entry.sha256, limits.CARD_BYTES))

    def card(self, manifest: Manifest) -> Card:
        """What the card says, and what the manifest says of the same.

        Raises:
            StorageError: if it cannot be read.
        """
        if manifest.sealing is not None:
            return Card()
        relation = _relation(manifest)
        many = len(manifest.lineage) > 1 and relation == "finetune"
        signed = [
            Base(name=str(base.name), relation="merge" if many else relation, release=base.release.hex)
            for base in manifest.lineage
        ]
        try:
            text = self.text(manifest)
            card = Card() if text is None else _said(text, relation)
        except FormatError as error:
            card = Card(present=True, problem=_reason(error))
        stated = card.license or clean_line(manifest.license or "", _LICENSE_CHARS)
        return replace(card, license=stated).with_bases(signed)

    def read(self, entry: FileEntry, *, limit: int) -> bytes:
        """The bytes of a small file of a release.

        Raises:
            FormatError: if it has more than ``limit`` bytes.
            StorageError: if it cannot be read, or is damaged.
        """
        data = self._read(entry.sha256, limit)
        if Digest.of(data) != entry.sha256:
            raise StorageError("a file of a release is damaged", expected=entry.sha256, hint="run pqreg fsck")
        return data

    def _read(self, digest: Digest, limit: int) -> bytes:
        try:
            reader = self._resolving.open_blob(host_caller(), digest)
        except StorageError:
            raise
        except PqregError as error:
            raise StorageError("a file of a release cannot be read", found=error, hint="run pqreg fsck") from error
        try:
            if reader.size > limit:
                raise FormatError("the file is too long", expected=f"at most {limit} bytes", found=reader.size)
            return reader.read(0, reader.size)
        finally:
            reader.close()


def find_file(manifest: Manifest, path: str) -> FileEntry | None:
    """The entry of a file in a manifest."""
    return next((entry for entry in manifest.files if entry.path.text == path), None)


def headline(body: str) -> tuple[str, str]:
    """A card's title and its first paragraph, as plain text; either may be empty."""
    title, paragraph = "", ""
    for line in islice(body.splitlines(), _LINES):
        text = _plain(line)
        if line.startswith("#"):
            title = title or text.lstrip("# ")
            if paragraph:
                break
        elif text and not line.lstrip().startswith(("|", "```", "---", ">", "=")):
            paragraph = f"{paragraph} {text}"
            if len(paragraph) > limits.CARD_SUMMARY_CHARS:
                break
        elif paragraph:
            break
    return clean_line(title, limits.CARD_VALUE_CHARS), clean_line(paragraph, limits.CARD_SUMMARY_CHARS)


def _plain(line: str) -> str:
    """A line without its marks; empty if it had nothing else, as badges and HTML."""
    if line.lstrip().startswith(("[![", "![")):
        return ""
    return _MARKS.sub("", _TAG.sub("", _LINK.sub(r"\1", line[: 4 * limits.CARD_SUMMARY_CHARS]))).strip()


def _said(text: str, relation: str) -> Card:
    header, body = read_header(text), split_card(text)[1]
    title, summary = headline(body)
    return replace(Card.of_header(header, relation=relation), title=title, summary=summary)


def _relation(manifest: Manifest) -> str:
    """What its files say it is to its base, where nobody says: the Hub guesses so, too."""
    paths = [entry.path.text for entry in manifest.files]
    if _ADAPTER in paths:
        return "adapter"
    return "quantized" if any(path.endswith(_QUANTIZED) for path in paths) else "finetune"


def _reason(error: FormatError) -> str:
    return clean_line(f"{error.message}: {error.found or error.expected}", limits.CARD_VALUE_CHARS)
