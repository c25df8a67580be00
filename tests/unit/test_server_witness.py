# SPDX-License-Identifier: Apache-2.0
"""The witness over HTTP: statuses and types of C2SP tlog-witness, bounds, monitoring, metrics, state on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import LogHalted, StorageError
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.note import Note, parse_lines
from pq_registry.log.judge import judge
from pq_registry.log.witness import Witness
from pq_registry.server.witness import WitnessMetrics
from pq_registry.storage.witnessstate import WitnessState
from tests.logsamples import TIME, MemoryLog, compose_policy, resigned
from tests.witnessing import Hand, exchange, grow, grown, make_witness, post, request_of, serving

ORIGIN = "log.example/pqreg"
PATH = f"/{Digest.of(ORIGIN.encode()).hex}/checkpoint"
DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "operations" / "witness.md"


@dataclass
class Site:
    url: str
    log: MemoryLog
    clock: Hand
    state: WitnessState
    witness: Witness


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    log, clock = grown(5), Hand()
    with WitnessState(tmp_path / "state") as state:
        witness = make_witness(log, store=state, clock=clock)
        with serving(witness, state) as url:
            yield Site(url, log, clock, state, witness)


def test_statuses_and_types(site: Site) -> None:
    request = request_of(site.log, 0)
    status, headers, body = post(site.url, request.encode())
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "text/plain; charset=utf-8", "no-store")
    assert len(parse_lines(body)) == 2
    grow(site.log, 2)
    status, headers, body = post(site.url, request_of(site.log, 0).encode())
    assert (status, headers["content-type"], body) == (409, "text/x.tlog.size", b"5\n")
    assert post(site.url, b"nonsense")[0] == 400
    assert post(site.url, replace(request_of(site.log, 5), old_size=8).encode())[0] == 400
    assert post(site.url, request_of(grown(3, origin="stranger.example"), 0).encode())[0] == 404
    unsigned = replace(request, note=resigned(request.note, drop=[ORIGIN], add=Note.parse(request.note).signatures[:1]))
    assert post(site.url, unsigned.encode())[0] == 403
    assert post(site.url, replace(request_of(site.log, 5), proof=()).encode())[0] == 422
    assert post(site.url, request_of(site.log, 5).encode())[0] == 200


def test_monitors_read_the_newest_cosigned_checkpoint(site: Site) -> None:
    assert exchange(site.url, "GET", PATH)[0] == 404
    post(site.url, request_of(site.log, 0).encode())
    status, headers, body = exchange(site.url, "GET", PATH)
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert "max-age" in headers["cache-control"]
    judged = judge(body, compose_policy(witnesses=1))
    assert (judged.checkpoint.size, judged.attested) == (5, TIME)
    for path in (f"/{'0' * 64}/checkpoint", "/checkpoint", PATH + "/", f"/{ORIGIN}/checkpoint", "/../state/checkpoint"):
        assert exchange(site.url, "GET", path)[0] == 404


def test_other_methods_and_routes(site: Site) -> None:
    assert exchange(site.url, "GET", "/add-checkpoint")[0] == 405
    assert exchange(site.url, "POST", PATH, b"")[0] == 405
    assert exchange(site.url, "POST", "/sign-subtree", b"")[0] == 404
    assert exchange(site.url, "GET", "/livez")[0] == 200
    assert exchange(site.url, "GET", "/readyz")[0] == 200


@pytest.mark.parametrize("change", [-1, 0, 1])
def test_a_body_is_bounded(site: Site, change: int) -> None:
    body = b"old 0\n\n".ljust(limits.ADD_CHECKPOINT_BYTES + change, b"x")
    assert post(site.url, body)[0] == (400 if change <= 0 else 413)


def test_a_failing_disk_signs_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_origin: str, _note: bytes) -> None:
        raise StorageError("no space")

    monkeypatch.setattr(site.state, "store", fail)
    status, _, body = post(site.url, request_of(site.log, 0).encode())
    assert status == 503
    assert "—".encode() not in body
    assert exchange(site.url, "GET", PATH)[0] == 404


def test_a_clock_that_went_back_is_503(site: Site) -> None:
    post(site.url, request_of(site.log, 0).encode())
    site.clock.offset = -100
    assert post(site.url, request_of(site.log, 5).encode())[0] == 503


def test_metrics_say_what_was_signed_and_what_was_caught(site: Site) -> None:
    post(site.url, request_of(site.log, 0).encode())
    fork = site.log.fork(3)
    fork.append_raw(b"x", b"y")
    post(site.url, request_of(fork, 5).encode())
    text = exchange(site.url, "GET", "/metrics")[2].decode()
    assert f'pqreg_witness_answers_total{{origin="{ORIGIN}",outcome="cosigned"}} 1.0' in text
    assert f'pqreg_witness_answers_total{{origin="{ORIGIN}",outcome="equivocation"}} 1.0' in text
    assert f'pqreg_witness_tree_size{{origin="{ORIGIN}"}} 5.0' in text
    found = re.search(r"^pqreg_witness_cosigned_timestamp_seconds{[^}]*} (.*)$", text, re.MULTILINE)
    assert found is not None
    assert float(found[1]) == TIME
    assert f'pqreg_witness_evidence_notes{{kind="equivocation",origin="{ORIGIN}"}} 2.0' in text
    assert ORIGIN.encode() in exchange(site.url, "GET", "/readyz")[2]


def test_every_metric_is_documented(site: Site) -> None:
    metrics = WitnessMetrics(site.witness, site.state).render().decode()
    found = re.findall(r"^# TYPE (pqreg_witness\w+) ", metrics, re.MULTILINE)
    names = {name for name in found if not name.endswith("_created")}
    assert len(names) >= 4
    text = DOCUMENTATION.read_text("utf-8")
    assert not [name for name in names if f"`{name}`" not in text]


def test_it_answers_to_its_own_names_only(site: Site) -> None:
    import http.client

    connection = http.client.HTTPConnection(site.url.removeprefix("http://"), timeout=30)
    connection.request("GET", "/livez", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 421
    connection.close()


def test_state_survives_and_is_for_one_process(tmp_path: Path) -> None:
    log = grown(5)
    with WitnessState(tmp_path / "state") as state:
        make_witness(log, store=state).add_checkpoint(request_of(log, 0).encode())
        with pytest.raises(StorageError):
            WitnessState(tmp_path / "state")
    with WitnessState(tmp_path / "state") as state:
        assert make_witness(log, store=state).size(ORIGIN) == 5
        files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
        assert {path.name for path in files} == {"lock", "checkpoint"}
        assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_every_flipped_bit_of_the_state_is_noticed_or_harmless(tmp_path: Path) -> None:
    log = grown(5)
    with WitnessState(tmp_path / "state") as state:
        make_witness(log, store=state).add_checkpoint(request_of(log, 0).encode())
        path = state.folder(ORIGIN) / "checkpoint"
        good = path.read_bytes()
        before = parse_checkpoint_note(good)[0]
        for position in range(0, len(good), 97):
            path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            try:
                witness = make_witness(log, store=state)
            except LogHalted:
                continue
            assert parse_checkpoint_note(witness.newest(ORIGIN))[0] == before
        for cut in (0, 1, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:cut])
            with pytest.raises(LogHalted):
                make_witness(log, store=state)


def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    log = grown(5)
    with WitnessState(tmp_path / "state") as state:
        make_witness(log, store=state).add_checkpoint(request_of(log, 0).encode())
        (state.folder(ORIGIN) / ".checkpoint.0123456789abcdef.tmp").write_bytes(b"half")
        assert make_witness(log, store=state).size(ORIGIN) == 5
        assert [path.name for path in state.folder(ORIGIN).iterdir()] == ["checkpoint"]
