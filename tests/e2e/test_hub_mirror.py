# SPDX-License-Identifier: Apache-2.0
"""Mirror out, against a second registry of ours acting as the Hub, through the Hub's own client with hf-xet on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pq_registry.client.verify import verify_directory
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference
from pq_registry.mirror.hub import Hub
from pq_registry.mirror.outcome import Report, State
from pq_registry.mirror.reconcile import Place, Round
from pq_registry.mirror.target import HubTarget
from tests.hub_site import FILES, HubSite, go_online, hub_site, repository
from tests.mirror_site import Killed, Mirroring, a_mirror, states

pytest.importorskip("huggingface_hub")

LARGE = {**FILES, "model.bin": bytes(range(251)) * 40_000}
NEWER = {
    "config.json": b'{"hidden_size": 16}\n',
    "renamed/model.bin": LARGE["model.bin"],
    "README.md": FILES["README.md"],
}
TARGET = "acme-ai/minilm"


@dataclass
class Pair:
    """A registry, a second one that is the Hub, and a machine that mirrors."""

    source: HubSite
    hub: HubSite
    home: Path
    strike: Callable[[str], None] = lambda _name: None
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mirroring = Mirroring(self.source, self.home)
        self.token = self.hub.token_of("publisher", "acme-ai")

    def round(self) -> Report:
        """One round; ``strike`` is called before every request to the Hub with the method of HfApi."""
        mirror = a_mirror(hub=self.hub.url)
        hub = Hub(self.hub.url, self.token, sleep=self.slept.append)
        hub.api = _Watched(hub.api, lambda name: self.strike(name))
        with self.mirroring.client() as client:
            place = Place(
                client=client, verifier=self.mirroring.verifier(), state_dir=self.home / "state",
                staging=self.home / "staging",
            )  # fmt: skip
            self.home.mkdir(exist_ok=True)
            return Round(mirror, place, lambda name: HubTarget(hub, name, self.home)).run([repository()])

    def download(self, revision: str, into: Path) -> Path:
        """What somebody gets who downloads it with the Hub's client."""
        self.hub.hf(
            into.with_suffix(".home"), "download", TARGET, "--revision", revision, "--local-dir", str(into),
            token=self.token,
        )  # fmt: skip
        return into

    def verify(self, revision: str, into: Path, digest: Digest) -> Path:
        """The same, held against the trust file offline."""
        path = self.download(revision, into)
        expected = Reference.parse(f"acme/minilm@{digest}")
        verify_directory(path, self.mirroring.verifier(online=False), expected=expected, full=True)
        return path

    def listed(self, revision: str) -> set[str]:
        """The files of a revision."""
        return set(self.hub.api(self.token).list_repo_files(TARGET, revision=revision))


class _Watched:
    """An HfApi whose calls are told to somebody first."""

    def __init__(self, api: Any, tell: Callable[[str], None]) -> None:
        self._api = api
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._api, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._tell(name)
            return found(*arguments, **named)

        return call


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("hub"), publish=False) as site:
        yield site


@pytest.fixture
def pair(hub: HubSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    go_online(monkeypatch)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with hub_site(tmp_path / "source", publish=False) as source:
        yield Pair(source, hub, tmp_path / "home")
    api = hub.api()
    if api.repo_exists(TARGET):
        api.delete_repo(TARGET)


EVIDENCE = {"pqreg.json", "model.sig", "model.pq.sig", "model.tlog-proof"}


def test_there_and_moved_on_and_verified_by_everybody(pair: Pair, tmp_path: Path) -> None:
    first = pair.source.publish("acme/minilm:main", LARGE)
    pair.source.tag("acme/minilm:v1", first)
    assert states(pair.round()) == {"main": State.MIRRORED, "v1": State.MIRRORED}
    path = pair.verify("v1", tmp_path / "v1", first)
    stock_tool_accepts(path)
    assert pair.listed("main") == {*LARGE, *EVIDENCE}
    asked: list[str] = []
    pair.strike = asked.append
    assert set(states(pair.round()).values()) == {State.IN_STEP}
    assert asked == ["list_repo_refs"]

    # A later release: files renamed, deleted and changed.
    newer = pair.source.publish("acme/minilm:main", NEWER)
    assert states(pair.round()) == {"main": State.MIRRORED, "v1": State.IN_STEP}
    assert pair.listed("main") == {*NEWER, *EVIDENCE}
    assert pair.listed("v1") == {*LARGE, *EVIDENCE}
    pair.verify("main", tmp_path / "main", newer)
    refs = pair.hub.api(pair.token).list_repo_refs(TARGET)
    assert [branch.name for branch in refs.branches] == ["main"]
    title = pair.hub.api(pair.token).list_repo_commits(TARGET)[0].title
    assert str(newer) in title

    # By hand: somebody deletes a file, and adds others while the next round puts that right.
    api = pair.hub.api(pair.token)
    api.delete_file("model.sig", TARGET)
    added: list[str] = []

    def push_first(name: str) -> None:
        if name == "create_commit" and len(added) < 3:
            added.append(f"note{len(added)}.txt")
            api.upload_file(path_or_fileobj=b"by hand", path_in_repo=added[-1], repo_id=TARGET)

    pair.strike = push_first
    assert states(pair.round())["main"] is State.MIRRORED
    assert len(added) == 3
    pair.verify("main", tmp_path / "again", newer)


def stock_tool_accepts(path: Path) -> None:
    """What the commit message tells people to run."""
    pytest.importorskip("model_signing")
    from tests.samples import publisher

    key = path.with_suffix(".pem")
    key.write_bytes(publisher().identity.ec_pem)
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "key", str(path)]
    command += ["--public_key", str(key), "--signature", str(path / "model.sig")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_killed_at_some_requests_and_told_to_wait(pair: Pair, tmp_path: Path) -> None:
    """A run ends before its n-th request, for n that grow; the one that gets through leaves what it should."""
    from huggingface_hub.errors import HfHubHTTPError

    digest = pair.source.publish("acme/minilm:main", LARGE)
    runs = 0
    while True:
        runs += 1
        left = [3 * runs]

        def strike(_name: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        pair.strike = strike
        try:
            assert states(pair.round())["main"] in (State.MIRRORED, State.IN_STEP)
            break
        except Killed:
            pass
    assert runs > 2
    assert [branch.name for branch in pair.hub.api(pair.token).list_repo_refs(TARGET).branches] == ["main"]
    pair.verify("main", tmp_path / "out", digest)
    assert not list((pair.home / "staging").iterdir())

    # 429: every kind of request is refused once, and comes again.
    import httpx2

    newer = pair.source.publish("acme/minilm:main", NEWER)
    refused: set[str] = set()

    def later(name: str) -> None:
        if name not in refused:
            refused.add(name)
            request = httpx2.Request("GET", pair.hub.url)
            answer = httpx2.Response(429, headers={"Retry-After": "7"}, request=request)
            raise HfHubHTTPError("too many", response=answer)

    pair.strike = later
    assert states(pair.round()) == {"main": State.MIRRORED}
    assert {"create_commit", "list_repo_refs", "create_branch", "delete_branch"} <= refused
    assert pair.slept == [7.0] * len(refused)
    pair.verify("main", tmp_path / "later", newer)


def test_the_command(pair: Pair, tmp_path: Path) -> None:
    """mirrors.yaml, a token file, the registry's history; the token is in no output."""
    pair.source.publish("acme/minilm:main", FILES)
    (tmp_path / "token").write_text(pair.token + "\n")
    (tmp_path / "trust.json").write_bytes(pair.mirroring.trust.encode())
    config = tmp_path / "mirrors.yaml"
    config.write_text(
        f"version: 1\nmirrors:\n  - name: hub\n    hub: {pair.hub.url}\n    namespace: acme-ai\n"
        "    token_file: token\n    repositories: [acme/*]\n    tags: ['*']\n"
    )

    (tmp_path / "user").mkdir()
    environment = pair.source.environment(tmp_path / "user", token="none") | {
        "PQREG_REGISTRY": pair.source.url,
        "PQREG_TOKEN": pair.source.token_of("publisher"),
        "PQREG_TRUST": str(tmp_path / "trust.json"),
    }
    start = [sys.executable, "-m", "pqreg_cli", "mirror"]

    def pqreg(*words: str, status: int = 0) -> Any:
        command = [*start, *words, "--config", str(config), "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done
        assert pair.token not in done.stdout + done.stderr
        return json.loads(done.stdout)["mirrors"][0]["outcomes"]

    assert [one["state"] for one in pqreg("status", status=1)] == ["behind"]
    (done,) = pqreg("sync")
    assert (done["state"], done["target"]) == ("mirrored", f"{pair.hub.url}/{TARGET}")
    assert [one["state"] for one in pqreg("push", "acme/minilm")] == ["in-step"]
    assert [one["state"] for one in pqreg("status")] == ["in-step"]
    written = [path for path in (tmp_path / "user").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if pair.token.encode() in path.read_bytes()]
    (item,) = pair.source.get("/v1/repos/acme/minilm/mirrors").json["items"]
    assert (item["state"], item["tag"], item["commit"]) == ("mirrored", "main", done["commit"])
    assert item["target"] == f"{pair.hub.url.removeprefix('http://')}/{TARGET}"
    page = pair.source.get("/models/acme/minilm", Accept="text/html").body.decode()
    assert item["target"] in page

    # Round after round, until somebody says that it is enough.
    command = [*start, "sync", "--config", str(config), "--interval", "60"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("hub: brought 0 tags")
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 0
