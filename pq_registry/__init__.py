# SPDX-License-Identifier: Apache-2.0
"""pq-registry: post-quantum secured distribution of AI models.

``load`` and ``iter_tensors`` give verified tensors, ``open_verified`` gives parts of them and files; everything else is
in the sub-packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pq_registry.loader.api import iter_tensors as iter_tensors
    from pq_registry.loader.api import load as load
    from pq_registry.loader.api import open_verified as open_verified

__version__ = "0.1.0"
__all__ = ["__version__", "iter_tensors", "load", "open_verified"]


def __getattr__(name: str) -> object:
    # The loader needs numpy; a node that only pulls should not pay for importing it.
    if name in ("load", "iter_tensors", "open_verified"):
        from pq_registry.loader import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
