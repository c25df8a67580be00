# SPDX-License-Identifier: Apache-2.0
"""Contenders for push and pull through an object store: what everybody uses, on the same files.

``upload-boto3 BUCKET DIR``, ``download-boto3 BUCKET DIR``, ``upload-obstore …``, ``download-obstore …``,
``presign BUCKET NAME...``.

The endpoint comes from BENCH_S3_ENDPOINT, credentials from the AWS variables. Downloads end with an fsync of
every file, like ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

REGION = "eu-central-1"


def client() -> Any:
    """boto3 as it should be used with any provider: SigV4, path style, no checksums nobody asked for."""
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4", s3={"addressing_style": "path"},
        request_checksum_calculation="when_required", response_checksum_validation="when_required",
    )  # fmt: skip
    return boto3.client("s3", region_name=REGION, endpoint_url=os.environ["BENCH_S3_ENDPOINT"], config=config)


def _store(bucket: str) -> Any:
    from obstore.store import S3Store

    return S3Store(
        bucket, region=REGION, endpoint=os.environ["BENCH_S3_ENDPOINT"], virtual_hosted_style_request=False,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"], secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True, "timeout": "600s"},
    )  # fmt: skip


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def upload_boto3(bucket: str, directory: Path) -> None:
    """upload_file, one file after another, each in parts by ten threads (its defaults)."""
    from boto3.s3.transfer import TransferConfig

    s3, transfer = client(), TransferConfig(preferred_transfer_client="classic")
    s3.create_bucket(Bucket=bucket)
    for path in _files(directory):
        s3.upload_file(str(path), bucket, path.relative_to(directory).as_posix(), Config=transfer)


def download_boto3(bucket: str, directory: Path) -> None:
    """download_file, likewise."""
    from boto3.s3.transfer import TransferConfig

    s3, transfer = client(), TransferConfig(preferred_transfer_client="classic")
    for item in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        target = directory / item["Key"]
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, item["Key"], str(target), Config=transfer)
        _sync(target)


def upload_obstore(bucket: str, directory: Path) -> None:
    """Put of each file, in parts, twelve at a time (its defaults)."""
    import obstore

    client().create_bucket(Bucket=bucket)
    store = _store(bucket)
    for path in _files(directory):
        obstore.put(store, path.relative_to(directory).as_posix(), path)


def download_obstore(bucket: str, directory: Path) -> None:
    """Get of each object as a stream into a file."""
    import obstore

    store = _store(bucket)
    for batch in obstore.list(store):
        for item in batch:
            target = directory / item["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for chunk in obstore.get(store, item["path"]).stream(min_chunk_size=10 << 20):
                    file.write(chunk)
            _sync(target)


def presign(bucket: str, names: list[str]) -> None:
    """A URL for each object, a line each."""
    s3 = client()
    for name in names:
        print(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": name}, ExpiresIn=36_000))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    action, bucket, *rest = sys.argv[1:]
    if action == "presign":
        presign(bucket, rest)
    else:
        {
            "upload-boto3": upload_boto3,
            "download-boto3": download_boto3,
            "upload-obstore": upload_obstore,
            "download-obstore": download_obstore,
        }[action](bucket, Path(rest[0]))
