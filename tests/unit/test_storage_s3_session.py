# SPDX-License-Identifier: Apache-2.0
"""Credentials and signatures of the object store: where they come from, and that they are those of the standard."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

from pq_registry import limits
from pq_registry.errors import SettingError
from pq_registry.settings import Settings
from pq_registry.storage.s3.config import S3Config
from pq_registry.storage.s3.presign import Signer
from pq_registry.storage.s3.session import S3Session

AT = datetime(2013, 5, 24, tzinfo=UTC)
EXAMPLE = Signer(
    access_key="AKIAIOSFODNN7EXAMPLE",
    secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    token=None,
    region="us-east-1",
)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)


def config(**changes: str) -> S3Config:
    settings = {"storage": "s3://bucket/some/prefix", "s3_endpoint": "https://s3.example.org", **changes}
    found = S3Config.from_settings(Settings(settings, environment={}))
    assert found is not None
    return found


@pytest.mark.parametrize("storage", ["s3://x", "s3://Models", "s3://models/a b", "models"])
def test_a_wrong_storage_says_what_a_name_may_have(storage: str) -> None:
    with pytest.raises(SettingError) as raised:
        config(storage=storage)
    assert "3 to 63" in str(raised.value.expected)


def test_the_example_of_the_specification() -> None:
    url = EXAMPLE.presign(
        "GET", "https://examplebucket.s3.amazonaws.com", "/test.txt", query={}, headers={}, at=AT, seconds=86400
    )
    signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert dict(parse_qsl(urlsplit(url).query))["X-Amz-Signature"] == signature


@pytest.mark.parametrize("token", [None, "session/token+with=signs"])
@pytest.mark.parametrize("headers", [{}, {"x-amz-checksum-sha256": "2PLU4qbX+/=", "content-length": "72"}])
def test_another_signer_signs_the_same(
    monkeypatch: pytest.MonkeyPatch, token: str | None, headers: dict[str, str]
) -> None:
    query = {"partNumber": "7", "uploadId": "a b+c/d~e_f"}
    url = replace(EXAMPLE, token=token).presign(
        "PUT", "https://host.example:9000", "/bucket/p/sha256/aa", query=query, headers=headers, at=AT, seconds=900
    )
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: AT.replace(tzinfo=None))
    keys = botocore.credentials.Credentials(EXAMPLE.access_key, EXAMPLE.secret_key, token)
    other = botocore.awsrequest.AWSRequest(
        "PUT", "https://host.example:9000/bucket/p/sha256/aa", headers=headers, params=query
    )
    botocore.auth.S3SigV4QueryAuth(keys, "s3", "us-east-1", expires=900).add_auth(other)
    assert dict(parse_qsl(urlsplit(url).query)) == dict(parse_qsl(urlsplit(other.url).query))


def test_a_url_names_the_public_endpoint_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-store")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    session = S3Session(config(s3_public_endpoint="https://models.example.org"), clock=lambda: AT)
    signed = session.presign("GET", "sha256/x", now=now)
    parts = urlsplit(signed.url)
    assert (parts.netloc, parts.path) == ("models.example.org", "/bucket/some/prefix/sha256/x")
    query = dict(parse_qsl(parts.query))
    assert (query["X-Amz-Date"], query["X-Amz-Expires"]) == ("20130524T000000Z", str(limits.S3_URL_SECONDS))
    assert signed.expires == now + timedelta(seconds=limits.S3_URL_SECONDS)
    own = urlsplit(session.own_url("GET", "sha256/x"))
    assert own.netloc == "s3.example.org"
    assert int(dict(parse_qsl(own.query))["X-Amz-Expires"]) == limits.S3_OWN_URL_SECONDS
    assert signed.url not in repr(signed) and "secret-of-the-store" not in repr(vars(session)) + signed.url
    session.close()


def test_a_bucket_may_be_part_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    session = S3Session(config(s3_addressing="virtual"))
    url = session.presign("GET", "k", now=AT).url
    assert url.startswith("https://bucket.s3.example.org/some/prefix/k?")
    assert session.config.public_origin == "https://bucket.s3.example.org"
    session.close()


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("https://s3.example.org:443", "s3.example.org"),
        ("https://S3.Example.ORG/", "s3.example.org"),
        ("https://s3.example.org:80", "s3.example.org:80"),
        ("http://[::1]:80", "[::1]"),
        ("http://[2001:db8::80]", "[2001:db8::80]"),
    ],
)
def test_the_host_is_signed_as_clients_send_it(written: str, host: str) -> None:
    assert urlsplit(config(s3_endpoint=written).endpoint).netloc == host


@pytest.mark.parametrize(
    "written",
    ["s3.example.org", "ftp://s3.example.org", "https://a:b@s3.example.org", "https://s3.example.org/bucket", "https://",
     "https://s3.example.org?x", "https://s3.example.org:0", "https://s3.example.org:99999", "https://user@s3.example.org"],
)  # fmt: skip
def test_an_endpoint_is_a_bare_origin(written: str) -> None:
    with pytest.raises(SettingError) as refused:
        config(s3_endpoint=written)
    assert "a:b" not in str(refused.value)


def test_credentials_from_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(
        "[default]\naws_access_key_id = one\naws_secret_access_key = s\n"
        "[registry]\naws_access_key_id = two\naws_secret_access_key = s\naws_session_token = t\n"
        "endpoint_url = http://127.0.0.1:1\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    for profile, key in ((None, "one"), ("registry", "two")):
        if profile:
            monkeypatch.setenv("AWS_PROFILE", profile)
        session = S3Session(config())
        assert f"Credential={key}%2F" in session.presign("GET", "k", now=AT).url
        assert session._client.meta.endpoint_url == "https://s3.example.org"
        session.close()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingError, match="no credentials"):
        S3Session(config())


def test_half_of_the_credentials_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id-that-is-alone")
    with pytest.raises(SettingError, match="cannot be read") as refused:
        S3Session(config())
    assert "id-that-is-alone" not in str(refused.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SettingError, match="no credentials"):
        S3Session(config())


def test_no_library_that_chooses_hosts_of_its_own_is_loaded() -> None:
    code = (
        "import sys, pq_registry.storage.s3.blobs, pq_registry.storage.s3.tiles, pq_registry.storage.s3.probe\n"
        "print(sorted({'s3transfer', 'boto3', 'requests', 'aiobotocore'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_the_client_is_the_portable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for name, value in (
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported"),
        ("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_supported"),
        ("AWS_MAX_ATTEMPTS", "99"),
        ("AWS_RETRY_MODE", "legacy"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ("AWS_REGION", "us-west-2"),
        ("AWS_DEFAULT_REGION", "us-west-2"),
        ("AWS_CA_BUNDLE", "/nowhere"),
    ):
        monkeypatch.setenv(name, value)
    session = S3Session(config())
    found = session._client.meta.config
    assert found.request_checksum_calculation == found.response_checksum_validation == "when_required"
    assert (found.signature_version, found.region_name, found.s3["addressing_style"]) == (
        "s3v4",
        "eu-central-1",
        "path",
    )
    assert (found.retries["mode"], found.retries["total_max_attempts"]) == ("standard", limits.S3_ATTEMPTS)
    assert (found.connect_timeout, found.read_timeout) == (limits.S3_CONNECT_SECONDS, limits.S3_SILENCE_SECONDS)
    assert found.proxies == {}
    session.close()
