# SPDX-License-Identifier: Apache-2.0
"""``pqreg mirror``: copies on the Hugging Face Hub, and imports from there."""

from __future__ import annotations

from pqreg_cli.lazy import new_app
from pqreg_cli.mirrorpull import pull
from pqreg_cli.mirrorpush import push, status, sync

app = new_app(help="Keep copies of releases on a Hugging Face Hub, and import models from one.")
app.command("push")(push)
app.command("sync")(sync)
app.command("status")(status)
app.command("pull")(pull)
