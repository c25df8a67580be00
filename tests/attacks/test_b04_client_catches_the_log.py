# SPDX-License-Identifier: Apache-2.0
"""B4, the client's side: a log that shows a smaller tree, or another one, is caught, and both notes are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.verify import verify_directory
from pq_registry.errors import (
    CheckpointInvalid,
    FormatError,
    LogEquivocation,
    LogMisbehaved,
    LogRollback,
    NotFound,
    TileMismatch,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.note import Note
from tests.fake_registry import serving
from tests.logged_site import LoggedSite, acme, status_statement
from tests.logsamples import MemoryLog


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LoggedSite]:
    with serving() as registry:
        yield LoggedSite(registry, tmp_path)


def evidence(site: LoggedSite) -> dict[str, bytes]:
    folder = site.home / "state" / "evidence"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}


def kept(site: LoggedSite) -> bytes:
    found = Checkpoints(site.home / "state").get(site.log.origin)
    assert found is not None
    return found[1]


def caught(site: LoggedSite, kind: type[LogMisbehaved], what: Digest, *notes: bytes) -> None:
    """Resolving is refused with exit status 4, exactly ``notes`` are kept, and what was known stays what it was."""
    before = kept(site)
    for online in (True, False, True):
        with pytest.raises(kind) as error:
            site.resolve(what, online=online)
        assert error.value.exit_code == 4
        assert error.value.step == 4
        assert str(site.home / "state" / "evidence") in (error.value.hint or "")
        assert evidence(site) == {f"{Digest.of(note).hex}.note": note for note in notes}
    assert kept(site) == before


def test_an_honest_log_grows_and_the_newest_checkpoint_is_kept(site: LoggedSite) -> None:
    digest = site.publish()
    for count in (1, 2, 255, 256, 257, 700):
        site.log.append_raw(*(str(number).encode() for number in range(count - site.log.size)))
        site.log.publish()
        site.serve_log()
        found = site.resolve(digest)
        assert kept(site) == site.log.files["checkpoint"]
        assert f"the newest checkpoint that counts has {count} leaves" in found.verified.notes[-1]
    assert not evidence(site)


@pytest.mark.parametrize("cosigned", [True, False])
def test_a_smaller_tree_is_a_rollback(site: LoggedSite, cosigned: bool) -> None:
    digest = site.publish()
    small = site.log.fork(1)
    old = small.publish(cosigned=cosigned)
    site.log.append_raw(b"more")
    site.log.publish()
    site.serve_log()
    site.resolve(digest)
    new = kept(site)
    site.serve_log(small)
    caught(site, LogRollback, digest, new, old)


@pytest.mark.parametrize("cosigned", [True, False])
def test_the_same_size_with_another_root(site: LoggedSite, cosigned: bool) -> None:
    digest = site.publish()
    fork = site.log.fork(1)
    site.log.append_raw(b"what the client sees")
    site.log.publish()
    site.serve_log()
    site.resolve(digest)
    fork.append_raw(b"what others see")
    other = fork.publish(cosigned=cosigned)
    site.serve_log(fork)
    caught(site, LogEquivocation, digest, kept(site), other)


@pytest.mark.parametrize("cosigned", [True, False])
def test_a_larger_tree_that_does_not_continue_the_one_seen(site: LoggedSite, cosigned: bool) -> None:
    digest = site.publish()
    fork = site.log.fork(1)
    site.log.append_raw(b"what the client sees")
    site.log.publish()
    site.serve_log()
    site.resolve(digest)
    fork.append_raw(*(bytes([number]) for number in range(200)))
    other = fork.publish(cosigned=cosigned)
    site.serve_log(fork)
    caught(site, LogEquivocation, digest, kept(site), other)


def test_a_receipt_from_a_tree_the_log_does_not_show(site: LoggedSite) -> None:
    """The first contact: nothing is kept yet, but the receipt's own tree is none the log continues."""
    digest = site.publish()
    shown = MemoryLog(witnesses=1)
    shown.append_raw(b"another first leaf", b"and a second one")
    shown.publish()
    site.serve_log(shown)
    with pytest.raises(LogEquivocation):
        site.resolve(digest)
    assert len(evidence(site)) == 2
    assert Checkpoints(site.home / "state").get(site.log.origin) is None


def test_a_tags_receipt_from_a_tree_the_log_does_not_show(site: LoggedSite) -> None:
    digest = site.publish()
    honest = site.log
    site.log = honest.fork(1)
    site.log.append_raw(b"a leaf only this client is shown")
    site.set_tag(digest)
    honest.append_raw(*(bytes([number]) for number in range(9)))
    honest.publish()
    site.serve_log(honest)
    with pytest.raises(LogEquivocation):
        site.resolve("v1")
    assert len(evidence(site)) == 2


def test_evidence_of_two_incidents_lies_side_by_side(site: LoggedSite) -> None:
    digest = site.publish()
    fork = site.log.fork(1)
    site.log.append_raw(b"a")
    site.log.publish()
    site.serve_log()
    site.resolve(digest)
    for entry in (b"b", b"c"):
        other = fork.fork(1)
        other.append_raw(entry)
        other.publish()
        site.serve_log(other)
        with pytest.raises(LogEquivocation):
            site.resolve(digest)
    assert len(evidence(site)) == 3  # the one kept, and two that contradict it
    site.serve_log()
    site.resolve(digest)
    assert len(evidence(site)) == 3


def test_a_pulled_directory_whose_receipt_contradicts_what_was_seen(site: LoggedSite, tmp_path: Path) -> None:
    site.publish()
    site.pull(site.publish({"a": b"1"}))
    verify_directory(site.home / "out", site.verifier(online=False), state_dir=site.home / "state")
    other = LoggedSite(site.registry, tmp_path / "other")
    other.log.append_raw(b"a leaf that the first log never had")
    other.pull(other.publish({"a": b"1"}))  # two leaves as well: a split view, handed over as a directory
    with pytest.raises(LogEquivocation):
        verify_directory(tmp_path / "other/out", site.verifier(online=False), state_dir=site.home / "state")
    assert len(evidence(site)) == 2


def test_a_pulled_directory_whose_statuss_receipt_contradicts_what_was_seen(site: LoggedSite) -> None:
    site.namespace = acme()
    status = site.set_status(status_statement())
    site.pull(site.publish())
    verify_directory(site.home / "out", site.verifier(online=False), state_dir=site.home / "state")
    other = site.log.fork(0)
    other.append_raw(*(b"a leaf that the first log never had" for _ in range(site.log.size - 1)))
    envelope = Envelope.parse(site.registry.statuses["acme"])
    receipt = other.log(envelope, kind=Kind.STATUS, name="acme", identity=status.signer)
    (site.home / "out/.pqreg/status.tlog-proof").write_bytes(receipt)
    with pytest.raises(LogEquivocation):
        verify_directory(site.home / "out", site.verifier(online=False), state_dir=site.home / "state")
    assert len(evidence(site)) == 2


@pytest.mark.parametrize(
    ("bend", "kind"),
    [
        (lambda files: files.pop("checkpoint"), NotFound),
        (lambda files: files.update(checkpoint=b"no note"), FormatError),
        (lambda files: files.update({"tile/0/000.p/3": bytes(96)}), TileMismatch),
        (lambda files: files.pop("tile/0/000.p/3"), NotFound),
    ],
    ids=["no checkpoint", "no note", "zeros for hashes", "no tile"],
)
def test_what_is_merely_broken_is_no_evidence(
    site: LoggedSite, bend: Callable[[dict[str, bytes]], object], kind: type[Exception]
) -> None:
    digest = site.publish()
    site.resolve(digest)
    site.log.append_raw(b"x", b"y")
    site.log.publish()
    site.serve_log()
    bend(site.registry.log_files)
    with pytest.raises(kind):
        site.resolve(digest)
    assert not evidence(site)


def test_a_checkpoint_under_a_key_that_only_looks_like_the_logs(site: LoggedSite) -> None:
    digest = site.publish()
    note = Note.parse(site.log.files["checkpoint"])
    broken = tuple(
        type(line)(line.name, line.key_id, line.signature[:-1] + bytes([line.signature[-1] ^ 1]))
        for line in note.signatures
    )
    site.registry.log_files["checkpoint"] = Note(note.text, broken).encode()
    with pytest.raises(CheckpointInvalid):
        site.resolve(digest)
    assert not evidence(site)


def test_a_damaged_memory_is_no_clean_slate(site: LoggedSite) -> None:
    digest = site.publish()
    site.resolve(digest)
    (path,) = (site.home / "state" / "logs").iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match="last checkpoint seen"):
        site.resolve(digest)
