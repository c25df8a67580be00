# SPDX-License-Identifier: Apache-2.0
"""D14: changes nobody recorded (TOB-PYPI26-4, -14). Each change writes exactly one event; nothing else writes any."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from inspect import getsource
from typing import Any

import pytest
from sqlalchemy import event, select

from pq_registry import limits
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.recipientfile import Kem
from pq_registry.server.guard import policies
from pq_registry.service import audit
from pq_registry.service.hub.changes import Changes
from pq_registry.service.hub.model import Branch
from pq_registry.service.tokens import host_caller
from pq_registry.storage.catalogue.tables import AuditEventRow
from tests.attacks.test_d01_routes_without_policy import example
from tests.revocations import put_status, status_statement
from tests.samples import REPOSITORY, YEAR, publisher, release, tag_statement
from tests.sealing_samples import seal
from tests.sealing_service import certificate, publish_sealed, put_grant, put_key
from tests.server_harness import Answer, RunningRegistry
from tests.stack import store_config


def events(registry: RunningRegistry) -> list[tuple[str, str, dict[str, Any]]]:
    with registry.registry.catalogue.reading() as session:
        rows = session.scalars(select(AuditEventRow).order_by(AuditEventRow.id)).all()
        return [(row.action, row.subject, json.loads(row.detail)) for row in rows]


class Recorder:
    """Says which events a request wrote."""

    def __init__(self, registry: RunningRegistry) -> None:
        self.registry = registry
        self.seen = len(events(registry))

    def __call__(self, answer: Answer | None = None) -> list[str]:
        found = events(self.registry)
        new, self.seen = found[self.seen :], len(found)
        return [action for action, _, _ in new]


def test_every_change_writes_one_event(registry: RunningRegistry) -> None:
    assert [action for action, _, _ in events(registry)] == ["token-created"]  # the first token
    new = Recorder(registry)
    made = registry.post("/v1/tokens", {"role": "reader", "namespaces": ["acme"], "expires_days": 1}).json
    assert new() == ["token-created"]
    registry.request("DELETE", f"/v1/tokens/{made['id']}")
    assert new() == ["token-revoked"]
    registry.request("DELETE", f"/v1/tokens/{made['id']}")
    assert new() == []
    registry.register(publisher())
    assert new() == ["identity-registered"]
    registry.register(publisher())
    assert new() == []

    envelope, manifest = release({"a.json": b"{}"})
    upload = registry.open_upload(b"{}").json["id"]
    assert new() == ["upload-opened"]
    registry.open_upload(b"{}")
    assert new() == []
    registry.put_part(upload, 0, b"{}")
    assert new() == []
    registry.complete(upload)
    assert new() == ["blob-stored"]
    registry.complete(upload)
    assert new() == []
    other = registry.open_upload(b"aborted").json["id"]
    registry.request("DELETE", f"/v1/repos/acme/minilm/uploads/{other}")
    assert new() == ["upload-opened", "upload-aborted"]
    wrong = registry.open_upload(b"right").json["id"]
    registry.put_part(wrong, 0, b"wrong")
    assert registry.complete(wrong).code == "file-digest-mismatch"
    assert new() == ["upload-opened", "upload-refused"]
    registry.upload(manifest)
    assert new() == ["upload-opened", "blob-stored"]

    digest = Digest.parse(registry.post_release(envelope).json["digest"])
    assert new() == ["release-committed"]
    registry.post_release(envelope)
    assert new() == []
    now = utc_now()
    first = sign_envelope(tag_statement(digest, issued=now, expires=now + YEAR).encode(), publisher())
    statement = tag_statement(digest)
    registry.put_envelope(first, statement.repository, statement.tag)
    assert new() == ["tag-set"]
    registry.put_envelope(first, statement.repository, statement.tag)
    assert new() == []
    registry.put_tag(None, sequence=2, previous=first.payload_digest)
    assert new() == ["tag-withdrawn"]

    sealed, node = seal({"a.json": b"{}"}), SecretRecipient.generate(Kem.MLKEM768_X25519)
    publish_sealed(registry, sealed)
    assert new() == ["upload-opened", "blob-stored"] * 3 + ["release-committed"]
    grant = sealed.grant(node, issued=now, expires=None)
    given = sign_envelope(grant.encode(), publisher())
    put_grant(registry, given, sealed.release, node.public.id)
    assert new() == ["grant-set"]
    put_grant(registry, given, sealed.release, node.public.id)
    assert new() == []
    away = replace(grant, sequence=2, previous=given.payload_digest, wrapped=None)
    put_grant(registry, away, sealed.release, node.public.id)
    assert new() == ["grant-withdrawn"]
    vouched = sign_envelope(certificate(node).encode(), publisher())
    put_key(registry, vouched, node.public.id)
    assert new() == ["key-certified"]
    put_key(registry, vouched, node.public.id)
    assert new() == []

    told = {"target": "hub.example.org/acme/minilm", "release": str(digest), "tag": "v1", "state": "mirrored"}
    registry.post("/v1/repos/acme/minilm/mirrors", told)
    assert new() == ["mirror-reported"]
    registry.post("/v1/repos/acme/minilm/mirrors", told)
    assert new() == []

    status = sign_envelope(status_statement().encode(), publisher())
    put_status(registry, status)
    assert new() == ["status-issued"]
    put_status(registry, status)
    assert new() == []

    registry.open_upload(b"forgotten")
    assert new() == ["upload-opened"]
    registry.clock.offset = timedelta(seconds=limits.UPLOAD_IDLE_SECONDS + 1)
    registry.registry.uploads.sweep(host_caller(), starting=False)
    assert new() == ["upload-expired"]


def test_every_change_of_a_draft_writes_one_event(registry: RunningRegistry) -> None:
    drafts, caller, content = registry.registry.drafts, host_caller(), b"{}"
    new = Recorder(registry)
    drafts.create(caller, REPOSITORY, exist_ok=True)
    assert new() == ["repository-created"]
    drafts.create(caller, REPOSITORY, exist_ok=True)
    assert new() == []
    registry.upload(content)
    assert new() == ["upload-opened", "blob-stored"]
    changes, main, dev = Changes(put={"a.json": (Digest.of(content), 2)}), Branch("main"), Branch("dev")
    head = drafts.commit(caller, REPOSITORY, main, changes, title="t", message="", parent=None)
    assert new() == ["draft-committed"]
    drafts.commit(caller, REPOSITORY, main, changes, title="t", message="", parent=None)
    assert new() == []
    drafts.branch(caller, REPOSITORY, dev, head)
    assert new() == ["draft-set"]
    drafts.squash(caller, REPOSITORY, main, title="s", message="")
    assert new() == ["draft-squashed"]
    assert registry.request("DELETE", f"/v1/repos/{REPOSITORY}/drafts/dev").status == 204
    assert new() == ["draft-dropped"]
    drafts.delete_repository(caller, REPOSITORY)
    assert new() == ["repository-removed"]


ON_THE_HOST = {
    audit.Action.EVENTS_PRUNED,
    audit.Action.BLOB_COLLECTED,
    audit.Action.REFERENCE_COLLECTED,
    audit.Action.BLOB_DAMAGED,
    audit.Action.BLOB_REPAIRED,
    audit.Action.LOG_MOVED,
    audit.Action.LOG_REPAIRED,
}
"""What only commands on the host do; the tests of `pqreg events`, `gc`, `fsck` and `restore` look for their events."""


def test_every_action_is_among_the_changes_above() -> None:
    source = getsource(test_every_change_writes_one_event) + getsource(test_every_change_of_a_draft_writes_one_event)
    assert all(f'"{action.value}"' in source for action in audit.Action if action not in ON_THE_HOST)


def test_reading_and_refusals_write_nothing(registry: RunningRegistry) -> None:
    digest = registry.publish()
    reader = registry.as_role("reader")
    new = Recorder(registry)
    for method, path in policies(registry.app):
        reader.request(method, example(path))
        registry.with_token(None).request(method, example(path))
        if method == "GET":
            registry.request(method, example(path).replace("0" * 64, digest.hex))
    registry.put_tag(digest, sequence=9, previous=digest)
    node = SecretRecipient.generate(Kem.MLKEM768_X25519)
    put_grant(registry, seal({"a.json": b"{}"}).grant(node, issued=utc_now()), digest, node.public.id)
    put_key(registry, sign_envelope(certificate(node).encode(), publisher("mallory")), node.public.id)
    assert new() == []


def test_events_say_who_and_where_and_hold_no_secrets(registry: RunningRegistry) -> None:
    token = registry.make_token("owner", "acme")
    owner = registry.with_token(token)
    answer = owner.register(publisher())
    with registry.registry.catalogue.reading() as session:
        row = session.scalars(select(AuditEventRow).order_by(AuditEventRow.id.desc())).first()
        assert row is not None
        tokens = [item["id"] for item in registry.get("/v1/tokens").json["items"] if item["role"] == "owner"]
        assert (row.subject, row.token_id, row.request_id) == ("acme", tokens[0], answer.headers["x-request-id"])
        everything = json.dumps([[r.subject, r.detail] for r in session.scalars(select(AuditEventRow))])
    assert token.removeprefix("pqreg_") not in everything


@pytest.mark.parametrize("failing", ["audit_events", "statements"])
def test_without_its_event_a_change_does_not_happen(registry: RunningRegistry, failing: str) -> None:
    digest = registry.publish()
    engine = registry.registry.catalogue._engine

    def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(f"INSERT INTO {failing}"):
            raise RuntimeError("injected")

    before = events(registry)
    event.listen(engine, "before_cursor_execute", fail)
    try:
        assert registry.put_tag(digest).status == 500
    finally:
        event.remove(engine, "before_cursor_execute", fail)
    assert events(registry) == before
    assert registry.get("/v1/repos/acme/minilm/tags/v1").code == "not-found"
    assert registry.put_tag(digest).status == 201


def test_the_host_is_recorded_too(registry: RunningRegistry) -> None:
    from pq_registry.service.host import open_tokens
    from pq_registry.service.tokens import rights_of

    make: Callable[[], object]
    with open_tokens(store_config(registry.data), registry.clock) as tokens:
        make = lambda: tokens.create(
            host_caller(), rights=rights_of(role="admin", namespaces=["*"]), expires_days=1, note="break glass"
        )
        make()
    assert events(registry)[-1][0] == "token-created"
