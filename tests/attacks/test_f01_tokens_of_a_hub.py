# SPDX-License-Identifier: Apache-2.0
"""F1: a Hub's token goes to that Hub and to nobody it points to; a registry's token goes to no Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pq_registry.client.hubtoken import hub_credential
from pq_registry.errors import PqregError, SettingError
from pq_registry.gateway.config import GatewayConfig
from pq_registry.settings import Settings
from tests.fake_hub import FakeHub, fake_hub
from tests.hub_site import go_online
from tests.import_site import bring

CANARY = "hf_canary_9f2c"
MODEL = {"config.json": b"{}", "vocab.txt": b"word\n" * 100}


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[FakeHub, FakeHub]]:
    with fake_hub() as hub, fake_hub() as other:
        yield hub, other


@pytest.fixture
def hubs(two: tuple[FakeHub, FakeHub], monkeypatch: pytest.MonkeyPatch) -> tuple[FakeHub, FakeHub]:
    go_online(monkeypatch)
    for hub in two:
        hub.reset()
        hub.add(MODEL)
    return two


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "path",
    [
        "/api/models/org/model/revision/main",
        "/api/models/org/model/tree/{commit}",
        "/org/model/resolve/{commit}/vocab.txt",
    ],
    ids=["revision", "tree", "file"],
)
def test_no_redirect_takes_the_token_along(
    hubs: tuple[FakeHub, FakeHub], tmp_path: Path, status: int, path: str
) -> None:
    hub, other = hubs
    path = path.format(commit=hub.commit("org/model"))
    target = other.url + path + ("?recursive=true" if "tree" in path else "")

    def watch(_count: int) -> None:
        if hub.asked[-1] == f"GET {path}":
            hub.refusals = [(status, {"Location": target})]

    hub.watch = watch
    try:
        bring(hub, tmp_path / "place", token=CANARY)
    except PqregError as error:
        assert CANARY not in str(error)
    assert other.asked  # it was sent there
    assert hub.tokens == {f"Bearer {CANARY}"}
    assert other.tokens == {None}


def test_a_token_belongs_to_the_hub_it_was_given_with(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('hub_token = "hf_file"\nhub = "https://hub.example"\n')
    config.chmod(0o600)

    def sent(given: dict[str, str] | None = None, **environment: str) -> str | None:
        return hub_credential(Settings(given or {}, environment=environment, config_file=config)).token

    assert sent() == "hf_file"
    assert sent({"hub": "https://HUB.example/"}) == "hf_file"
    assert sent({"hub": "https://other.example"}) is None
    assert sent({"hub": "http://hub.example"}) is None
    assert sent({"hub": "https://hub.example:8443"}) is None
    assert sent(PQREG_HUB_TOKEN="hf_env") == "hf_env"
    assert sent({"hub": "https://other.example"}, PQREG_HUB_TOKEN="hf_env") == "hf_env"
    assert sent({"hub": "https://other.example"}, PQREG_HUB_TOKEN="hf_env", PQREG_HUB="https://hub.example") is None
    config.write_text('hub_token = "hf_file"\n')
    assert sent() == "hf_file"
    assert sent({"hub": "https://other.example"}) is None
    for wrong in ("ftp://hub.example", "https://user:pw@hub.example", "https://hub.example/?x=1", "hub"):
        with pytest.raises(SettingError):
            sent({"hub": wrong})


@pytest.mark.parametrize("hub", ["https://hub.example", "https://other.example", "https://gateway.example"])
def test_a_gateway_sends_it_to_the_hub_it_was_given_with(tmp_path: Path, hub: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text('hub_token = "hf_file"\nhub = "https://hub.example"\n')
    config.chmod(0o600)
    nowhere = tmp_path / "none.toml"

    def sent(file: Path, **environment: str) -> str | None:
        settings = Settings({"gateway_hub": hub}, environment=environment, config_file=file)
        config = GatewayConfig.from_settings(settings)
        with closing(config.hub_client(hub)) as client:
            return client.exchanger.headers.get("Authorization", "").removeprefix("Bearer ") or None

    assert sent(config) == ("hf_file" if hub == "https://hub.example" else None)
    assert sent(nowhere, PQREG_HUB_TOKEN="hf_env") == "hf_env"
    own = {"PQREG_HUB_TOKEN": "hf_env", "PQREG_HUB": "https://hub.example"}
    assert sent(nowhere, **own) == ("hf_env" if hub == "https://hub.example" else None)
    both = {**own, "PQREG_GATEWAY_HUB": "https://gateway.example"}
    assert sent(nowhere, **both) == (None if hub == "https://other.example" else "hf_env")
    with pytest.raises(SettingError, match="unencrypted"):
        hub = "http://hub.example"
        sent(nowhere, PQREG_HUB_TOKEN="hf_env")
