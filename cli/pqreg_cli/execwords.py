# SPDX-License-Identifier: Apache-2.0
"""The words of a command that ``pqreg exec`` runs: places are filled in, and what vLLM has to be told is added.

======================  ================================================================================================
``{dir}``               the private directory with the verified files
``{file}``              the path of the sealed memory (``--memfd``)
``{release}``           ``namespace/name@sha256:...``, the release that was verified
``{config}``            what the vLLM plug-in needs to know, as JSON: release, and directory if it is one
======================  ================================================================================================

Everything else stays as it is, other braces included. No shell is involved.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

from pq_registry.errors import UsageError

_PLACE: Final = re.compile(r"\{(dir|file|release|config)\}")


def check_places(command: Sequence[str], *, memfd: bool, with_weights: bool) -> None:
    """Refuse a command that does not say where the release goes.

    Raises:
        UsageError: naming the place that is missing or has nothing to stand for.
    """
    if uses(command, "file") and not memfd:
        raise UsageError("there is nothing for {file}", expected="--memfd PATH", hint="name a file of the release")
    if memfd and not uses(command, "file"):
        raise UsageError(
            "the command does not say where the file goes", expected="{file} among its words", found=_shown(command)
        )
    if not uses(command, "dir") and (with_weights or not memfd):
        raise UsageError(
            "the command does not say where the release goes", expected="{dir} among its words", found=_shown(command),
            hint="for instance: pqreg exec REF -- vllm serve {dir}",
        )  # fmt: skip


def uses(command: Sequence[str], place: str) -> bool:
    """Whether ``place`` is among the places of ``command``."""
    return any(place in _PLACE.findall(word) for word in command)


def filled(command: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """``command`` with what stands for each place."""
    return [_PLACE.sub(lambda found: places.get(found[1], found[0]), word) for word in command]


def plugin_config(release: str, directory: str | None) -> str:
    """What ``loader.integrations.vllm`` is told, as JSON."""
    return json.dumps({"release": release} if directory is None else {"release": release, "directory": directory})


def for_vllm(command: Sequence[str], *, name: str) -> list[str]:
    """``vllm serve`` with the options that make it load by the plug-in; any other command as it is.

    Options that are there already stay the only ones: whoever gave them knows better.

    Args:
        command: with places.
        name: of the repository; clients of the server shall not have to ask for the model by a random path.
    """
    words = list(command)
    if len(words) < 2 or PurePath(words[0]).name != "vllm" or words[1] != "serve":
        return words
    given = {
        word.partition("=")[0].replace("_", "-"): word.partition("=")[2] if "=" in word else after
        for word, after in itertools.zip_longest(words, words[1:], fillvalue="")
        if word.startswith("--")
    }
    if "--load-format" not in given:
        words += ["--load-format", "pqreg"]
    if given.get("--load-format", "pqreg").lower() == "pqreg" and "--model-loader-extra-config" not in given:
        words += ["--model-loader-extra-config", "{config}"]
    if "--served-model-name" not in given:
        words += ["--served-model-name", name]
    return words


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)[:120]
