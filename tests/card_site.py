# SPDX-License-Identifier: Apache-2.0
"""A registry with model cards: base models, an adapter, a merge, a hostile card, a sealed release, a private model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import BaseRelease
from pq_registry.format.name import RepositoryName
from pq_registry.format.release import statement_of
from tests.samples import manifest, publisher
from tests.sealing_samples import seal
from tests.sealing_service import publish_sealed
from tests.server_harness import Api, RunningRegistry, running

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000100000001080600000"
    "01f15c4890000000d49444154789c6360f8cf50070003840180"
    "5d8d6f5c0000000049454e44ae426082"
)
TEUKEN = """---
license: apache-2.0
language: [de, en, fr]
library_name: transformers
pipeline_tag: text-generation
tags: [teuken, europäisch]
datasets: [occiglot/tokenizer-wiki-bench]
eu_ai_act:
  provider: "OpenGPT-X Konsortium: Fraunhofer"
  general_purpose: yes
  systemic_risk: no
  training_compute: 4.2e22 FLOP
  training_data_summary: https://example.org/summary
---
# Teuken 7B

**Teuken** ist ein [europäisches Sprachmodell](https://example.org/teuken) mit *24 Amtssprachen*. Größe: 7 Milliarden.

![Bewertung](bilder/plot.png) ![Zähler](https://tracker.example/pixel.gif)

### Verwendung

```python
model = AutoModel.from_pretrained("acme/teuken")
```

| Sprache | Wert |
|---------|-----:|
| Deutsch | 0,71 |
| Estnisch | 0,64 |

Siehe [die Einstellungen](config.json), [weiter unten](#verwendung) und [nichts](missing.txt).

<details><summary>Mehr</summary>
<p align="center">Einzelheiten</p>
</details>
"""
ADAPTER = """---
base_model: acme/teuken
license: mit
language: de
library_name: peft
tags: [legal]
---
# Contracts

An adapter for contracts.
"""
MERGE = """---
base_model: [acme/teuken, mistralai/Mistral-7B-v0.1]
base_model_relation: merge
library_name: mergekit
---
Two models in one.
"""
SECRET = "---\nbase_model: acme/teuken\nlicense: other\n---\n# Hidden\n"
HOSTILE = (Path(__file__).parent / "vectors" / "cards" / "hostile.md").read_text("utf-8")


@dataclass(frozen=True)
class CardSite:
    """A registry with cards, and the releases in it by the names of their repositories."""

    registry: RunningRegistry
    releases: dict[str, Digest]


@contextmanager
def card_site(data: Path, **changes: Any) -> Iterator[CardSite]:
    """Serve a registry with cards."""
    with running(data, **changes) as registry:
        yield CardSite(registry, fill(registry))


def fill(registry: RunningRegistry) -> dict[str, Digest]:
    """Publish the models; those of ``lab`` are private where reading takes a token."""
    found: dict[str, Digest] = {}
    files = {"config.json": b"{}", "bilder/plot.png": PNG, "README.md": TEUKEN.encode()}
    found["acme/teuken"] = publish_card(registry, "acme/teuken", files)
    base = BaseRelease(RepositoryName.parse("acme/teuken"), found["acme/teuken"])
    found["acme/teuken-legal"] = publish_card(
        registry, "acme/teuken-legal", {"adapter_config.json": b"{}", "README.md": ADAPTER.encode()}, lineage=[base]
    )
    found["acme/merged"] = publish_card(registry, "acme/merged", {"README.md": MERGE.encode()})
    found["acme/hostile"] = publish_card(registry, "acme/hostile", {"README.md": HOSTILE.encode()})
    found["acme/bare"] = publish_card(registry, "acme/bare", {"config.json": b"{}"})
    found["lab/hidden"] = publish_card(registry, "lab/hidden", {"README.md": SECRET.encode()}, signer="bob")
    found["acme/secret"] = publish_sealed(registry, seal())
    return found


def publish_card(
    api: Api, name: str, files: dict[str, bytes], *, lineage: Sequence[BaseRelease] = (), signer: str = "alice"
) -> Digest:
    """A release of these files."""
    repository, identity = RepositoryName.parse(name), publisher(signer)
    assert api.register(identity, str(repository.namespace)).status in (200, 201)
    made = replace(manifest(files, name=repository, signer=identity), lineage=tuple(lineage))
    data = made.encode()
    for content in {*files.values(), data}:
        api.upload(content, repository)
    answer = api.post_release(sign_envelope(statement_of(made, data).encode(), identity), repository)
    assert answer.status == 201, answer
    return Digest.parse(answer.json["digest"])
