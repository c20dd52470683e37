"""The gateway's outermost layer: each request gets an id, is counted and timed, and told to the tracer.

What it is about the inner layers write into the scope, which nobody outside can: the route, the code of a refusal, the
record that a command led to.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvc.about import REQUEST, about
from pvc.gateway.endpoint import Endpoint
from pvc.gateway.services import GatewayServices
from pvc.spans import Span

ENDPOINT = "pvc.endpoint"
"""The key in the scope of the endpoint that answers; the path alone where it is none of the API's list."""

REFUSAL = "pvc.refusal"
"""Of the code of the error that was the reply."""

RECORD = "pvc.record"
"""Of the id of the record that a command led to."""

WAITED = "pvc.waited"
"""Of the seconds that a reply was held back because the request asked for that: they say nothing of how fast we are."""

SWITCHING = 101
"""The status of a WebSocket, which is then open for as long as somebody likes."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class RequestMeter:
    """Wraps the whole app."""

    def __init__(self, services: GatewayServices, app: ASGIApp) -> None:
        self._services = services
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        services, meters = self._services, self._services.meters
        headers = dict(scope.get("headers", ()))
        given = headers.get(b"x-request-id", b"")
        # What a proxy in front has called it, so that its log and ours can be laid side by side.
        request_id = given.decode() if _ID.fullmatch(given) else services.rng.randbytes(8).hex()
        scope = {key: value for key, value in scope.items() if key not in (ENDPOINT, REFUSAL, RECORD, WAITED)}
        began_s, began_us = services.clock.monotonic(), services.clock.wall_us()
        status, answered_s = 0, 0.0

        async def watched(message: Message) -> None:
            nonlocal status, answered_s
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                status = message.get("status", SWITCHING)
                answered_s = services.clock.monotonic() - began_s
                if message["type"] != "websocket.accept":
                    message.setdefault("headers", []).append((b"pvc-request-id", request_id.encode()))
            await send(message)

        meters.requests_under_way += 1
        try:
            with about(REQUEST, request_id):
                await self._app(scope, receive, watched)
        finally:
            meters.requests_under_way -= 1
            endpoint = scope.get(ENDPOINT, "other")
            route = endpoint.path if isinstance(endpoint, Endpoint) else endpoint
            method = scope.get("method", "GET")
            method = method if method in METHODS else "other"
            meters.requests.add(route, method, str(status) if status else "none")
            if status > SWITCHING and endpoint != "other" and not getattr(endpoint, "streams", None):
                meters.request_seconds.observe(max(0.0, answered_s - scope.get(WAITED, 0.0)), route, method)
            if refusal := scope.get(REFUSAL, ""):
                meters.refusals.add(refusal)
            self._tell(scope, request_id, route, method, status, began_us, headers.get(b"traceparent", b""))

    def _tell(
        self, scope: Scope, request_id: str, route: str, method: str, status: int, began_us: int, parent: bytes
    ) -> None:
        record, watch = scope.get(RECORD, ""), self._services.watch
        if not record or watch is None or watch.tracer is None:
            return
        watch.tracer.tell(
            Span(
                name=f"{method} {route}",
                trace=record,
                record=record,
                began_us=began_us,
                ended_us=self._services.clock.wall_us(),
                server=True,
                link=parent.decode() if _TRACEPARENT.fullmatch(parent) else "",
                attributes={
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                    "pvc.node": self._services.node,
                    "pvc.record": record,
                    "pvc.request": request_id,
                },
            )
        )
