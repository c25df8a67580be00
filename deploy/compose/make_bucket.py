# SPDX-License-Identifier: Apache-2.0
"""Makes the bucket of a registry, once the object store answers; does nothing if it is there.

Also sets the one lifecycle rule that is wanted: parts of uploads that nobody finished are dropped after a week. The
service abandons them itself; this is for those it never heard of.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import boto3
import botocore.config
import botocore.exceptions

PATIENCE_SECONDS = 120


def main() -> int:
    """Make it; 0 if it is there in the end."""
    bucket = os.environ["STORAGE"].removeprefix("s3://").partition("/")[0]
    client = boto3.client(
        "s3",
        endpoint_url=os.environ["S3_ENDPOINT"],
        region_name=os.environ["S3_REGION"],
        config=botocore.config.Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=5,
            read_timeout=30,
            retries={"total_max_attempts": 1},
        ),
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            made = _ensure(client, bucket)
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            if time.monotonic() > deadline:
                print(f"no bucket {bucket}: {error}", file=sys.stderr)
                return 1
            time.sleep(1)
        else:
            print(f"bucket {bucket}: {'made' if made else 'there'}")
            return 0


def _ensure(client: Any, bucket: str) -> bool:
    names = {found["Name"] for found in client.list_buckets()["Buckets"]}
    if bucket not in names:
        client.create_bucket(Bucket=bucket)
    rule = {
        "ID": "unfinished-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    return bucket not in names


if __name__ == "__main__":
    sys.exit(main())
