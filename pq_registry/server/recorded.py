# SPDX-License-Identifier: Apache-2.0
"""The answer to every statement that was accepted: its digest, its leaf and its receipt.

What the use case recorded is logged here, and the answer waits for the receipt. If there is none in time the answer is
503; the statement stays recorded, and the same request again, or the service's own catching up, finishes it.
"""

from __future__ import annotations

import time

from fastapi import Request
from starlette.responses import Response

from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import encode_base64
from pq_registry.server.answers import created, json_answer
from pq_registry.server.heavy import HeavyWork
from pq_registry.server.metrics import Metrics
from pq_registry.service.registry import Registry


async def recorded_answer(request: Request, statement: Digest, *, is_new: bool) -> Response:
    """Log the statement just recorded, and answer with its receipt.

    Raises:
        StorageError: if the log cannot take it, or has no receipt in time.
    """
    registry: Registry = request.app.state.registry
    waiting: HeavyWork = request.app.state.waiting
    metrics: Metrics = request.app.state.metrics
    begun = time.monotonic()
    logged = await waiting.run(registry.ledger.log, statement)
    metrics.observe_receipt(time.monotonic() - begun, quorum=logged.quorum)
    content = {
        "digest": str(statement),
        "log_index": logged.index,
        "receipt": encode_base64(logged.receipt),
        "quorum": logged.quorum,
    }
    return json_answer(content, created(is_new))
