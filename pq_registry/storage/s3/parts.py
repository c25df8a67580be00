# SPDX-License-Identifier: Apache-2.0
"""Multipart uploads: begun and completed by the service, their parts written by clients with presigned requests.

Parts count from 0 here and from 1 in S3. A part's request is bound to the digest and length of its bytes where the
provider was seen to refuse others; where it does not, only the service's verification of the whole object does.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pq_registry import limits
from pq_registry.errors import NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import SignedRequest, StoredPart
from pq_registry.storage.s3.session import S3Session

_STORAGE_ID_CHARS = 1024
_ETAG_CHARS = 256


def begin(session: S3Session, name: str) -> str:
    """Start an upload; answers the store's name for it.

    Raises:
        StorageError: if the store fails.
    """
    extra: dict[str, object] = dict(session.blob_options)
    if session.capabilities.declared_digest:
        extra["ChecksumAlgorithm"] = "SHA256"
    storage_id = session.call("create_multipart_upload", "begin", name, **extra).get("UploadId")
    if not isinstance(storage_id, str) or not 0 < len(storage_id) <= _STORAGE_ID_CHARS:
        raise StorageError(f"the object store gave no usable name for the upload of {name}")
    return storage_id


def sign(
    session: S3Session, name: str, storage_id: str, number: int, *, sha256: Digest, length: int, now: datetime,
    internal: bool = False,
) -> SignedRequest:  # fmt: skip
    """A PUT of one part.

    Raises:
        StorageError: if what the provider supports cannot be found out.
    """
    return bound(
        session, name, storage_id, number, now=now, internal=internal,
        sha256=sha256 if session.capabilities.bound_digest else None,
        length=length if session.capabilities.bound_length else None,
    )  # fmt: skip


def bound(
    session: S3Session, name: str, storage_id: str, number: int, *, sha256: Digest | None, length: int | None,
    now: datetime, internal: bool,
) -> SignedRequest:  # fmt: skip
    """A PUT of one part that is bound to what is given and not None."""
    headers = {} if sha256 is None else {"x-amz-checksum-sha256": base64.b64encode(sha256.raw).decode()}
    if length is not None:
        headers["content-length"] = str(length)
    query = {"partNumber": str(number + 1), "uploadId": storage_id}
    return session.presign("PUT", name, now=now, query=query, headers=headers, internal=internal)


def upload(session: S3Session, name: str, storage_id: str, number: int, data: bytes) -> StoredPart:
    """Write one part through the service.

    Raises:
        NotFound: if the store knows no such upload.
        StorageError: if the store fails.
    """
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode() if session.capabilities.declared_digest else None
    answer = session.call(
        "upload_part", "store a part of", name, UploadId=storage_id, PartNumber=number + 1, **session.body(data),
        **({} if digest is None else {"ChecksumSHA256": digest}),
    )  # fmt: skip
    return StoredPart(len(data), str(answer["ETag"]), digest)


def held(session: S3Session, name: str, storage_id: str) -> dict[int, StoredPart]:
    """The parts the store holds.

    Raises:
        NotFound: if the store knows no such upload.
        StorageError: if the store fails, or answers with what no upload has.
    """
    found: dict[int, StoredPart] = {}
    following: dict[str, object] = {}
    while True:
        page = session.call("list_parts", "list the parts of", name, UploadId=storage_id, **following)
        for item in page.get("Parts", ()):
            number, part = _part(item, name)
            found[number] = part
        marker = page.get("NextPartNumberMarker")
        if not page.get("IsTruncated") or following.get("PartNumberMarker") == marker or not marker:
            return found
        following = {"PartNumberMarker": marker}


def finish(session: S3Session, name: str, storage_id: str, parts: Mapping[int, StoredPart]) -> None:
    """Make the object of its parts.

    Raises:
        StorageError: if the store fails.
    """
    listed = [_completed(number, parts[number]) for number in sorted(parts)]
    try:
        session.call(
            "complete_multipart_upload", "finish", name, UploadId=storage_id, MultipartUpload={"Parts": listed}
        )
    except NotFound as error:
        # Either it was finished and the answer lost, or it was abandoned; the object tells.
        size = sum(part.size for part in parts.values())
        try:
            present = session.call("head_object", "look at", name).get("ContentLength")
        except NotFound:
            present = None
        if present != size:
            raise StorageError(
                f"the object store no longer knows the upload of {name}", expected=f"{size} bytes", found=error.found,
                hint="push again",
            ) from None  # fmt: skip


def abort(session: S3Session, name: str, storage_id: str) -> None:
    """Give up an upload with its parts; one that is not there is no failure.

    Raises:
        StorageError: if the store fails.
    """
    try:
        session.call("abort_multipart_upload", "abandon", name, UploadId=storage_id)
    except NotFound:
        return


def under_way(session: S3Session, prefix: str) -> Iterator[tuple[str, str, datetime]]:
    """Name, id and start of every upload below ``prefix`` that is neither finished nor abandoned.

    Raises:
        StorageError: if the store fails.
    """
    following: dict[str, object] = {}
    while True:
        page = session.call(
            "list_multipart_uploads", "list the uploads in", "", Prefix=session.config.prefix + prefix, **following
        )
        for item in page.get("Uploads", ()):
            yield item["Key"].removeprefix(session.config.prefix), item["UploadId"], item["Initiated"]
        markers = {
            "KeyMarker": page.get("NextKeyMarker") or "",
            "UploadIdMarker": page.get("NextUploadIdMarker") or "",
        }
        if not page.get("IsTruncated") or markers == following or not markers["KeyMarker"]:
            return
        following = {name: value for name, value in markers.items() if value}


def _part(item: dict[str, Any], name: str) -> tuple[int, StoredPart]:
    number, size, etag = item.get("PartNumber"), item.get("Size"), item.get("ETag")
    if (
        type(number) is not int or not 1 <= number <= limits.PARTS
        or type(size) is not int or size < 0
        or not isinstance(etag, str) or not 0 < len(etag) <= _ETAG_CHARS
    ):  # fmt: skip
        raise StorageError(f"the object store lists a part of {name} that cannot be", found=f"part {number!r}"[:80])
    sha256 = item.get("ChecksumSHA256")
    return number - 1, StoredPart(size, etag, sha256 if isinstance(sha256, str) else None)


def _completed(number: int, part: StoredPart) -> dict[str, object]:
    # Where the store keeps checksums of parts, AWS wants to be told them again.
    checksum = {} if part.sha256 is None else {"ChecksumSHA256": part.sha256}
    return {"PartNumber": number + 1, "ETag": part.etag, **checksum}
