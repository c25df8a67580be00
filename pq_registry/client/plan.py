# SPDX-License-Identifier: Apache-2.0
"""The plan: what pass 1 of a push decided, kept until the release is committed (docs/spec/push.md).

A plan holds the exact bytes of pqreg.json and of the statement, and so the release id and the release digest. A push
that is cut off and run again finds it, and if the directory still gives every digest in it, goes on with that very
release; if not, the plan is deleted and a new one drawn. A plan is never rewritten.

There is one per (registry, repository, directory, signer), at ``STATE/plans/<SHA-256 of the four>.json``, mode 0600. A
lock file beside it lets one push at a time work on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pq_registry import limits
from pq_registry.durable import TEMPORARY_SUFFIX, make_directory, reported, sync_directory, write_file
from pq_registry.errors import Conflict, FormatError, PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.release import bind
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.strict_json import Fields, Value, encode_base64, encode_canonical, parse_canonical

SCHEMA: Final = "urn:pq-registry:plan:v1"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan is for; ``directory`` is the resolved path."""

    registry: str
    repository: RepositoryName
    directory: str
    signer: str
    sealed: bool = False

    @property
    def file_name(self) -> str:
        """The name of the plan file."""
        return Digest.of(encode_canonical(self.fields())).hex + ".json"

    def fields(self) -> dict[str, Value]:
        """The four as the plan file writes them. A path that is not UTF-8 keeps its bytes as escapes."""
        kind: dict[str, Value] = {"sealed": True} if self.sealed else {}
        return {
            **kind,
            "directory": self.directory.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
            "registry": self.registry,
            "repository": str(self.repository),
            "signer": self.signer,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """A release that is decided and not yet published."""

    manifest_bytes: bytes
    statement_bytes: bytes
    manifest: Manifest

    @classmethod
    def of(cls, manifest_bytes: bytes, statement_bytes: bytes) -> Plan:
        """A plan from the exact bytes, which must belong together.

        Raises:
            PqregError: a FormatError or VerificationError if they do not.
        """
        statement = ReleaseStatement.parse(statement_bytes)
        return cls(manifest_bytes, statement_bytes, bind(statement, Digest.of(statement_bytes), manifest_bytes))

    @property
    def statement(self) -> ReleaseStatement:
        """The statement."""
        return ReleaseStatement.parse(self.statement_bytes)

    @property
    def release(self) -> Digest:
        """The release digest."""
        return Digest.of(self.statement_bytes)

    def encode(self, key: PlanKey) -> bytes:
        """The plan file for ``key``."""
        return encode_canonical(
            {
                **key.fields(),
                "manifest": encode_base64(self.manifest_bytes),
                "schema": SCHEMA,
                "statement": encode_base64(self.statement_bytes),
            }
        )

    @classmethod
    def parse(cls, data: bytes, key: PlanKey) -> Plan:
        """Read a plan file, which must be for ``key``.

        Raises:
            PqregError: a FormatError or VerificationError if it is not a sound plan for ``key``.
        """
        fields = Fields(parse_canonical(data, what="the plan", limit=limits.PLAN_BYTES), "plan")
        fields.literal("schema", SCHEMA)
        for name, value in key.fields().items():
            fields.literal(name, value)
        manifest = fields.base64("manifest", limit=limits.MANIFEST_BYTES)
        statement = fields.base64("statement", limit=limits.STATEMENT_BYTES)
        fields.done()
        plan = cls.of(manifest, statement)
        if (plan.manifest.name, plan.manifest.signer) != (key.repository, parse_identity_id(key.signer)):
            raise FormatError("the plan's release is another repository's or another signer's")
        return plan


class PlanStore:
    """The plans of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "plans"

    @contextlib.contextmanager
    def held(self, key: PlanKey) -> Iterator[None]:
        """Be the only push that works on this plan.

        Raises:
            Conflict: if another process does.
            StorageError: if the state directory cannot be used.
        """
        make_directory(self._directory, 0o700)
        path = self.path(key).with_suffix(".lock")
        with reported("lock", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with reported("lock", path):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Conflict(
                        f"another push of {key.directory} to {key.repository} is running",
                        hint="wait for it to end; it may be on another terminal of this account",
                    ) from None
                # What a push that was killed while it saved its plan left behind. Other plans' are left alone.
                for leftover in self._directory.glob(f".{key.file_name}.*{TEMPORARY_SUFFIX}"):
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)

    def path(self, key: PlanKey) -> Path:
        """Where the plan for ``key`` stands."""
        return self._directory / key.file_name

    def load(self, key: PlanKey) -> Plan | None:
        """The plan for ``key``, or None if there is none that is sound; one that is not is deleted.

        Raises:
            StorageError: if it cannot be read.
        """
        data = self.read(key, limits.PLAN_BYTES)
        if data is None:
            return None
        try:
            return Plan.parse(data, key)
        except PqregError:
            # Nothing depends on a plan but the saving of work: an unsound one is worth as much as none.
            self.delete(key)
            return None

    def save(self, key: PlanKey, plan: Plan) -> None:
        """Keep a new plan, durably.

        Raises:
            AlreadyExists: if there is one for ``key``; plans are never rewritten.
            StorageError: if it cannot be written.
        """
        self.write(key, plan.encode(key))

    def read(self, key: PlanKey, limit: int) -> bytes | None:
        """The plan file for ``key``, or one byte more than ``limit``; None if there is none.

        Raises:
            StorageError: if it cannot be read.
        """
        path = self.path(key)
        with reported("read", path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return None
            with open(descriptor, "rb") as file:
                return file.read(limit + 1)

    def write(self, key: PlanKey, data: bytes) -> None:
        """Make the plan file for ``key``, durably.

        Raises:
            AlreadyExists: if there is one.
            StorageError: if it cannot be written.
        """
        write_file(self.path(key), data, mode=0o600, exact_mode=True, replace=False)

    def delete(self, key: PlanKey) -> None:
        """Remove the plan for ``key``, durably; having none is fine.

        Raises:
            StorageError: if it cannot be removed.
        """
        path = self.path(key)
        with reported("remove", path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_directory(path.parent)
