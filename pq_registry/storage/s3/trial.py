# SPDX-License-Identifier: Apache-2.0
"""Single experiments with a provider, on objects of their own below ``PREFIX/probe/``, removed at the end.

Nothing here asks ``S3Session.capabilities``: these experiments are where the answers come from.
"""

from __future__ import annotations

import contextlib
import secrets
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from pq_registry.errors import NotFound, PqregError, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import SignedRequest
from pq_registry.storage.s3 import parts
from pq_registry.storage.s3.answers import status_of
from pq_registry.storage.s3.holding import versions_of
from pq_registry.storage.s3.reading import S3Stream
from pq_registry.storage.s3.session import S3Session

PREFIX = "probe/"
_SAMPLE = b"pqreg tries what this object store supports; this object may be removed\n"
_OTHER = _SAMPLE.upper()
_REFUSED = frozenset({409, 412})
_ANSWER_BYTES = 1024

Outcome = tuple[bool | None, bool, str]
"""Whether it works (None: not known), whether it is required, and what was seen."""


class Trial:
    """The experiments, and what they left to be removed."""

    def __init__(self, session: S3Session) -> None:
        self._session = session
        self._name = f"{PREFIX}{secrets.token_hex(16)}"
        self._objects: dict[str, list[str | None]] = {}
        self._uploads: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        """Nothing is needed before the first experiment."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is left; where the provider does not let us, it stays, and says in its content what it is."""
        for name, storage_id in self._uploads:
            with contextlib.suppress(ClientError, BotoCoreError):
                self._session.attempt("abort_multipart_upload", name, UploadId=storage_id)
        versioned = any(version is not None for kept in self._objects.values() for version in kept)
        for name, kept in self._objects.items():
            found = kept
            if versioned:
                with contextlib.suppress(PqregError):
                    found = versions_of(self._session, name)
            for version in found:
                with contextlib.suppress(ClientError, BotoCoreError):
                    self._session.attempt("delete_object", name, **({} if version is None else {"VersionId": version}))

    def write(self) -> float:
        """Write an object; answers by how many seconds the store's clock is ahead of ours.

        Raises:
            StorageError: if that is not possible.
        """
        before = self._session.now
        answer = self._session.call("put_object", "write", self._name, **self._body(_SAMPLE))
        self._keep(self._name, answer)
        told = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
        try:
            return (parsedate_to_datetime(told) - before).total_seconds()
        except (TypeError, ValueError):
            return 0.0

    def listed(self) -> Outcome:
        """Whether an object is listed as soon as it is written."""
        there = any(item["Key"] == self._name for item in self._session.names(PREFIX))
        return there, True, "" if there else "an object just written was not listed"

    def ranges(self) -> Outcome:
        """Whether a range is answered exactly."""
        try:
            head = self._session.call("head_object", "look at", self._name)
            stream = S3Stream(
                self._session, self._name, first=3, end=9, size=len(_SAMPLE), etag=str(head.get("ETag", ""))
            )
            data = stream.read(6)
            stream.close()
        except (StorageError, NotFound) as error:
            return False, True, str(error)
        return data in (_SAMPLE[3:9], _OTHER[3:9]), True, ""

    def conditional_put(self) -> bool:
        """Whether If-None-Match lets a new object be written, and keeps one that is there."""
        other = f"{self._name}-new"
        return self._accepted(other, IfNoneMatch="*") and self._refused(self._name, IfNoneMatch="*")

    def conditional_replace(self) -> bool:
        """Whether If-Match replaces what it names, and nothing else."""
        try:
            etag = self._session.attempt("head_object", self._name)["ETag"]
        except (ClientError, BotoCoreError, KeyError):
            return False
        wrong = '"' + "0" * 32 + '"'
        return self._refused(self._name, IfMatch=wrong) and self._accepted(self._name, IfMatch=etag)

    def bound_digest(self, *, declared: bool) -> bool:
        """Whether a presigned part with other bytes than its digest says is refused, and the right one is not.

        ``declared`` is whether the upload is begun with the kind of digest its parts will have: AWS wants that, and
        the parts' digests again at the end; others do not tell them and fail there, but need no declaration.
        """
        name = f"{self._name}-{'declared' if declared else 'digests'}"
        storage_id = self._begin(name, **({"ChecksumAlgorithm": "SHA256"} if declared else {}))
        if storage_id is None:
            return False
        request = self._part(name, storage_id, digest=True)
        if self._put(request, _OTHER) == 200 or self._put(request, _SAMPLE) != 200:
            return False
        self._keep(name, {})
        try:
            parts.finish(self._session, name, storage_id, parts.held(self._session, name, storage_id))
        except (StorageError, NotFound):
            return False
        return True

    def bound_length(self) -> bool:
        """Whether a presigned part that is longer than announced is refused, and the right one is not."""
        name = f"{self._name}-parts"
        storage_id = self._begin(name)
        if storage_id is None:
            return False
        request = self._part(name, storage_id, length=True)
        return self._put(request, _SAMPLE + b"x") != 200 and self._put(request, _SAMPLE) == 200

    def conditional_completion(self) -> bool:
        """Whether an upload that is completed with If-None-Match keeps an object that is there."""
        storage_id = self._begin(self._name)
        if storage_id is None or self._put(self._part(self._name, storage_id), _OTHER) != 200:
            return False
        try:
            held = parts.held(self._session, self._name, storage_id)
            listed = [{"PartNumber": number + 1, "ETag": part.etag} for number, part in held.items()]
            answer = self._session.attempt(
                "complete_multipart_upload", self._name, UploadId=storage_id, IfNoneMatch="*",
                MultipartUpload={"Parts": listed},
            )  # fmt: skip
        except ClientError as error:
            return status_of(error) in _REFUSED
        except (BotoCoreError, StorageError, NotFound):
            return False
        self._keep(self._name, answer)
        return False

    def presigned_read(self) -> Outcome:
        """Whether a presigned GET of a range works at the endpoint clients are told."""
        request = self._session.presign("GET", self._name, now=self._session.now)
        answer = self._ask("GET", request.url, {"range": "bytes=3-8"})
        if answer is None:
            return self._out_of_reach()
        status, body = answer
        return status == 206 and body in (_SAMPLE[3:9], _OTHER[3:9]), True, f"HTTP {status}"

    def presigned_part(self) -> Outcome:
        """Whether a presigned part works at the endpoint clients are told."""
        storage_id = self._begin(f"{self._name}-parts")
        if storage_id is None:
            return False, True, "no multipart uploads"
        request = parts.bound(
            self._session, f"{self._name}-parts", storage_id, 0, sha256=None, length=None, now=self._session.now,
            internal=False,
        )  # fmt: skip
        status = self._put(request, _SAMPLE)
        return self._out_of_reach() if status is None else (status == 200, True, f"HTTP {status}")

    def closed(self) -> Outcome:
        """Whether the bucket refuses a read without a signature."""
        url = self._session.presign("GET", self._name, now=self._session.now, internal=True).url
        answer = self._ask("GET", url.partition("?")[0], {})
        if answer is None:
            return None, False, "not reached"
        return answer[0] not in (200, 206), False, f"HTTP {answer[0]}"

    def versioning(self) -> bool:
        """Whether the bucket keeps, or once kept, versions."""
        try:
            if self._session.attempt("get_bucket_versioning", "").get("Status") in ("Enabled", "Suspended"):
                return True
        except (ClientError, BotoCoreError):
            pass  # not allowed, or not known to the provider; what it answered to the writes tells as well
        return any(version not in (None, "null") for version in self._objects[self._name])

    def object_lock(self) -> bool:
        """Whether the bucket has Object Lock."""
        try:
            answer = self._session.attempt("get_object_lock_configuration", "")
        except (ClientError, BotoCoreError):
            return False
        return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def _body(self, data: bytes) -> dict[str, object]:
        return {"Body": data, **self._session.encryption}

    def _keep(self, name: str, answer: dict[str, Any]) -> None:
        self._objects.setdefault(name, []).append(answer.get("VersionId"))

    def _accepted(self, name: str, **condition: str) -> bool:
        try:
            self._keep(name, self._session.attempt("put_object", name, **self._body(_SAMPLE), **condition))
        except (ClientError, BotoCoreError):
            return False
        return True

    def _refused(self, name: str, **condition: str) -> bool:
        try:
            self._keep(name, self._session.attempt("put_object", name, **self._body(_OTHER), **condition))
        except ClientError as error:
            return status_of(error) in _REFUSED
        except BotoCoreError:
            return False
        return False

    def _begin(self, name: str, **extra: str) -> str | None:
        try:
            answer = self._session.attempt("create_multipart_upload", name, **self._session.encryption, **extra)
        except (ClientError, BotoCoreError):
            return None
        storage_id = str(answer["UploadId"])
        self._uploads.append((name, storage_id))
        return storage_id

    def _part(self, name: str, storage_id: str, *, digest: bool = False, length: bool = False) -> SignedRequest:
        return parts.bound(
            self._session, name, storage_id, 0, sha256=Digest.of(_SAMPLE) if digest else None,
            length=len(_SAMPLE) if length else None, now=self._session.now, internal=True,
        )  # fmt: skip

    def _put(self, request: SignedRequest, data: bytes) -> int | None:
        # The client library writes the length of what it sends, right or wrong.
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        answer = self._ask("PUT", request.url, headers, data)
        return None if answer is None else answer[0]

    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None = None
    ) -> tuple[int, bytes] | None:
        try:
            answer = self._session.http.request(
                method, url, headers=headers, body=body, redirect=False, retries=False, preload_content=False
            )
            data = answer.read(_ANSWER_BYTES)
            answer.close()
        except (urllib3.exceptions.HTTPError, OSError):
            return None
        return answer.status, data

    def _out_of_reach(self) -> Outcome:
        config = self._session.config
        if config.public_endpoint != config.endpoint:
            return None, True, "the public endpoint cannot be reached from here; try it from a client's network"
        return False, True, "no answer"
