# SPDX-License-Identifier: Apache-2.0
"""Finding liboqs and loading its Python wrapper without letting the wrapper look for, fetch or build anything.

``import oqs`` searches for the C library, and where it finds none it runs ``git clone`` and ``cmake`` and loads the
result (attack case G2). So it is never imported as other modules are:

1. A library file is found first: in ``OQS_INSTALL_PATH`` and nowhere else if that is set; otherwise where
   ``make liboqs`` puts it, in ``$XDG_DATA_HOME/pqreg/liboqs``, and in the system's directories. Directories are
   listed; ``ctypes.util.find_library`` is not asked, because it runs gcc and ldconfig.
2. It must be a regular file that belongs to root or to the user who runs this and that nobody else may write.
3. It is loaded, so that a damaged file is an error of ours.
4. Only then the wrapper's code runs, as a private copy whose ``import`` statements get stand-ins: of ``subprocess``,
   in which nothing can be started, and of ``ctypes.util``, which has found exactly that file.

Without a library nothing of the wrapper runs at all. Nothing here reads or changes the process's environment.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib.util
import logging
import os
import stat
import sysconfig
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final, NoReturn

from pq_registry.errors import ProviderUnavailable
from pq_registry.settings import LibraryPlaces

_HINT: Final = "run make liboqs in a source tree (it needs cargo, cmake and cc), or set OQS_INSTALL_PATH"
_NAMES: Final = ("liboqs.so", "liboqs.so.*", "liboqs.dylib")
_SYSTEM: Final = ("/usr/local/lib", "/usr/local/lib64", "/usr/lib64", "/usr/lib", "/opt/homebrew/lib")
_SOURCE_TREE: Final = Path(__file__).resolve().parents[2]
_FOREIGN_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_lock = threading.Lock()


def find_library(places: LibraryPlaces) -> Path:
    """The library file to load, without links.

    Raises:
        ProviderUnavailable: if there is none, or others may write the one that is there.
    """
    for directory in _directories(places):
        for pattern in _NAMES:
            for path in sorted(directory.glob(pattern)):
                if path.is_file():
                    return owned(path.resolve())
    where = str(places.install_path) if places.install_path else "build/liboqs, the data directory or the system"
    raise ProviderUnavailable("liboqs is not installed", expected="a shared library liboqs", found=f"none in {where}",
                              hint=_HINT)  # fmt: skip


def load_wrapper(library: Path) -> ModuleType:
    """A private copy of ``oqs.oqs`` of liboqs-python that works with ``library`` and with nothing else.

    Raises:
        ProviderUnavailable: if liboqs-python is not installed, or the two do not work together.
    """
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        raise ProviderUnavailable(f"{library} cannot be loaded", found=error, hint=_HINT) from None
    spec = importlib.util.spec_from_file_location("oqs.oqs", _wrapper_source())
    if spec is None or spec.loader is None:
        raise ProviderUnavailable("liboqs-python cannot be loaded", hint="pip install 'pq-registry[liboqs]'")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _imports_for(library)}
    # It logs to standard output, which belongs to the results of commands, and warns of every other minor version.
    logging.getLogger("oqs.oqs").disabled = True
    try:
        with _lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ProviderUnavailable(
            f"liboqs-python does not work with {library}", found=f"{type(error).__name__}: {error}", hint=_HINT
        ) from error
    return module


def _directories(places: LibraryPlaces) -> Iterator[Path]:
    if places.install_path is not None:
        yield from _library_directories([places.install_path])
        return
    yield from _library_directories([_SOURCE_TREE / "build" / "liboqs", places.data_home / "pqreg" / "liboqs"])
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch:
        yield from (Path("/usr/local/lib") / multiarch, Path("/usr/lib") / multiarch)
    yield from (Path(directory) for directory in _SYSTEM)


def _library_directories(prefixes: Iterable[Path]) -> Iterator[Path]:
    for prefix in prefixes:
        yield from (prefix / "lib", prefix / "lib64")


def owned(path: Path) -> Path:
    """``path``, if only root and the user who runs this can replace it.

    Raises:
        ProviderUnavailable: if others can.
    """
    # Whoever may replace the file or its name runs code in this process.
    for checked in (path, path.parent):
        try:
            state = os.stat(checked)
        except OSError as error:
            raise ProviderUnavailable(f"cannot look at {checked}", found=error.strerror, hint=_HINT) from None
        if state.st_uid not in (0, os.geteuid()) or state.st_mode & _FOREIGN_WRITE:
            raise ProviderUnavailable(
                f"others may replace {path}",
                expected="a file and a directory of root's or your own, which nobody else may write",
                found=f"{checked}: user {state.st_uid}, mode {stat.S_IMODE(state.st_mode):04o}",
                hint=f"chmod go-w {checked}, after making sure that it is what you installed",
            )
    return path


def _wrapper_source() -> str:
    from importlib.metadata import PackageNotFoundError, distribution  # slow, and only needed with liboqs

    try:
        found = distribution("liboqs-python")
    except PackageNotFoundError:
        raise ProviderUnavailable(
            "liboqs-python is not installed", hint="pip install 'pq-registry[liboqs]'; the name of its package is oqs"
        ) from None
    return str(found.locate_file("oqs/oqs.py"))


def _imports_for(library: Path) -> Any:
    """What ``import`` does in the wrapper."""

    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise ProviderUnavailable("liboqs-python tried to start a program", hint=_HINT)

    processes = SimpleNamespace(run=refuse, Popen=refuse, call=refuse, check_call=refuse, check_output=refuse)
    search = SimpleNamespace(util=SimpleNamespace(find_library=lambda _name: str(library)))

    def import_(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "subprocess":
            return processes
        if name == "ctypes.util":
            return search  # ``import ctypes.util as u`` binds the attribute ``util`` of what this answers
        return builtins.__import__(name, *arguments, **options)

    return import_
