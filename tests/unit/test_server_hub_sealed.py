# SPDX-License-Identifier: Apache-2.0
"""A sealed release through the Hub's protocol: ciphertext and evidence, verified by anybody and read by nobody."""

from __future__ import annotations

from tests.hub_site import EVIDENCE, HubSite
from tests.samples import publisher
from tests.sealing_samples import PLAINTEXT, SECRET, seal
from tests.sealing_service import commit
from tests.server_harness import RunningRegistry


def test_what_is_stored_is_what_is_shown(registry: RunningRegistry) -> None:
    site = HubSite(registry)
    assert registry.register(publisher()).status == 201
    sealed = seal()
    digest = commit(registry.registry, sealed)
    before = [item["rfilename"] for item in site.get(f"/api/models/{SECRET}").json["siblings"]]
    assert "model.tlog-proof" not in before, "there is no receipt yet"
    registry.registry.ledger.log(digest)
    info = site.get(f"/api/models/{SECRET}/revision/{digest}?blobs=true").json
    assert info["pqreg"] == {"signed": True, "release": str(digest), "sealed": True, "draft": None}
    assert {"signed", "sealed"} <= set(info["tags"])
    assert "cardData" not in info
    stored = [str(path) for path in sealed.stored]
    assert [item["rfilename"] for item in info["siblings"]] == sorted([*stored, "pqreg.json", *EVIDENCE])
    for path, content in sealed.stored.items():
        answer = site.follow(site.get(f"/{SECRET}/resolve/{digest.hex}/{path}"))
        assert answer.body == content
        assert not [plain for plain in PLAINTEXT.values() if plain and plain[:1000] in answer.body]
