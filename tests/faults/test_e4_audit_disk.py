# SPDX-License-Identifier: Apache-2.0
"""E4 for the audit's state: a full disk is said to be one, nothing is half recorded, and with room it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pq_registry.client.audit.index import AuditIndex
from pq_registry.errors import StorageError
from tests.auditing import AuditSite


def test_e4_a_full_disk_is_said_and_the_audit_continues_with_room(tmp_path: Path) -> None:
    site = AuditSite()
    for number in range(200):
        site.log.append_raw(b"%d" % number * 50)
    site.tag(site.release())
    with AuditIndex(tmp_path) as index:
        pages = index.value("PRAGMA page_count")
        next(index.rows(f"PRAGMA max_page_count = {pages + 1}"))
        with pytest.raises(StorageError) as caught:
            site.audit(index)
        assert "full" in str(caught.value.found)
        assert "room" in str(caught.value.hint)
        followed = index.load()
        recorded = index.value("SELECT count(*) FROM leaves")
        assert recorded == (0 if followed is None else followed.size)
        next(index.rows(f"PRAGMA max_page_count = {pages + 1000}"))
        assert site.audit(index).checkpoint.size == 202
        assert index.value("SELECT count(*) FROM leaves") == 202
