# SPDX-License-Identifier: Apache-2.0
"""Importing a model from a Hub: staged, verified, then pushed as a release that says it is an import.

The release is signed by the importer, who vouches for where the files come from and for nothing else about them:
``pqreg.import.json`` in it says so. The staging directory is kept until the release exists, so an import that was cut
off anywhere goes on where it stopped when it is run again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.push import PushOptions, PushResult, push
from pq_registry.client.tagging import Publisher
from pq_registry.client.trust import Verifier
from pq_registry.durable import reported
from pq_registry.errors import UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.importing import ImportStatement
from pq_registry.format.name import Reference
from pq_registry.mirror.hub import Hub, HubReference
from pq_registry.mirror.selection import ImportOptions
from pq_registry.mirror.staging import NOTES, stage


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did: what it says of itself, and the push of it.

    ``network`` is whether something was converted by a process that could have reached a network.
    """

    statement: ImportStatement
    pushed: PushResult
    network: bool = False


def staging_place(root: Path, hub: Hub, reference: HubReference) -> Path:
    """Where below ``root`` a model is staged: one directory for each model of each Hub, whatever the revision.

    Its name is the model's, for whoever watches; the one above it is this import's alone.
    """
    own = Digest.of(f"{hub.endpoint}\n{reference.repository}".encode()).hex
    return root / own / reference.repository.rpartition("/")[2]


def import_model(  # noqa: PLR0913  one keyword per thing to decide
    hub: Hub,
    source: HubReference,
    target: Reference,
    *,
    publisher: Publisher,
    staging: Path,
    verifier: Callable[[], Verifier],
    options: ImportOptions | None = None,
    push_options: PushOptions | None = None,
    keep: bool = False,
    progress: Progress | None = None,
) -> ImportResult:
    """Import ``source`` as a release of the repository of ``target``, and point its tag at it.

    Args:
        hub: where from.
        source: which model, at which revision.
        target: the repository and tag.
        publisher: who signs the import.
        staging: a directory below which models are staged.
        verifier: makes the verifier of the trust file; called only for a model that carries a release's evidence.
        options: what to take, and whose signature is required.
        push_options: as of a push. Without a lineage, a release of this project's is the base of its import.
        keep: whether the staged files stay.
        progress: told of every byte.

    Raises:
        UsageError: if the target names a digest, or the options do not fit the model.
        PqregError: as ``stage`` and ``push``.
    """
    if target.digest is not None or target.tag is None:
        raise UsageError("an import decides the digest itself", expected="namespace/name[:tag]", found=target)
    options = options or ImportOptions()
    push_options = replace(push_options or PushOptions(), allow_unsafe=options.allow_unsafe)
    progress = progress or NullProgress()
    place = staging_place(staging, hub, source)
    staged = stage(hub, source, place, verifier=verifier, now=publisher.now, options=options, progress=progress)
    if push_options.lineage is None and staged.lineage:
        push_options = replace(push_options, lineage=staged.lineage)
    pushed = push(place, target, publisher=publisher, options=push_options, progress=progress)
    if not keep:
        with reported("remove", place):
            shutil.rmtree(place.parent)
    # The library's notes are nothing that anybody left out.
    skipped = tuple(name for name in pushed.skipped if name != NOTES)
    return ImportResult(staged.statement, replace(pushed, skipped=skipped), staged.network)
