# SPDX-License-Identifier: Apache-2.0
"""Which files of a model on a Hub an import takes, judged by their names before anything is fetched.

Left out are what a Hub or version control adds, what proves the model's own signature and what a release writes anew,
and what the importer excludes. The rest is imported, or the model is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from pq_registry.errors import FormatError, PolicyError, SignatureInvalid, UnsafeFileType, UsageError
from pq_registry.format.executables import refusal_by_name
from pq_registry.format.importing import IMPORT_NAME, SIGNATURE_NAME, ConvertedFile, LeftOut, SourceFile
from pq_registry.format.manifest import MANIFEST_NAME, is_reserved
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.sealing import INNER_NAME
from pq_registry.format.statement import EC_BUNDLE_NAME, EVIDENCE, PQ_BUNDLE_NAME, is_ignored
from pq_registry.mirror.converter import require_torch
from pq_registry.mirror.converting import is_weights, planned_conversions
from pq_registry.mirror.hubfiles import Found, HubEntry
from pq_registry.mirror.upstream import ByRelease, SignaturePolicy, require_found, signature_path

_OWN = frozenset({*EVIDENCE, MANIFEST_NAME, IMPORT_NAME, SIGNATURE_NAME})
_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What an importer may choose.

    ``exclude`` are patterns of files to leave out, ``*`` matching ``/`` too. ``require`` is whose signature the model
    must carry, and ``signature`` the path of that signature, if its name does not tell. ``convert`` turns weight files
    of torch into safetensors.
    """

    exclude: tuple[str, ...] = ()
    require: SignaturePolicy | None = None
    signature: str | None = None
    allow_unsafe: bool = False
    convert: bool = False
    connections: int = 4


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of a model called ``name``, by path; its signature's path; which are left out, and why.

    ``planned`` are the files that will be converted, with the paths of what they become.
    """

    name: str
    entries: Mapping[str, HubEntry]
    signature: str | None
    left_out: Mapping[str, LeftOut]
    planned: Mapping[str, ReleasePath]

    @classmethod
    def of(cls, name: str, entries: Sequence[HubEntry], options: ImportOptions) -> Self:
        """Sort the files of a model.

        Raises:
            UsageError: if the signature that was named is not there, or there are several that might be it.
            FormatError: if no release can hold what a file would be converted to.
        """
        by_path = {entry.path.text: entry for entry in entries}
        signature = signature_path(by_path, options.signature)
        left_out: dict[str, LeftOut] = {}
        for text in by_path:
            if text in _OWN or text == signature:
                left_out[text] = LeftOut.EVIDENCE
            elif is_ignored(text):
                left_out[text] = LeftOut.IGNORED
            elif any(fnmatchcase(text, pattern) for pattern in options.exclude):
                left_out[text] = LeftOut.EXCLUDED
        taken = [entry.path for text, entry in by_path.items() if text not in left_out]
        planned = planned_conversions(taken) if options.convert else {}
        return cls(name, by_path, signature, left_out, planned)

    @property
    def ours(self) -> bool:
        """Whether the model carries the evidence of a release of this project."""
        return {MANIFEST_NAME, EC_BUNDLE_NAME, PQ_BUNDLE_NAME} <= self.entries.keys()

    @property
    def imported(self) -> frozenset[str]:
        """The paths of the import, before anything is converted."""
        return frozenset(self.entries.keys() - self.left_out.keys())

    @property
    def held(self) -> frozenset[str]:
        """The paths of the import afterwards."""
        return self.imported - self.planned.keys() | {path.text for path in self.planned.values()}

    @property
    def wanted(self) -> frozenset[str]:
        """The paths that are fetched: the import, and what proves it."""
        proof = _OWN & self.entries.keys() if self.ours else frozenset[str]()
        return self.imported | proof | ({self.signature} if self.signature is not None else frozenset())

    def judge(self, options: ImportOptions) -> None:
        """Refuse by name what could not be published, and options that do not fit.

        Raises:
            PolicyError: if the model is a sealed release.
            UnsafeFileType: if it holds formats that can execute code.
            SignatureInvalid: step 2, if it carries no signature of the kind that is required.
            FormatError: if a file has a name of this project's.
            UsageError: if nothing is left to import, part of a signed release is excluded, or a conversion has no use
                or no torch.
        """
        if self.ours and INNER_NAME in self.entries:
            raise PolicyError(
                f"{self.name} is a sealed release",
                expected="a model that can be read",
                hint="an import would sign ciphertext as a model; copy it with pqreg replicate or pqreg mirror",
            )
        if self.ours and options.exclude:
            raise UsageError(f"{self.name} is a signed release", expected="no --exclude: it is verified as a whole")
        if isinstance(options.require, ByRelease) and not self.ours:
            raise SignatureInvalid(
                f"{self.name} carries no evidence of a release", expected=", ".join((MANIFEST_NAME, *EVIDENCE)), step=2
            )
        if options.require is not None:
            require_found(self.signature, self.name)
        imported = [self.entries[text].path for text in sorted(self.imported)]
        if not imported:
            raise UsageError(f"{self.name} holds no file to import", found=f"{len(self.entries)} files, all left out")
        for path in (*imported, *self.planned.values()):
            if is_reserved(path):
                raise FormatError(f"{self.name} has a file with a name of this project's", found=repr(path.text))
        self._judge_formats(imported, allow_unsafe=options.allow_unsafe)
        self._judge_conversions()

    def _judge_formats(self, imported: Sequence[ReleasePath], *, allow_unsafe: bool) -> None:
        unsafe = {
            path.text: reason
            for path in imported
            if path.text not in self.planned and (reason := refusal_by_name(path)) is not None
        }
        if not unsafe or allow_unsafe:
            return
        listed = [f"{text} ({reason})" for text, reason in unsafe.items()]
        more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        weights = any(is_weights(self.entries[text].path) for text in unsafe)
        raise UnsafeFileType(
            "files whose format can execute code are not imported",
            expected="safetensors, JSON, text and other formats that only hold data",
            found=", ".join(listed[:_NAMED]) + more,
            hint="leave them out: --exclude '*.bin'"
            + ("; or turn the weights among them into safetensors: --convert" if weights else ""),
        )

    def _judge_conversions(self) -> None:
        made: dict[str, str] = {}
        for text, path in sorted(self.planned.items()):
            beside = made.setdefault(path.text, text)
            if path.text in self.entries and path.text not in self.left_out:
                beside = path.text
            if beside != text:
                raise UsageError(
                    f"{text} would be converted to {path}, which is there already", found=beside,
                    hint=f"leave one of them out: --exclude '{text}'",
                )  # fmt: skip
        if self.planned:
            check_distinct(ReleasePath(text) for text in self.held)
            require_torch()

    def stated(self, found: Mapping[str, Found], made: Mapping[str, ConvertedFile]) -> tuple[SourceFile, ...]:
        """What the import statement says of every file of the model."""
        return tuple(
            SourceFile(
                path=entry.path,
                size=entry.size,
                sha256=entry.sha256,
                git_sha1=entry.git_sha1,
                found=None if text in self.left_out else found[text].sha256,
                left_out=self.left_out.get(text),
                converted=made.get(text),
            )
            for text, entry in sorted(self.entries.items())
        )
