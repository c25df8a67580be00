# SPDX-License-Identifier: Apache-2.0
"""What the page of a release shows of its import: where a model comes from that the release's signer did not make.

A statement that is not about exactly the release's files says nothing about them, and the page says that.
"""

from __future__ import annotations

from typing import Any

from pq_registry import limits
from pq_registry.errors import PqregError
from pq_registry.format.importing import IMPORT_NAME, read_import
from pq_registry.format.manifest import Manifest
from pq_registry.service.cards.reading import find_file
from pq_registry.service.registry import Registry


def import_values(service: Registry, manifest: Manifest) -> dict[str, Any]:
    """What the template uses: ``imported`` is the statement, ``import_problem`` why there is none that counts."""
    entry = find_file(manifest, IMPORT_NAME)
    if entry is None or manifest.sealing is not None:
        return {"imported": None, "import_problem": None}
    try:
        data = service.cards.reader.read(entry, limit=limits.IMPORT_SHOWN_BYTES)
        return {"imported": read_import(data, manifest.files), "import_problem": None}
    except PqregError as error:
        # No statement, or damaged here: the page still has everything else to say.
        return {"imported": None, "import_problem": error.message}
