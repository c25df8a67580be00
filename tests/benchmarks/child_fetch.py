# SPDX-License-Identifier: Apache-2.0
"""A contender for pull: huggingface_hub's own download function, one stream, one file after another.

``OUT URL=PATH...``; the token comes from PQREG_TOKEN. Ends with an fsync of every file, like the others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from huggingface_hub.file_download import http_get


def main(out: Path, pairs: list[str]) -> None:
    """Fetch every URL to its path."""
    headers = {"Authorization": f"Bearer {os.environ['PQREG_TOKEN']}"}
    for pair in pairs:
        url, _, name = pair.partition("=")
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            http_get(url, file, headers=headers)
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
