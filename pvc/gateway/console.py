"""The serial console of a VM: what the guest wrote (a file, read or followed), and the live line (a WebSocket).

Both are where the VM is. A gateway of another node says which one to ask; the client knows how to.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pvc.commands.access_rights import Asker, require_vm, rights_of
from pvc.commands.access_table import Action
from pvc.commands.base import find_vm
from pvc.commands.vm_ref import wrong_state
from pvc.drivers.hypervisor import Console, Hypervisor
from pvc.errors import NotFound, PvcError, Rejected, Unavailable
from pvc.gateway.endpoint import Call, Endpoint, arguments_of
from pvc.gateway.services import GatewayServices
from pvc.projections.state import Vm
from pvc.projections.vm_machine import AT_REST

logger = logging.getLogger("pvc.gateway.access")

CONSOLE_PATH = "/vms/{vm}/console"
CONSOLE_ACTION = Action.CONSOLE_WRITE

ALLOWED_AGAIN_S = 1.0
"""Between looks whether who has a console open still may: so long a revoked token goes on there."""

FOLLOW_PAUSE_S = 0.2
"""Between looks at the file; a person does not notice."""

MAX_LOG_BYTES = 4 * 1024 * 1024
"""What is read of the end of a console's file at most, however many lines are asked for."""

MAX_FRAME_BYTES = 64 * 1024
"""What a client may type at once: a pasted file."""

OPEN_DEADLINE_S = 10.0

_CHUNK = 64 * 1024


class LogArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the console's log is read."""

    lines: Annotated[int, Meta(ge=0, le=100_000, description="The last lines of what there is.")] = 100
    follow: Annotated[bool, Meta(description="Go on with what the guest writes from now on.")] = False


async def _log(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, LogArguments)
    ref = call.request.path_params["vm"]
    require_vm(services.world.state, call.rights, ref)
    vm = find_vm(services.world.state, ref)
    path = _hypervisor_of(services, vm).console_log(vm.id)
    text, end = await asyncio.to_thread(_last_lines, path, arguments.lines)
    headers = {"PVC-Position": str(services.world.position), "X-Content-Type-Options": "nosniff"}
    if not arguments.follow:
        return Response(text, headers=headers, media_type="text/plain")
    services.console_places.require(call.principal.asker.shown)
    stream = _follow(services, call, vm.id, path, text, end)
    return StreamingResponse(stream, headers=headers, media_type="text/plain")


async def serve_console(services: GatewayServices, websocket: WebSocket, asker: Asker) -> None:
    """Join a WebSocket with a VM's console until either ends, or it is not allowed any more. Raises PvcError before the
    socket was accepted."""
    vm = find_vm(services.world.state, websocket.path_params["vm"])
    console = await _open(_hypervisor_of(services, vm), vm)
    try:
        await websocket.accept()
        await _join(services, websocket, console, vm.id, asker)
    finally:
        await console.close()


async def _open(hypervisor: Hypervisor, vm: Vm) -> Console:
    if vm.state in AT_REST:
        raise wrong_state(vm, f"start it with: pvc vm start {vm.name}")
    try:
        async with asyncio.timeout(OPEN_DEADLINE_S):
            return await hypervisor.open_console(vm.id)
    except TimeoutError as error:
        raise Unavailable(
            "the hypervisor does not answer", code="hypervisor.unavailable", hint="see that libvirt runs on the node"
        ) from error
    except NotFound as error:
        # The guest has just ended, or not yet begun; the state will say so in a moment.
        raise Rejected(
            f"{vm.name} does not run at this moment",
            code="vm.no_console",
            hint=f"`pvc vm info {vm.name}` shows its state; try again when it is running",
        ) from error


async def _join(services: GatewayServices, websocket: WebSocket, console: Console, vm_id: str, asker: Asker) -> None:
    ways = {
        asyncio.create_task(_show(websocket, console)),
        asyncio.create_task(_type(websocket, console)),
        asyncio.create_task(_while_allowed(services, CONSOLE_ACTION, vm_id, asker)),
    }
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in done:
            way.result()
    except (PvcError, WebSocketDisconnect) as error:
        logger.info("console ended reason=%s", error.code if isinstance(error, PvcError) else "client")
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    if WebSocketState.DISCONNECTED not in (websocket.client_state, websocket.application_state):
        await websocket.close(1000, "the console is gone")


async def _show(websocket: WebSocket, console: Console) -> None:
    while data := await console.read():
        await websocket.send_bytes(data)


async def _while_allowed(services: GatewayServices, action: Action, vm_id: str, asker: Asker) -> None:
    """Return when the asker may not go on: the token was revoked or has expired, the role or the VM's tags changed."""
    while still_allowed(services, action, vm_id, asker):  # noqa: ASYNC110 - time passes too, not events alone
        await asyncio.sleep(ALLOWED_AGAIN_S)


def still_allowed(services: GatewayServices, action: Action, vm_id: str, asker: Asker) -> bool:
    """Whether what was allowed for a VM still is."""
    state = services.world.state
    token = state.tokens.get(asker.token)
    if asker.token and (token is None or token.expired(services.clock.wall_us())):
        return False
    return rights_of(state, asker, action).covers(state.vms.get(vm_id))


async def _type(websocket: WebSocket, console: Console) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes") or (message.get("text") or "").encode()
        if len(data) > MAX_FRAME_BYTES:
            await websocket.close(1009, f"at most {MAX_FRAME_BYTES} bytes at once")
            return
        await console.write(data)


def _hypervisor_of(services: GatewayServices, vm: Vm) -> Hypervisor:
    if vm.node != services.node or services.hypervisor is None:
        node = services.world.state.nodes.get(vm.node)
        where = f" ({node.address})" if node is not None and node.address else ""
        raise Rejected(
            f"the console of {vm.name} is on node {vm.node}, this is {services.node}",
            code="vm.console_elsewhere",
            hint=f"ask the gateway of {vm.node}{where}",
        )
    return services.hypervisor


async def _follow(
    services: GatewayServices, call: Call, vm_id: str, path: Path, text: bytes, end: int
) -> AsyncIterator[bytes]:
    with services.console_places.taken(call.principal.asker.shown):
        yield text
        async for chunk in _go_on(services, call, vm_id, path, end):
            yield chunk


async def _go_on(services: GatewayServices, call: Call, vm_id: str, path: Path, end: int) -> AsyncIterator[bytes]:
    asker = call.principal.asker
    while not (services.stopping.is_set() or await call.request.is_disconnected()):
        if not still_allowed(services, Action.CONSOLE_READ, vm_id, asker):
            return
        vm = services.world.state.vms.get(vm_id)
        chunk, end = await asyncio.to_thread(_read_on, path, end)
        if chunk:
            yield chunk
        elif vm is None or vm.node != services.node:
            return  # it goes on elsewhere, or not at all; all that it wrote here has been sent
        else:
            await asyncio.sleep(FOLLOW_PAUSE_S)


def _last_lines(path: Path, lines: int) -> tuple[bytes, int]:
    """The last lines of a file, and the place where it ends; nothing where there is no file yet."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = end
            newlines = 0
            text = b""
            while start > 0 and newlines <= lines and end - start < MAX_LOG_BYTES:
                step = min(_CHUNK, start)
                start = file.seek(start - step)
                part = file.read(step)
                newlines += part.count(b"\n")
                text = part + text
    except FileNotFoundError:
        return b"", 0
    except OSError as error:
        raise Unavailable(f"the console's log cannot be read: {error.strerror}", code="vm.log_unreadable") from error
    # The newline at the very end closes the last line and begins none.
    kept = text.removesuffix(b"\n").split(b"\n")[-lines:] if lines else []
    tail = b"\n".join(kept) + (b"\n" if kept and text.endswith(b"\n") else b"")
    return tail, end


def _read_on(path: Path, end: int) -> tuple[bytes, int]:
    """What was written since; from the start again if the file was begun anew."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(end if size >= end else 0)
            chunk = file.read(_CHUNK)
            return chunk, file.tell()
    except OSError:
        return b"", 0


CONSOLE = (
    Endpoint(
        name="vm.log",
        action=Action.CONSOLE_READ,
        method="GET",
        path="/vms/{vm}/log",
        handle=_log,
        summary="What the guest wrote to its serial console.",
        help="Plain text, from the node that the VM is on; another one refuses with `vm.console_elsewhere`. With "
        "`follow` the reply goes on until the client hangs up, or the VM leaves the node.",
        arguments=LogArguments,
    ),
)
