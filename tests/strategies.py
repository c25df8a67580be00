# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for the values of the formats, as wild as the formats allow."""

from __future__ import annotations

import string
import unicodedata
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest, is_reserved, shard_count
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.tag import TagStatement
from pq_registry.format.tensors import DTYPES, TensorEntry, TensorTable
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile

# A chosen alphabet, because building one from Unicode's categories takes seconds: letters of several scripts, what
# folds or normalises to something else, what looks like something else, and characters beyond U+FFFF.
ALPHABET = (
    string.ascii_letters + string.digits + " !#$%&'()+,-.;=@[]^_`{}~" + "äÖßéñŁ\u0130\u0131\u017f\u212aΣςабя中文한"
    "\u0301\u0345\u00a0\u2028\u202e\ufb01\uffff\U0001f600\U0001d11e\U0010ffff"
)
_WILD = ALPHABET + '\x00\x1f\x7f\x9f"\\/\n\t'

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
ids = st.binary(min_size=32, max_size=32).map(bytes.hex)
instants = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9990, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
_part = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=96)


def _valid(build, error: type[Exception]):
    def accepts(value: str) -> bool:
        try:
            build(value)
        except error:
            return False
        return True

    return accepts


namespaces = _part.filter(_valid(Namespace, NameSyntaxError)).map(Namespace)
repositories = st.builds(RepositoryName, namespaces, namespaces.map(str))
tags = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=128)
valid_tags = tags.filter(_valid(Tag, NameSyntaxError)).map(Tag)
_component = st.text(ALPHABET, min_size=1, max_size=20)
_path_texts = st.lists(_component, min_size=1, max_size=4).map(
    lambda parts: unicodedata.normalize("NFC", "/".join(parts))
)
paths = _path_texts.filter(_valid(ReleasePath, FormatError)).map(ReleasePath)
tensor_names = st.text(ALPHABET, min_size=1, max_size=60).filter(lambda name: name != "__metadata__")
envelopes = st.builds(
    Envelope, st.binary(max_size=300), st.binary(min_size=1, max_size=120), st.binary(min_size=1, max_size=200)
)


@st.composite
def tensor_tables(draw: st.DrawFn) -> TensorTable:
    """A table whose tensors tile their data section."""
    entries: list[TensorEntry] = []
    position = 0
    for name in draw(st.lists(tensor_names, max_size=6, unique=True)):
        # By falling alignment, as the official writer sorts, so that every start is aligned.
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
        entries.append(TensorEntry(name, dtype, shape, 0, 0))
    entries.sort(key=lambda entry: -DTYPES[entry.dtype])
    placed = []
    for entry in entries:
        bits = DTYPES[entry.dtype]
        for size in entry.shape:
            bits *= size
        if bits % 8:
            continue
        placed.append(TensorEntry(entry.name, entry.dtype, entry.shape, position, position + bits // 8))
        position += bits // 8
    placed.sort(key=lambda entry: (entry.begin, entry.end, entry.name))
    metadata = draw(st.dictionaries(st.text(_WILD, max_size=8), st.text(_WILD, max_size=5), max_size=3))
    return TensorTable(draw(st.integers(10, 2000)), tuple(sorted(metadata.items())), tuple(placed))


@st.composite
def file_entries(draw: st.DrawFn, path: ReleasePath) -> FileEntry:
    """An entry for ``path``."""
    table = draw(tensor_tables()) if path.suffix == ".safetensors" else None
    size = draw(st.integers(0, 5 * limits.SHARD_BYTES)) if table is None else table.file_size
    shards = draw(st.binary(min_size=32, max_size=32)) * shard_count(size)
    return FileEntry(path, size, draw(digests), shards, table)


@st.composite
def file_lists(draw: st.DrawFn) -> tuple[FileEntry, ...]:
    """The files of a release."""
    chosen: list[ReleasePath] = []
    for path in draw(st.lists(paths, min_size=1, max_size=6)):
        named = ReleasePath(path.text + ".safetensors") if draw(st.booleans()) and len(path.text) < 200 else path
        try:
            check_distinct([*chosen, named])
        except FormatError:
            continue
        if not is_reserved(named):
            chosen.append(named)
    chosen.sort()
    return tuple(draw(file_entries(path)) for path in chosen or [ReleasePath("config.json")])


manifests = st.builds(
    Manifest,
    name=repositories,
    signer=ids,
    release_id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    created=instants,
    files=file_lists(),
    lineage=st.lists(st.builds(BaseRelease, repositories, digests), max_size=3, unique=True).map(tuple),
    license=st.none() | st.text(ALPHABET, min_size=1, max_size=30),
)


@st.composite
def tag_statements(draw: st.DrawFn) -> TagStatement:
    """A first, later or withdrawing statement."""
    sequence = draw(st.integers(1, 3) | st.integers(1, limits.JSON_INTEGER))
    issued = draw(instants)
    return TagStatement(
        repository=draw(repositories),
        tag=draw(valid_tags),
        signer=draw(ids),
        sequence=sequence,
        previous=None if sequence == 1 else draw(digests),
        target=draw(digests if sequence == 1 else st.none() | digests),
        issued=issued,
        expires=issued + timedelta(seconds=draw(st.integers(1, 10**8))),
    )


@st.composite
def namespace_trusts(draw: st.DrawFn, namespace: Namespace) -> NamespaceTrust:
    """What a trust file says of ``namespace``."""
    known = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    entries = []
    for id_ in known:
        start, end = draw(st.none() | instants), draw(st.none() | instants)
        if start is not None and end is not None and start >= end:
            end = None
        entries.append(TrustedIdentity(id_, draw(st.text(_WILD, min_size=1, max_size=20)), start, end))
    roles = st.lists(st.sampled_from(known), unique=True).map(tuple)
    return NamespaceTrust(
        namespace,
        tuple(entries),
        publishers=draw(roles),
        min_profile=draw(st.sampled_from((3, 5))),
        pinned=frozenset(draw(st.lists(digests, max_size=3))),
        revokers=draw(roles),
        enrolment=draw(roles),
        refreshers=draw(roles),
    )


@st.composite
def trust_files(draw: st.DrawFn) -> TrustFile:
    """A trust file."""
    created = draw(instants)
    entries = [
        draw(namespace_trusts(name)) for name in draw(st.lists(namespaces, max_size=3, unique_by=lambda n: n.key))
    ]
    return TrustFile(
        version=draw(st.integers(1, limits.JSON_INTEGER)),
        created=created,
        expires=created + timedelta(seconds=draw(st.integers(1, 10**8))),
        namespaces={entry.namespace.key: entry for entry in entries},
        grace_days=draw(st.integers(0, limits.GRACE_DAYS)),
        offline_status=draw(st.sampled_from(("warn", "require"))),
    )
