# SPDX-License-Identifier: Apache-2.0
"""The log over HTTP: files as a plain file server would give them, receipts in answers, the search."""

from __future__ import annotations

import base64
import gzip
import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.leaf import Kind
from pq_registry.format.note import VerifierKey
from pq_registry.format.recipientfile import Kem
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.log.judge import judge
from pq_registry.log.receipt import verify_receipt
from pq_registry.log.tree import Tree
from tests.logsamples import log_signers
from tests.samples import REPOSITORY, publisher
from tests.sealing_samples import seal
from tests.sealing_service import publish_sealed, put_grant
from tests.server_harness import RunningRegistry, running
from tests.stored import log_files

FOREVER = "public, max-age=31536000, immutable"


def files(registry: RunningRegistry) -> dict[str, bytes]:
    """What the log's files are in the store."""
    return log_files(registry.data)


def test_every_file_of_the_log_is_served_as_it_lies_there(registry: RunningRegistry) -> None:
    registry.put_tag(registry.publish())
    found = files(registry)
    assert {"checkpoint", "vkey", "tile/0/000.p/2", "tile/entries/000.p/2"} <= set(found)
    for path, data in found.items():
        answer = registry.with_token(None).get(f"/log/{path}")
        assert (answer.status, answer.body) == (200, data), path
        text = path in ("checkpoint", "vkey")
        assert answer.headers["content-type"] == ("text/plain; charset=utf-8" if text else "application/octet-stream")
        assert answer.headers["cache-control"] == ("public, max-age=1" if text else FOREVER)
        assert answer.headers["content-length"] == str(len(data))
        same = registry.get(f"/log/{path}", {"If-None-Match": answer.headers["etag"]})
        assert (same.status, same.body) == (304, b"")
        head = registry.request("HEAD", f"/log/{path}")
        assert (head.status, head.body, head.headers["etag"]) == (200, b"", answer.headers["etag"])


@pytest.mark.parametrize(
    "path",
    ["tile/0/001", "tile/0/000.p/3", "tile/0/000.p/256", "tile/0/0", "tile/64/000", "tile/x/000", "tile/0/../vkey"],
)
def test_what_is_not_there_is_not_found(registry: RunningRegistry, path: str) -> None:
    registry.publish()
    answer = registry.get(f"/log/{path}")
    assert answer.code == "not-found"
    assert answer.headers["cache-control"] == "no-store"


def test_entries_are_compressed_for_who_takes_that(registry: RunningRegistry) -> None:
    registry.publish()
    path = "/log/tile/entries/000.p/1"
    plain = registry.get(path)
    assert plain.headers["vary"] == "Accept-Encoding"
    for accepted in ("gzip", "br, GZIP;q=0.5", "*"):
        packed = registry.get(path, {"Accept-Encoding": accepted})
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        assert packed.headers["etag"] != plain.headers["etag"]
    for refused in ("identity", "gzip;q=0", "gzip;q=0.000", "br"):
        assert registry.get(path, {"Accept-Encoding": refused}).body == plain.body
    hashes = registry.get("/log/tile/0/000.p/1", {"Accept-Encoding": "gzip"})
    assert "content-encoding" not in hashes.headers


def test_a_private_log_is_not_kept_by_shared_caches(tmp_path: Path) -> None:
    with running(tmp_path / "registry", private_log=True) as registry:
        assert registry.with_token(None).get("/log/checkpoint").status == 401
        reader = registry.as_role("reader")
        assert reader.get("/log/checkpoint").headers["cache-control"] == "private, max-age=1"
        assert reader.get("/v1/log/entries").status == 200
        assert registry.with_token(None).get("/v1/log/entries").status == 401


def test_the_keys_are_those_the_log_signs_with(registry: RunningRegistry) -> None:
    keys = [VerifierKey.parse(line) for line in registry.get("/log/vkey").body.decode().splitlines()]
    assert keys == [signer.key for signer in log_signers()]


def test_answers_carry_receipts_that_a_client_accepts(registry: RunningRegistry) -> None:
    digest = registry.publish()
    tag = registry.put_tag(digest).json
    policies = [LogPolicy(registry.registry.ledger.policy)]
    for statement, kind, name in (
        (digest, Kind.RELEASE, str(REPOSITORY)), (Digest.parse(tag["digest"]), Kind.TAG, str(REPOSITORY)),
    ):  # fmt: skip
        answer = registry.get(f"/v1/statements/{statement.hex}").json
        envelope = Envelope.parse(base64.b64decode(answer["envelope"]))
        receipt = verify_receipt(
            base64.b64decode(answer["tlog_proof"]), envelope=envelope, kind=kind, name=name,
            identity=publisher().identity.id, policies=policies,
        )  # fmt: skip
        assert receipt.leaf.payload == statement
    assert tag["log_index"] == 1
    assert tag["quorum"] is True
    assert base64.b64decode(tag["receipt"]) == base64.b64decode(answer["tlog_proof"])


def test_a_second_signature_over_the_same_payload_gets_the_receipt_of_the_first(registry: RunningRegistry) -> None:
    registry.publish()
    first = registry.get("/v1/log/entries").json["items"]
    registry.publish()  # hedged signatures: another envelope of the same payload
    assert registry.get("/v1/log/entries").json["items"] == first


def test_a_log_read_over_http_has_the_tree_it_signs(registry: RunningRegistry) -> None:
    for number in range(3):
        registry.publish({"a.txt": str(number).encode()})

    class Reader:
        def read(self, path: str) -> bytes:
            return registry.with_token(None).get(f"/log/{path}").body

    judged = judge(Reader().read("checkpoint"), registry.registry.ledger.policy)
    tree = Tree(Reader(), judged.checkpoint.size, judged.checkpoint.root)
    assert len(list(tree.entries(0, 3))) == 3


def test_the_search_finds_leaves_by_what_they_are_about(registry: RunningRegistry) -> None:
    digest = registry.publish()
    tag = registry.put_tag(digest).json["digest"]
    signer = publisher().identity.id

    def found(**wanted: str) -> list[int]:
        query = "&".join(f"{name}={value}" for name, value in wanted.items())
        answer = registry.with_token(None).get(f"/v1/log/entries?{query}")
        assert answer.status == 200, answer
        return [item["index"] for item in answer.json["items"]]

    assert found() == [1, 0]
    assert found(name="acme/minilm") == found(name="ACME/MiniLM") == found(name="acme") == [1, 0]
    assert found(name="acme/other") == found(name="lab") == []
    assert found(identity=signer) == [1, 0]
    assert found(identity="0" * 64) == []
    assert found(digest=digest.hex) == [0]
    assert found(digest=tag.removeprefix("sha256:")) == [1]
    assert found(kind="tag") == [1]
    assert found(kind="tag", digest=digest.hex) == []
    page = registry.get("/v1/log/entries?limit=1").json
    assert [item["index"] for item in page["items"]] == [1]
    assert [item["index"] for item in registry.get(f"/v1/log/entries?after={page['next']}").json["items"]] == [0]
    assert page["items"][0] == {
        "index": 1, "time": page["items"][0]["time"], "kind": "tag", "name": "acme/minilm", "identity": signer,
        "statement": tag.removeprefix("sha256:"),
    }  # fmt: skip


def test_which_grants_a_release_has_is_told_to_readers_only(registry: RunningRegistry) -> None:
    sealed, node = seal({"a.json": b"{}"}), SecretRecipient.generate(Kem.MLKEM768_X25519)
    publish_sealed(registry, sealed)
    assert put_grant(registry, sealed.grant(node, issued=utc_now()), sealed.release, node.public.id).status == 201
    query = f"/v1/log/entries?digest={sealed.release.hex}"
    for api, kinds in (
        (registry.as_role("reader"), ["grant", "release"]), (registry.as_role("reader", "lab"), ["release"]),
        (registry.with_token(None), ["release"]), (registry.with_token("pqreg_" + "A" * 43), ["release"]),
    ):  # fmt: skip
        assert [item["kind"] for item in api.get(query).json["items"]] == kinds


@pytest.mark.parametrize(
    ("query", "status"),
    [("name=a b", 400), ("identity=x", 422), ("digest=x", 400), ("kind=x", 422), ("after=-1", 422), ("limit=0", 422)],
)
def test_the_search_refuses_what_no_leaf_can_have(shared_registry: RunningRegistry, query: str, status: int) -> None:
    assert shared_registry.get(f"/v1/log/entries?{query.replace(' ', '%20')}").status == status


def test_a_halted_log_is_not_ready_and_says_so_to_publishers(registry: RunningRegistry) -> None:
    digest = registry.publish()
    registry.clock.offset -= timedelta(seconds=200)
    answer = registry.put_tag(digest)
    assert (answer.status, answer.code) == (503, "log-halted")
    ready = registry.get("/readyz")
    assert (ready.status, ready.code) == (503, "log-halted")
    assert registry.get(f"/v1/statements/{digest.hex}").json["tlog_proof"] is not None
    assert registry.get("/log/checkpoint").status == 200
    assert b"pqreg_log_failing 1.0" in registry.get("/metrics").body


def test_metrics_tell_how_the_log_is(registry: RunningRegistry) -> None:
    registry.publish()
    text = registry.get("/metrics").body.decode()
    assert "pqreg_log_leaves 1.0" in text
    assert "pqreg_log_unpublished_leaves 0.0" in text
    assert "pqreg_log_quorum 1.0" in text
    assert "pqreg_receipt_seconds_count 1.0" in text
    age = next(line for line in text.splitlines() if line.startswith("pqreg_log_signed_age_seconds "))
    assert float(age.split()[1]) < limits.LOG_HEARTBEAT_SECONDS


def test_what_is_printed_and_what_is_served_have_one_fingerprint(
    registry: RunningRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    from pqreg_cli.main import run

    assert run(["log", "vkey", "--registry", registry.url]) == 0
    text = capsys.readouterr().out.encode()
    assert text == registry.get("/log/vkey").body
    assert run(["log", "vkey", "--fingerprint", "--registry", registry.url]) == 0
    assert capsys.readouterr().out.strip() == hashlib.sha256(text).hexdigest()


def test_checkpoint_and_receipt_can_be_printed_byte_for_byte(
    registry: RunningRegistry, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pqreg_cli.main import run

    monkeypatch.setenv("PQREG_REGISTRY", registry.url)
    monkeypatch.setenv("PQREG_TOKEN", registry.admin_token)
    digest = registry.publish()
    assert run(["log", "checkpoint"]) == 0
    assert capfdbinary.readouterr().out == registry.get("/log/checkpoint").body
    assert run(["log", "proof", str(digest)]) == 0
    receipt = base64.b64decode(registry.get(f"/v1/statements/{digest.hex}").json["tlog_proof"])
    assert capfdbinary.readouterr().out == receipt
    assert run(["log", "proof", str(Digest.of(b""))]) == 3
