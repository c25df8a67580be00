# SPDX-License-Identifier: Apache-2.0
"""A release of this project on a Hub, brought to the Hugging Face cache so that it can be verified there.

The registry it came from is not asked: the trust file, the evidence beside the files and the files themselves are all
it takes. The revision is pinned; what lacks the evidence is refused before any weights are fetched.
"""

from __future__ import annotations

from pathlib import Path

from pq_registry.client.crew import Crew, Shared
from pq_registry.client.progress import Progress
from pq_registry.errors import SignatureInvalid
from pq_registry.format.manifest import MANIFEST_NAME
from pq_registry.format.statement import EC_BUNDLE_NAME, PQ_BUNDLE_NAME
from pq_registry.mirror.hub import Hub, HubReference
from pq_registry.mirror.hubfiles import fetch_to_cache, list_files, pin


def fetch_release(
    hub: Hub, reference: HubReference, cache: Path, *, connections: int, progress: Progress
) -> tuple[str, Path]:
    """Bring every file at a revision into the Hugging Face cache; what is there is not fetched.

    Args:
        hub: where from.
        reference: the model.
        cache: the cache (``$HF_HUB_CACHE``).
        connections: files at once.
        progress: told of every byte.

    Returns:
        The commit, and the directory of its snapshot. Nothing in it is verified.

    Raises:
        SignatureInvalid: step 2, if it does not carry the evidence of a release.
        NotFound: if there is no such model or revision.
        PqregError: what the Hub, the network or the disk refuse.
    """
    commit = pin(hub, reference)
    entries = list_files(hub, reference.repository, commit)
    names = {entry.path.text for entry in entries}
    lacking = [name for name in (MANIFEST_NAME, EC_BUNDLE_NAME, PQ_BUNDLE_NAME) if name not in names]
    if lacking:
        raise SignatureInvalid(
            f"{reference} does not carry the evidence of a release",
            expected=f"{MANIFEST_NAME}, {EC_BUNDLE_NAME} and {PQ_BUNDLE_NAME}",
            found=f"no {' and no '.join(lacking)}",
            hint="only what was published by pq-registry can be verified here; others are imported: pqreg mirror pull",
            step=2,
        )
    shared = Shared(sorted(entries, key=lambda entry: -entry.size))
    found: list[Path] = []
    crew = Crew()

    def work() -> None:
        for entry in shared:
            if crew.stopped():
                return
            place = fetch_to_cache(hub, reference.repository, commit, entry, cache, advance=progress.advance)
            found.append(place.parents[len(entry.path.parts) - 1])

    progress.start(f"fetch {reference.repository}", sum(entry.size for entry in entries))
    try:
        crew.run(work, min(connections, len(entries)))
    finally:
        progress.done()
    return commit, found[0]
