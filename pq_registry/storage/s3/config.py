# SPDX-License-Identifier: Apache-2.0
"""Which bucket, at which endpoint, and how to speak to it. Credentials are not here: see ``s3.session``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from pq_registry.errors import SettingError
from pq_registry.settings import Settings

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_STORAGE_FORM = "s3://bucket[/prefix]; a bucket has 3 to 63 of a-z 0-9 . -, a prefix's parts have A-Z a-z 0-9 . _ -"
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,7}", re.ASCII)
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_KMS_KEY = re.compile(r"[A-Za-z0-9:/_-]{1,512}", re.ASCII)
_ADDRESSING = ("path", "virtual")
_USUAL_PORTS = {"http": ":80", "https": ":443"}
_RETENTION = ("governance", "compliance")
_MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """An object store as the settings describe it.

    ``prefix`` is empty or ends with a slash. ``endpoint`` is what the service asks, ``public_endpoint`` what presigned
    URLs name: the two differ where the service reaches the store by another name than its clients. ``encryption`` is
    None, ``AES256`` or ``aws:kms``, the latter with ``kms_key`` or the bucket's own. ``retention_days`` 0 sets no
    Object Lock retention on the blobs of a release. ``ca_file`` has the authorities for TLS instead of the system's.
    """

    bucket: str
    prefix: str
    endpoint: str
    public_endpoint: str
    region: str
    addressing: str
    encryption: str | None
    kms_key: str | None
    retention_days: int
    retention_mode: str
    ca_file: str | None = None

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``, as it is configured."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def public_origin(self) -> str:
        """The origin of presigned URLs."""
        scheme, _, host = self.public_endpoint.partition("://")
        return f"{scheme}://{self.bucket}.{host}" if self.addressing == "virtual" else self.public_endpoint

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Read the settings of the object store; None if weights are kept in a directory.

        Raises:
            SettingError: if one is missing or wrong.
        """
        storage = settings.get("storage")
        if storage is None:
            return None
        bucket, prefix = parse_storage(storage)
        endpoint = parse_endpoint("s3_endpoint", settings.require("s3_endpoint"))
        public = settings.get("s3_public_endpoint")
        region = settings.require("s3_region")
        encryption, kms_key = _encryption(settings.get("s3_encryption"))
        if not _REGION.fullmatch(region):
            raise SettingError("setting s3_region is wrong", expected="a region, e.g. eu-central-1", found=repr(region))
        return cls(
            bucket=bucket,
            prefix=prefix,
            endpoint=endpoint,
            public_endpoint=endpoint if public is None else parse_endpoint("s3_public_endpoint", public),
            region=region,
            addressing=_one_of(settings, "s3_addressing", _ADDRESSING),
            encryption=encryption,
            kms_key=kms_key,
            retention_days=settings.integer("s3_retention_days", minimum=0, maximum=_MOST_DAYS),
            retention_mode=_one_of(settings, "s3_retention_mode", _RETENTION),
            ca_file=settings.get("tls_ca"),
        )


def parse_storage(text: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://bucket[/prefix]``; the prefix is empty or ends with a slash.

    Raises:
        SettingError: if ``text`` is not of that form.
    """
    scheme, separator, rest = text.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if scheme != "s3" or not separator or not _BUCKET.fullmatch(bucket) or (prefix and not _PREFIX.fullmatch(prefix)):
        raise SettingError("setting storage is wrong", expected=_STORAGE_FORM, found=repr(text)[:99])
    return bucket, f"{prefix}/" if prefix else ""


def parse_endpoint(name: str, text: str) -> str:
    """An endpoint's URL without a path, without the slash at its end, and without the port its scheme has anyway.

    Signatures cover the name of the host as clients send it, which is without such a port. The message does not quote
    the URL.

    Raises:
        SettingError: if it is not an http or https URL of host and port only.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    bare = not (parts.path.rstrip("/") or parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or not bare or port == 0:
        raise SettingError(
            f"setting {name} is wrong", expected="https://host[:port], without path, user and query",
            found=f"a URL of scheme {parts.scheme or '?'} and host {parts.hostname or '?'}",
        )  # fmt: skip
    host = parts.netloc.lower()
    return f"{parts.scheme}://{host.removesuffix(_USUAL_PORTS[parts.scheme])}"


def _encryption(text: str | None) -> tuple[str | None, str | None]:
    if text is None or text == "none":
        return None, None
    kind, _, key = text.partition("=")
    if kind == "AES256" and not key:
        return kind, None
    if kind == "aws:kms" and (not key or _KMS_KEY.fullmatch(key)):
        return kind, key or None
    raise SettingError("setting s3_encryption is wrong", expected="none, AES256, aws:kms[=KEY]", found=kind[:40])


def _one_of(settings: Settings, name: str, allowed: tuple[str, ...]) -> str:
    value = settings.require(name)
    if value not in allowed:
        raise SettingError(f"setting {name} is wrong", expected=" or ".join(allowed), found=repr(value)[:40])
    return value
