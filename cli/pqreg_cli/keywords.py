# SPDX-License-Identifier: Apache-2.0
"""Errors of the loader speak of its keyword arguments; on the command line the same things are options."""

from __future__ import annotations

import re

from pq_registry.errors import PqregError

_KEYWORD = re.compile(r'\b(expect|device|framework|io|check_on|names|files|connections)=(?:["\']([^"\']*)["\'])?')


def as_options(error: PqregError) -> PqregError:
    """The error, with ``device="cpu"`` as ``--device cpu`` and ``names=`` as ``--names``."""
    for member in ("message", "expected", "found", "hint"):
        text = getattr(error, member)
        if text is not None:
            setattr(error, member, _KEYWORD.sub(_option, text).replace("iter_tensors", "--iterate"))
    return error


def _option(keyword: re.Match[str]) -> str:
    option = f"--{keyword[1].replace('_', '-')}"
    return f"{option} {keyword[2]}" if keyword[2] else option
