# SPDX-License-Identifier: Apache-2.0
"""How long an object stays: retention by Object Lock, and removal with every version.

In a bucket with versioning a plain deletion only hides an object, for good, at full cost; so versions are deleted one
by one. Object Lock needs such a bucket, and the provider refuses to delete a version that is held.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from pq_registry.errors import StorageError
from pq_registry.storage.s3.answers import code_of, reported
from pq_registry.storage.s3.session import S3Session


def remove_object(session: S3Session, name: str) -> None:
    """Remove an object, with every version of it; one that is not there is no failure.

    Raises:
        StorageError: if the store fails, or holds the object for longer.
    """
    versions = versions_of(session, name) if session.capabilities.versioning else [None]
    for version in versions:
        named = {} if version is None else {"VersionId": version}
        with reported("remove", name):
            try:
                session.attempt("delete_object", name, **named)
            except ClientError as error:
                if code_of(error) in ("NoSuchKey", "NoSuchVersion", "404"):
                    continue
                until = _held_until(session, name)
                if until is not None and until > session.now:
                    raise StorageError(
                        f"the object store holds {name} by Object Lock", found=f"until {until:%Y-%m-%d %H:%M} UTC"
                    ) from None
                raise


def retain_object(session: S3Session, name: str, now: datetime) -> None:
    """Hold an object for ``s3_retention_days``, unless it is held for that long already; nothing if they are 0.

    Raises:
        NotFound: if there is no such object.
        StorageError: if the store fails or knows no Object Lock.
    """
    config = session.config
    if not config.retention_days:
        return
    if not session.capabilities.object_lock:
        raise StorageError(
            "the bucket has no Object Lock", expected=f"one that can hold blobs for {config.retention_days} days",
            hint="make a bucket with Object Lock, or set s3_retention_days to 0",
        )  # fmt: skip
    until = now + timedelta(days=config.retention_days)
    held = _held_until(session, name)
    # A release that shares the blob may have been committed today: a day less saves a request for most of them.
    if held is not None and held >= until - timedelta(days=1):
        return
    session.call(
        "put_object_retention", "retain", name,
        Retention={"Mode": config.retention_mode.upper(), "RetainUntilDate": until},
    )  # fmt: skip


def _held_until(session: S3Session, name: str) -> datetime | None:
    try:
        answer = session.attempt("get_object_retention", name)
    except (ClientError, BotoCoreError):
        # Whether it is held is asked to explain a refusal, or to save a request; not knowing decides nothing.
        return None
    until = answer.get("Retention", {}).get("RetainUntilDate")
    return until if isinstance(until, datetime) else None


def versions_of(session: S3Session, name: str) -> list[str | None]:
    """Every version of an object, and every marker that hides it.

    Raises:
        StorageError: if the store fails.
    """
    found: list[str | None] = []
    following: dict[str, object] = {}
    key = session.config.prefix + name
    while True:
        page = session.call("list_object_versions", "list the versions of", "", Prefix=key, **following)
        for kind in ("Versions", "DeleteMarkers"):
            found += [item["VersionId"] for item in page.get(kind, ()) if item.get("Key") == key]
        markers = {"KeyMarker": page.get("NextKeyMarker"), "VersionIdMarker": page.get("NextVersionIdMarker")}
        if not page.get("IsTruncated") or not markers["KeyMarker"] or markers == following:
            return found
        following = {name: value for name, value in markers.items() if value}
