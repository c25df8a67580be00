# SPDX-License-Identifier: Apache-2.0
"""``pqreg serve --check`` with an object store: what it can do is tried and shown; the status says if it suffices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pq_registry.errors import SettingError
from pq_registry.format.instant import utc_now
from pq_registry.service.registry import Registry
from pq_registry.settings import Settings
from pq_registry.storage.stores import StoreConfig
from pqreg_cli.main import run
from tests.engines import Bucket
from tests.faultproxy import Answer, FaultProxy
from tests.logsetup import log_setup


def words(bucket: Bucket, data: Path, *more: str, endpoint: str | None = None) -> list[str]:
    where = ["--storage", bucket.url, "--s3-endpoint", endpoint or bucket.server.endpoint]
    return ["serve", "--data", str(data), *where, "--check", *more]


def test_what_the_store_can_do_is_shown(s3_bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words(s3_bucket, tmp_path / "data")) == 0
    shown = capsys.readouterr()
    rows = {line[:34].strip(): line[34:].split() for line in shown.out.splitlines()}
    assert rows["presigned parts"][:2] == ["yes", "yes"] and rows["Object Lock"] == ["no", "no"]
    assert run(words(s3_bucket, tmp_path / "data", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["storage"], told["s3_endpoint"]) == (s3_bucket.url, s3_bucket.server.endpoint)
    assert {each["name"] for each in told["object_store"] if each["required"]} <= {
        each["name"] for each in told["object_store"] if each["works"]
    }
    secret = s3_bucket.server.credentials.secret_key
    assert secret not in shown.out + shown.err + json.dumps(told)
    assert not (tmp_path / "data").exists(), "a check makes nothing"
    assert s3_bucket.keys() == []


def test_a_store_that_lacks_what_is_needed(
    s3_bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PQREG_S3_RETENTION_DAYS", "30")
    assert run(words(s3_bucket, tmp_path / "data")) == 1
    assert "cannot run on this object store without: Object Lock" in capsys.readouterr().err
    settings = Settings({"data": str(tmp_path / "data"), **s3_bucket.settings})
    with pytest.raises(SettingError, match="no Object Lock"):
        Registry.open(StoreConfig.from_settings(settings), utc_now, log=log_setup())


def test_a_store_without_multipart_uploads(
    s3_bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultProxy(s3_bucket.server.endpoint) as proxy:
        proxy.inject(Answer(501, "NotImplemented"), method="POST", times=1000)
        assert run(words(s3_bucket, tmp_path / "data", endpoint=proxy.url)) == 1
    assert "without: presigned parts" in capsys.readouterr().err


def test_a_store_that_refuses(
    s3_bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-of-this-store")
    assert run(words(s3_bucket, tmp_path / "data")) == 3
    said = capsys.readouterr().err
    assert "SignatureDoesNotMatch" in said and "credentials" in said and "not-the-secret" not in said
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert run(words(s3_bucket, tmp_path / "data")) == 2
    assert "AWS_SECRET_ACCESS_KEY" in capsys.readouterr().err


def test_without_the_client_library_it_is_said_what_to_install() -> None:
    code = (
        "import sys\n"
        "for name in ('botocore', 'boto3', 'botocore.session', 'botocore.credentials'): sys.modules[name] = None\n"
        "from pqreg_cli.main import run\n"
        "sys.exit(run(['serve', '--data', 'd', '--storage', 's3://bucket', '--s3-endpoint', 'http://127.0.0.1:1', "
        "'--check']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "pip install 'pq-registry[s3]'" in done.stderr, done.stderr
