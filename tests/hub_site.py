# SPDX-License-Identifier: Apache-2.0
"""A registry that the Hub's clients are pointed at: a signed release, tokens, and the clients' own environment.

``HubSite`` wraps any running registry; ``publish`` pushes a small release of several files and a folder under main.
``api(token)`` is an unmodified ``HfApi``; ``environment(home)`` is for ``hf`` and other clients as processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Reference, RepositoryName
from pq_registry.format.tag import TagStatement
from tests.samples import YEAR, publisher, tag_statement
from tests.server_harness import Answer, RunningRegistry, running

if TYPE_CHECKING:
    import pytest
    from huggingface_hub import HfApi

FILES: dict[str, bytes] = {
    "README.md": b"---\nlicense: apache-2.0\nlanguage: [de, en]\n---\n# MiniLM\nA model for tests.\n",
    "config.json": b'{"hidden_size": 8}\n',
    "empty.txt": b"",
    "1_Pooling/config.json": b"{}\n",
    "1_Pooling/deep/vocab.txt": b"one\ntwo\n",
    "weights.bin": bytes(range(256)) * 1024,
}
"""Weights are of no format that is parsed: releases made without a tensor table cannot hold those."""
EVIDENCE = ("model.pq.sig", "model.sig", "model.tlog-proof")
PRIVATE = ("HF_", "HUGGING", "PQREG_", "XDG_", "AWS_")


Done = subprocess.CompletedProcess[str]


def client_environment(home: Path, url: str, token: str) -> dict[str, str]:
    """Environment of a client in a process of its own: nothing of whoever runs the tests, no proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PRIVATE) and not name.lower().endswith("_proxy")
    }
    return {
        **kept,
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
        # Ten seconds otherwise, which beside a whole suite on two cores are not much.
        "HF_HUB_DOWNLOAD_TIMEOUT": "120",
        "HF_HUB_ETAG_TIMEOUT": "120",
        "NO_COLOR": "1",
    }


@dataclass
class HubSite:
    """A registry as the Hub's clients see it."""

    registry: RunningRegistry
    releases: dict[str, Digest] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The endpoint."""
        return self.registry.url

    @property
    def token(self) -> str:
        """The admin's token."""
        return self.registry.admin_token

    def token_of(self, role: str, *namespaces: str) -> str:
        """A new token of this role."""
        return self.registry.make_token(role, *(namespaces or ("acme",)))

    def api(self, token: str | bool | None = None) -> HfApi:
        """The unmodified client, in this process; by default with the admin's token, without any for ``False``."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, token=self.token if token is None else token)

    def publish(
        self, reference: str = "acme/minilm:main", files: Mapping[str, bytes] = FILES, *, who: str = "alice"
    ) -> Digest:
        """A release of ``files``, and its tag; the tag's earlier statements are followed up."""
        wanted = Reference.parse(reference)
        assert wanted.tag is not None
        digest = self.registry.publish(files, wanted.repository, publisher(who))
        self.tag(reference, digest, who=who)
        self.releases[reference] = digest
        return digest

    def tag(self, reference: str, target: Digest | None, *, who: str = "alice") -> None:
        """Set a tag, or withdraw it."""
        wanted = Reference.parse(reference)
        assert wanted.tag is not None
        sequence, previous = self._last(wanted)
        now = utc_now()
        statement = tag_statement(
            target, repository=wanted.repository, tag=wanted.tag, sequence=sequence + 1, previous=previous,
            issued=now, expires=now + YEAR, signer=publisher(who).identity.id,
        )  # fmt: skip
        envelope = sign_envelope(statement.encode(), publisher(who))
        answer = self.registry.put_envelope(envelope, wanted.repository, wanted.tag)
        assert answer.status in (200, 201), answer

    def _last(self, wanted: Reference) -> tuple[int, Digest | None]:
        answer = self.registry.get(f"/v1/repos/{wanted.repository}/tags/{wanted.tag}")
        if answer.status == 404:
            return 0, None
        envelope = Envelope.parse(answer.body)
        return TagStatement.parse(envelope.payload).sequence, envelope.payload_digest

    def get(self, path: str, token: str | None = None, **headers: str) -> Answer:
        """One GET as it stands, redirects not followed; with the admin's token if no other is given ('' is none)."""
        return self.ask("GET", path, token=token, **headers)

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str) -> Answer:
        """One request as it stands."""
        api = self.registry.with_token(self.token if token is None else token or None)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return api.request_once(method, path, body, named)

    def follow(self, answer: Answer) -> Answer:
        """What is where an answer points to, asked for as clients do: without our token."""
        from tests.server_harness import send_signed

        return send_signed("GET", answer.headers["location"]) if answer.status in (302, 307) else answer

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Environment of a client in a process of its own: nothing of whoever runs the tests, no proxies."""
        return client_environment(home, self.url, self.token if token is None else token)

    def hf(
        self, home: Path, *words: str, token: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``hf``, the client of this environment."""
        home.mkdir(parents=True, exist_ok=True)
        command = [str(Path(sys.executable).with_name("hf")), *words]
        env = self.environment(home, token)
        done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=300, check=False)
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done


@contextmanager
def hub_site(data: Path, *, publish: bool = True, **changes: Any) -> Iterator[HubSite]:
    """A registry in a thread of this process, with acme/minilm:main in it; ``changes`` are fields of ServerConfig."""
    with running(data, **changes) as registry:
        site = HubSite(registry)
        if publish:
            site.publish()
        yield site


def go_online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``huggingface_hub`` in this process ask servers, which the suite forbids: only ours is there to be asked."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def repository(name: str = "acme/minilm") -> RepositoryName:
    """A repository's name as a value."""
    return RepositoryName.parse(name)
