# SPDX-License-Identifier: Apache-2.0
"""Blobs and the log's files in any S3-compatible object store, spoken to by boto3 with portable settings only."""
