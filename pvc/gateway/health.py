"""Whether this gateway can do its work: for load balancers and monitoring, without a token."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.responses import Response

from pvc import __version__
from pvc.gateway.services import GatewayServices

HISTORY_LAG = 1_000
"""Records by which the history index may be behind before that is worth telling: a second of a busy cluster."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's health. Status 503 when it cannot take commands."""

    status: Literal["ok", "degraded"]
    reasons: list[str]
    position: int
    version: str


def health_response(services: GatewayServices) -> Response:
    """The health, with status 200 or 503."""
    fault, position = services.world.fault, services.world.position
    reasons = [f"the fold has stopped: {fault.code}"] if fault else []
    behind = position - services.history.position
    if behind > HISTORY_LAG:
        reasons.append(f"the history index is {behind:,} records behind")
    health = Health(status="degraded" if reasons else "ok", reasons=reasons, position=position, version=__version__)
    return Response(
        msgspec.json.encode(health),
        503 if fault else 200,
        {"PVC-Position": str(position)},
        media_type="application/json",
    )
