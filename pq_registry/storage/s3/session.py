# SPDX-License-Identifier: Apache-2.0
"""The connection to one bucket: the only place where an S3 client is made.

The client speaks to the configured endpoint and to nothing else, whatever the environment and ``~/.aws`` say: no other
endpoint, no proxy, no region or host a provider redirects to, no metadata service, and no transfer library that would
choose a host of its own (botocore's plain requests are used throughout, never the CRT client). Credentials come from
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``, or from a profile of the shared credentials
file; no credentials are fetched over a network.

Portable everywhere: Signature Version 4, an explicit region, checksums only where S3 requires one.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import urllib3

from pq_registry import limits
from pq_registry.errors import SettingError, UsageError
from pq_registry.format.instant import utc_now
from pq_registry.storage.blobs import SignedRequest
from pq_registry.storage.s3.config import S3Config

try:
    import botocore.credentials
    import botocore.exceptions
    import botocore.session
    from botocore.config import Config
except ImportError:
    raise UsageError(
        "the object store's client is not installed", found="no botocore", hint="pip install 'pq-registry[s3]'"
    ) from None

from pq_registry.storage.s3.answers import reported
from pq_registry.storage.s3.presign import Signer

if TYPE_CHECKING:
    from pq_registry.storage.s3.probe import Capabilities

# Nothing of ~/.aws/config or a profile counts: it could name endpoints, proxies and retry modes.
_NO_FILES = {
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
    "profile": (None, None, None, None),
}


class S3Session:
    """Requests to one bucket. May be used from several threads."""

    def __init__(self, config: S3Config, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Find credentials and make the client; nothing is sent yet.

        Args:
            config: bucket and endpoint.
            clock: the real time: the store judges signatures by its own clock, whatever time a test believes in.

        Raises:
            SettingError: if there are no credentials.
        """
        self.config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._capabilities: Capabilities | None = None
        # At this level botocore writes what it signs, and with which result.
        for name in ("botocore", "urllib3"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._signer = _signer(config.region)
        session = botocore.session.Session(session_vars=_NO_FILES)
        session.set_credentials(self._signer.access_key, self._signer.secret_key, self._signer.token)
        self._client = session.create_client(
            "s3",
            region_name=config.region,
            endpoint_url=config.endpoint,
            use_ssl=config.endpoint.startswith("https:"),
            verify=authorities(config) or True,
            config=_client_config(config),
        )
        self.http = urllib3.PoolManager(
            maxsize=limits.S3_CONNECTIONS,
            timeout=urllib3.Timeout(connect=limits.S3_CONNECT_SECONDS, read=limits.S3_SILENCE_SECONDS),
            retries=False,
            ca_certs=authorities(config),
        )
        """For presigned requests the service makes itself, at its own endpoint; without proxies and redirects."""
        # botocore would follow a bucket to another region's host; it does so once, and believes that it has.
        self._client.meta.events.register("before-call.s3", _no_redirect)

    def call(self, operation: str, action: str, name: str, /, **parameters: object) -> dict[str, Any]:
        """One request about the object ``name``, which is below the prefix.

        Args:
            operation: botocore's name of the method, e.g. ``put_object``.
            action: what it does, for messages.
            name: the object, without the prefix; the empty name is the bucket.
            parameters: as botocore takes them, without Bucket and Key.

        Raises:
            NotFound: if the store says that there is no such object or upload.
            StorageError: if it fails or refuses.
        """
        with reported(action, name or "the bucket"):
            return self.attempt(operation, name, **parameters)

    def attempt(self, operation: str, name: str, /, **parameters: object) -> dict[str, Any]:
        """The same, for whoever understands botocore's own errors.

        Raises:
            ClientError: the store's refusal.
            BotoCoreError: no answer.
        """
        if name:
            parameters["Key"] = self.config.prefix + name
        answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.config.bucket, **parameters)
        return answer

    def names(self, prefix: str, *, operation: str = "list_objects_v2") -> Iterator[dict[str, Any]]:
        """Every object below ``prefix``, page by page as the store lists them; ``Key`` is without our prefix.

        Raises:
            StorageError: if the store fails.
        """
        following: dict[str, object] = {}
        while True:
            page = self.call(operation, "list", "", Prefix=self.config.prefix + prefix, **following)
            for item in page.get("Contents", ()):
                yield {**item, "Key": item["Key"].removeprefix(self.config.prefix)}
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return
            following = {"ContinuationToken": token}

    def presign(
        self,
        method: str,
        name: str,
        *,
        now: datetime,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        internal: bool = False,
    ) -> SignedRequest:
        """A request about an object that whoever holds it may make for ``limits.S3_URL_SECONDS``.

        Args:
            method: GET or PUT.
            name: the object, without the prefix.
            now: the registry's time, in which ``expires`` is given.
            query: of the URL, e.g. the number of a part.
            headers: in lower case; they must be sent exactly so.
            internal: whether the service itself will make it, at its own endpoint.
        """
        endpoint = self.config.endpoint if internal else self.config.public_endpoint
        url = self._url(endpoint, method, name, query or {}, headers or {}, limits.S3_URL_SECONDS)
        return SignedRequest(url, dict(headers or {}), now + timedelta(seconds=limits.S3_URL_SECONDS))

    def own_url(self, method: str, name: str) -> str:
        """The URL of a request the service makes at once."""
        return self._url(self.config.endpoint, method, name, {}, {}, limits.S3_OWN_URL_SECONDS)

    def _url(
        self, endpoint: str, method: str, name: str, query: Mapping[str, str], headers: Mapping[str, str], seconds: int
    ) -> str:
        scheme, _, host = endpoint.partition("://")
        key = self.config.prefix + name
        virtual = self.config.addressing == "virtual"
        return self._signer.presign(
            method,
            f"{scheme}://{self.config.bucket}.{host}" if virtual else endpoint,
            f"/{key}" if virtual else f"/{self.config.bucket}/{key}",
            query=query,
            headers=headers,
            at=self._clock(),
            seconds=seconds,
        )

    @property
    def now(self) -> datetime:
        """The real time."""
        return self._clock()

    @property
    def capabilities(self) -> Capabilities:
        """What the provider really supports; found out at the first need.

        Raises:
            StorageError: if the provider cannot be asked.
        """
        from pq_registry.storage.s3.probe import capabilities

        with self._lock:
            if self._capabilities is None:
                self._capabilities = capabilities(self)
            return self._capabilities

    @property
    def encryption(self) -> dict[str, str]:
        """The parameters of a new object that ask for encryption at rest."""
        kind, key = self.config.encryption, self.config.kms_key
        return ({"ServerSideEncryption": kind} if kind else {}) | ({"SSEKMSKeyId": key} if key else {})

    @property
    def blob_options(self) -> dict[str, str]:
        """The parameters of every blob: whatever its bytes are, a browser saves them and shows nothing."""
        return {"ContentType": "application/octet-stream", "ContentDisposition": "attachment", **self.encryption}

    def body(self, data: bytes) -> dict[str, object]:
        """The parameters of a body, with the one checksum that every provider compares with what arrives.

        The signature covers a SHA-256 of the body, but not all of them look at it.
        """
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return {"Body": data, "ContentMD5": base64.b64encode(md5).decode()}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self.http.clear()


def authorities(config: S3Config) -> str | None:
    """The file of the certificate authorities to accept: the configured ones, else the system's."""
    return config.ca_file or ssl.get_default_verify_paths().cafile


def _signer(region: str) -> Signer:
    """The credentials, from the environment or else from the shared credentials file."""
    session = botocore.session.Session()
    path, profile = session.get_config_variable("credentials_file"), session.profile
    try:
        found = (
            botocore.credentials.EnvProvider().load()
            or botocore.credentials.SharedCredentialProvider(path, profile).load()
        )
    except (botocore.exceptions.BotoCoreError, OSError, ValueError) as error:
        raise SettingError(
            "the credentials of the object store cannot be read", found=type(error).__name__,
            hint="set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or both in the shared credentials file",
        ) from None  # fmt: skip
    if found is None:
        raise SettingError(
            "no credentials of the object store",
            expected="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile of AWS_SHARED_CREDENTIALS_FILE",
            hint="docs/operations/storage.md says what they must allow",
        )
    frozen = found.get_frozen_credentials()
    return Signer(access_key=frozen.access_key, secret_key=frozen.secret_key, token=frozen.token, region=region)


def _client_config(config: S3Config) -> Config:
    return Config(
        signature_version="s3v4",
        connect_timeout=limits.S3_CONNECT_SECONDS,
        read_timeout=limits.S3_SILENCE_SECONDS,
        max_pool_connections=limits.S3_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": limits.S3_ATTEMPTS},
        proxies={},
        s3={"addressing_style": config.addressing},
        s3_disable_express_session_auth=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        ignore_configured_endpoint_urls=True,
        use_dualstack_endpoint=False,
        use_fips_endpoint=False,
        defaults_mode="legacy",
        tcp_keepalive=True,
        user_agent="pq-registry",
    )


def _no_redirect(params: dict[str, Any], **_: object) -> None:
    params["context"].setdefault("s3_redirect", {})["redirected"] = True
