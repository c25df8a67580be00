# SPDX-License-Identifier: Apache-2.0
"""The Hub that a command speaks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.mirror.hub import Hub

HubOption = Annotated[
    str | None,
    typer.Option("--hub", metavar="URL", help="The Hub. [setting: PQREG_HUB, https://huggingface.co]"),
]


def open_hub(session: Session) -> Hub:
    """The configured Hub; what it must not be told is said."""
    from pq_registry.mirror.configured import configured_hub

    hub, withheld = configured_hub(session.settings)
    if withheld is not None:
        session.output.warning(withheld)
    return hub
