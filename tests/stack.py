# SPDX-License-Identifier: Apache-2.0
"""Which stores the registries of the suite use, chosen by the variable STACK of whoever runs it.

``STACK=directory`` (the default): SQLite and files, all in the data directory. ``STACK=s3-postgres``: a real object
store and a real PostgreSQL (``tests.engines``), a prefix and a database of its own for each data directory. A data
directory keeps its stores for as long as the test runs, so a registry can be stopped and started again.

``store_config(data)`` is the StoreConfig of a data directory; ``variables_for(words, cwd)`` what a ``pqreg`` command
with ``--data DIR`` finds in its environment. Tests that look into a directory on purpose say so with
``@pytest.mark.directory_only("why")``; all others reach what is stored through the stores.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests import engines

if TYPE_CHECKING:
    from pq_registry.storage.stores import StoreConfig

STACK = os.environ.get("STACK", "directory")
SHARED = STACK == "s3-postgres"
_TEMPLATE = "empty_registry"
_IMPORT = re.compile(r"^\s*(?:from|import) (tests\.[\w.]+)", re.MULTILINE)
_REGISTRY = re.compile(r"\btests\.stack\b|\b\w*registry: RunningRegistry|\bregistry_process: RegistryProcess")
_OWN_STORES = re.compile(r"\b(s3_bucket|postgres_url|tests\.engines|from tests import engines)\b")


@dataclass(frozen=True)
class Place:
    """The stores of one data directory."""

    bucket: engines.Bucket
    database: str

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs to find them."""
        settings = {**self.bucket.settings, "database": self.database}
        named = {f"PQREG_{name.upper()}": value for name, value in settings.items()}
        return {**named, **self.bucket.server.credentials.variables}


_places: dict[Path, Place] = {}
_templates: set[int] = set()


def store_config(data: Path) -> StoreConfig:
    """Where the registry of a data directory keeps things."""
    from pq_registry.storage.stores import StoreConfig

    if not SHARED:
        return StoreConfig(data=data)
    place = _place(data)
    return StoreConfig(data=data, database=place.database, s3=place.bucket.config())


def variables_for(words: Sequence[str | Path], cwd: Path) -> dict[str, str]:
    """Environment variables for a ``pqreg`` command; none if it names no data directory or the stack is a directory."""
    if not SHARED or "--data" not in words or words[0] == "log":
        return {}
    return _place(cwd / words[list(words).index("--data") + 1]).variables


def forget_below(directory: Path) -> None:
    """Drop the databases of the data directories in ``directory``."""
    for data in [data for data in _places if data.is_relative_to(directory.resolve())]:
        engines.drop_database(_places.pop(data).database)


def is_for_both(path: Path) -> bool:
    """Whether the tests of a file touch a registry and do not bring its stores, so that they differ between stacks."""
    text = _text_of(path)
    return bool(_REGISTRY.search(text)) and not _OWN_STORES.search(text)


@cache
def _text_of(path: Path) -> str:
    """A file and every module of ``tests`` it imports, but for those about stores of any kind."""
    seen, todo = {path}, [path]
    while todo:
        for name in _IMPORT.findall(todo.pop().read_text()):
            module = Path(__file__).parents[1].joinpath(*name.split(".")).with_suffix(".py")
            if module.is_file() and module.stem not in ("stack", "stored", "engines") and module not in seen:
                seen.add(module)
                todo.append(module)
    return "\n".join(file.read_text() for file in seen)


def _place(data: Path) -> Place:
    data = data.resolve()
    if data not in _places:
        _places[data] = Place(engines.fresh_bucket(), engines.fresh_database(template=_template()))
    return _places[data]


def _template() -> str:
    """An empty catalogue of this version's schema, made once per server: copying it is faster than migrating."""
    from pq_registry.storage.catalogue.database import Catalogue

    server = engines.database_server()
    if id(server) not in _templates:
        Catalogue.open_postgres(server.create(_TEMPLATE), upgrade=True).close()
        _templates.add(id(server))
    return _TEMPLATE
