# SPDX-License-Identifier: Apache-2.0
"""What a provider really supports, found out by trying it with objects of our own that are removed afterwards.

Providers differ in what they document, accept and do: some answer 501 to a conditional write, some take its header and
overwrite all the same. Only what was seen to refuse counts as supported. The registry needs little of it::

    required   put, get, ranges, list, delete, multipart, presigned reads and parts, a clock that agrees with ours;
               Object Lock if s3_retention_days is set
    optional   conditional writes  a second guard beside the database's: tiles and checkpoint
               bound parts         a part with other bytes than announced is refused at once, not at the end
               versioning          then every version is removed, not the newest only

A start asks for what the code needs to know; ``pqreg serve --check`` asks for everything and shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pq_registry import limits
from pq_registry.errors import SettingError, StorageError
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.s3.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the code relies on where it is there. ``declared_digest``: an upload's start says that parts have one."""

    conditional_put: bool
    conditional_replace: bool
    bound_digest: bool
    declared_digest: bool
    bound_length: bool
    versioning: bool
    object_lock: bool
    skew_seconds: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. ``works`` is None where it could not be found out; ``detail`` says what was seen."""

    name: str
    works: bool | None
    required: bool = False
    detail: str = ""

    @property
    def fatal(self) -> bool:
        """Whether a registry cannot run on this store because of it."""
        return self.required and self.works is False


def capabilities(session: S3Session) -> Capabilities:
    """Find out what the code needs to know: about fifteen small requests.

    Raises:
        StorageError: if the store cannot be asked.
    """
    with Trial(session) as trial:
        return _essential(trial)


def require(session: S3Session) -> None:
    """Make sure that a registry can run on this store.

    Raises:
        SettingError: if the settings ask for what the bucket has not.
        StorageError: if the store does not answer, or its clock and ours differ too much.
    """
    found, config = session.capabilities, session.config
    if config.retention_days and not found.object_lock:
        raise SettingError(
            "the bucket has no Object Lock", expected=f"one that can hold blobs for {config.retention_days} days",
            hint="make a bucket with Object Lock, or set s3_retention_days to 0",
        )  # fmt: skip
    if abs(found.skew_seconds) > limits.S3_SKEW_SECONDS:
        raise StorageError(
            "the clocks of the object store and of this machine differ",
            expected=f"at most {limits.S3_SKEW_SECONDS} s", found=f"{found.skew_seconds:+.0f} s",
            hint="set the clock of this machine (NTP): clients could not use the URLs it signs",
        )  # fmt: skip


def probe(session: S3Session) -> tuple[Capabilities, tuple[Finding, ...]]:
    """Try everything, at the public endpoint where clients would.

    Raises:
        StorageError: if the store cannot be asked at all.
    """
    with Trial(session) as trial:
        found = _essential(trial)
        in_time = abs(found.skew_seconds) <= limits.S3_SKEW_SECONDS
        return found, (
            Finding("write and list", *trial.listed()),
            Finding("ranges", *trial.ranges()),
            Finding("clock", in_time, True, f"{found.skew_seconds:+.0f} s"),
            Finding("presigned reads", *trial.presigned_read()),
            Finding("presigned parts", *trial.presigned_part()),
            Finding("no reads without a signature", *trial.closed()),
            Finding("parts bound to their digest", found.bound_digest),
            Finding("parts bound to their length", found.bound_length),
            Finding("conditional writes (If-None-Match)", found.conditional_put),
            Finding("conditional replacement (If-Match)", found.conditional_replace),
            Finding("conditional completion of uploads", trial.conditional_completion()),
            Finding("versioning", found.versioning),
            Finding("Object Lock", found.object_lock, session.config.retention_days > 0),
        )


def _essential(trial: Trial) -> Capabilities:
    skew = trial.write()
    declared = trial.bound_digest(declared=True)
    return Capabilities(
        conditional_put=trial.conditional_put(),
        conditional_replace=trial.conditional_replace(),
        bound_digest=declared or trial.bound_digest(declared=False),
        declared_digest=declared,
        bound_length=trial.bound_length(),
        versioning=trial.versioning(),
        object_lock=trial.object_lock(),
        skew_seconds=skew,
    )
