# SPDX-License-Identifier: Apache-2.0
"""What ``pqreg serve --check`` says about the stores: where things are kept, and what the object store really does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pqreg_cli.console import Output

if TYPE_CHECKING:
    from pq_registry.storage.s3.config import S3Config
    from pq_registry.storage.s3.probe import Finding
    from pq_registry.storage.stores import StoreConfig

Check = dict[str, str | bool | None]


def store_facts(config: StoreConfig) -> dict[str, str | None]:
    """Where a registry keeps things, without passwords and keys."""
    kept = {"catalogue": config.database_kind, "storage": "directory" if config.s3 is None else config.s3.url}
    return kept | ({} if config.s3 is None else _object_store(config.s3))


def check_store(config: StoreConfig) -> list[Check]:
    """Try what the object store supports; nothing to try in a directory.

    Raises:
        SettingError: if there are no credentials.
        StorageError: if the store does not answer, or refuses.
    """
    if config.s3 is None:
        return []
    from contextlib import closing

    from pq_registry.storage.s3.probe import probe
    from pq_registry.storage.s3.session import S3Session

    with closing(S3Session(config.s3)) as session:
        _, findings = probe(session)
    return [_check(finding) for finding in findings]


def show_checks(checks: list[Check], output: Output) -> bool:
    """Print what was tried; answers whether a registry can run on it."""
    output.table(
        ("object store", "works", "needed", "seen"),
        [
            (check["name"], _yes(check["works"]), "yes" if check["required"] else "no", check["detail"] or "")
            for check in checks
        ],
    )
    lacking = [str(check["name"]) for check in checks if check["required"] and check["works"] is False]
    if lacking:
        output.warning(f"a registry cannot run on this object store without: {', '.join(lacking)}")
    return not lacking


def _object_store(config: S3Config) -> dict[str, str | None]:
    held = f"{config.retention_days} days, {config.retention_mode}" if config.retention_days else None
    return {
        "s3_endpoint": config.endpoint,
        "s3_public_endpoint": config.public_endpoint,
        "s3_region": config.region,
        "s3_addressing": config.addressing,
        "s3_encryption": config.encryption or "none",
        "s3_retention": held,
    }


def _check(finding: Finding) -> Check:
    return {
        "name": finding.name,
        "works": finding.works,
        "required": finding.required,
        "detail": finding.detail or None,
    }


def _yes(works: str | bool | None) -> str:
    return "unknown" if works is None else "yes" if works else "no"
