# SPDX-License-Identifier: Apache-2.0
"""Histories: several statements of one chain at once, as another registry recorded them; for replicas.

The last one is logged before the answer, like any statement. The others have no effect of their own any more; they are
logged by the service's catching up, within a minute.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_recipient_id
from pq_registry.format.name import Namespace, Tag
from pq_registry.format.strict_json import Fields, decode_base64, parse_strict
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, RECORDED, RECORDED_ALREADY, json_body
from pq_registry.server.bodies import JSON_TYPE, read_bytes
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Heavy, HeavyWork
from pq_registry.server.models import HistoryRequest
from pq_registry.server.recorded import recorded_answer
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller

router = APIRouter(responses=PROBLEMS)


@router.post(
    "/v1/repos/{ns}/{name}/tags/{tag}/history",
    status_code=201,
    responses={201: RECORDED, 200: RECORDED_ALREADY},
    openapi_extra=json_body(HistoryRequest),
)
async def add_tag_history(
    request: Request,
    ns: str,
    name: str,
    tag: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_HISTORY)],
    service: Service,
    heavy: Heavy,
) -> Response:
    """Record the statements of a tag that follow its present one, oldest first, all or none; they may have expired."""
    bodies = await _statements(request, heavy, limits.TAG_ENVELOPE_BYTES)
    digest, is_new = await heavy.run(service.tagging.add_history, caller, repository_name(ns, name), Tag(tag), bodies)
    await heavy.run(service.cards.follow, repository_name(ns, name))
    return await recorded_answer(request, digest, is_new=is_new)


@router.post(
    "/v1/repos/{ns}/{name}/grants/{release}/{recipient}/history",
    status_code=201,
    responses={201: RECORDED, 200: RECORDED_ALREADY},
    openapi_extra=json_body(HistoryRequest),
)
async def add_grant_history(
    request: Request,
    ns: str,
    name: str,
    release: str,
    recipient: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_HISTORY)],
    service: Service,
    heavy: Heavy,
) -> Response:
    """Record the statements of a grant that follow its present one, oldest first, as for a tag."""
    bodies = await _statements(request, heavy, limits.GRANT_ENVELOPE_BYTES)
    digest, is_new = await heavy.run(
        service.granting.add_history,
        caller,
        repository_name(ns, name),
        Digest(release),
        parse_recipient_id(recipient),
        bodies,
    )
    return await recorded_answer(request, digest, is_new=is_new)


@router.post(
    "/v1/namespaces/{ns}/status/history",
    status_code=201,
    responses={201: RECORDED, 200: RECORDED_ALREADY},
    openapi_extra=json_body(HistoryRequest),
)
async def add_status_history(
    request: Request, ns: str, caller: Annotated[Caller, Depends(guard.REVOKE_HISTORY)], service: Service, heavy: Heavy
) -> Response:
    """Record the statuses that follow the present one, oldest first, all or none; they may have expired."""
    bodies = await _statements(request, heavy, limits.STATUS_ENVELOPE_BYTES)
    digest, is_new = await heavy.run(service.statuses.add_history, caller, Namespace(ns), bodies)
    return await recorded_answer(request, digest, is_new=is_new)


async def _statements(request: Request, heavy: HeavyWork, limit: int) -> list[bytes]:
    """The envelopes in the request's body, each of at most ``limit`` bytes.

    Raises:
        HTTPException: if it is of another type, too large or too slow.
        FormatError: if it is not of the form ``HistoryRequest``.
    """
    data = await read_bytes(request, kind=JSON_TYPE, limit=limits.HISTORY_BYTES)
    return await heavy.run(_read, data, limit)


def _read(data: bytes, limit: int) -> list[bytes]:
    what = "the request's body"
    # Megabytes of anything but a few long texts take seconds to parse, and are refused without (attack case D9).
    if sum(map(data.count, (b",", b"[", b"{"))) > limits.HISTORY_STATEMENTS + 1:
        raise FormatError(
            f"{what} is no history",
            expected=f"at most {limits.HISTORY_STATEMENTS} base64 texts in one array",
            found="more than that",
        )
    fields = Fields(parse_strict(data, what=what, limit=limits.HISTORY_BYTES), what)
    items = fields.array("statements", limit=limits.HISTORY_STATEMENTS, minimum=1)
    fields.done()
    if any(not isinstance(item, str) for item in items):
        fields.fail("statements", "an array of base64 texts", "something else")
    return [decode_base64(str(item), what=what, limit=limit) for item in items]
