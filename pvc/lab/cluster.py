"""Makes one cluster of a lab's running hosts, and says what a newcomer can do with it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from pvc.client.blocking import Transport
from pvc.client.connections import Connection
from pvc.client.transport import Lost, NoConnection
from pvc.errors import DriverError, Unavailable
from pvc.files import replace_file
from pvc.lab.host import LabHost
from pvc.lab.host_files import FENCE_PASSWORD_FILE
from pvc.lab.plan import BMC_USER, CLUSTER

READY_TIMEOUT_S = 60.0
"""Until every node has reported that it is ready: a second each, on a machine with nothing else to do."""
_REQUEST_TIMEOUT_S = 20.0
_POLL_S = 0.2
_CONFLICT = 409


def initialise(directory: Path, hosts: list[LabHost]) -> None:
    """Found the cluster, add its nodes with what fences them, and wait until all are ready; done twice, it is no harm.

    Keeps the first admin token in `admin-token`.
    """
    first = hosts[0]
    coordinators = [host.name for host in hosts if host.plan.coordinator]
    made = ask_gateway(first, "POST", "/cluster/init", {"name": CLUSTER, "coordinators": coordinators})
    if made.get("token"):
        replace_file(directory / "admin-token", made["token"].encode() + b"\n", mode=0o600)
    for host in hosts:
        if not host.plan.coordinator:
            ask_gateway(first, "POST", "/nodes", {"node": host.name, "coordinator": False})
        if host.plan.self_fencing:
            continue
        options = [f"ip={host.plan.bmc_address}", f"username={BMC_USER}", "lanplus=1", "cipher=3"]
        fence = {"agent": "fence_ipmilan", "option": options, "password_file": FENCE_PASSWORD_FILE}
        ask_gateway(first, "POST", f"/nodes/{host.name}/fence", fence)
    wait_until_ready(first, [host.name for host in hosts])


def wait_until_ready(host: LabHost, names: list[str]) -> None:
    """Wait until this host's gateway says that these nodes are ready. Raises Unavailable naming those that are not."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        nodes = ask_gateway(host, "GET", "/nodes").get("items", [])
        missing = sorted(set(names) - {node["name"] for node in nodes if node.get("state", "ready") == "ready"})
        if not missing:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"not ready within {READY_TIMEOUT_S:g} s: {', '.join(missing)}",
                code="lab.timeout",
                hint=f"`pvc lab logs {missing[0]}` shows what pvcd says",
            )
        time.sleep(_POLL_S)


def next_steps(directory: Path, hosts: list[LabHost], *, command: str) -> str:
    """What a newcomer does next; `command` is how the lab was called."""
    first, last = hosts[0].name, hosts[-1].name
    looks = {
        "status": "hosts, daemons, power",
        f"exec {first} -- pvc node list": "any command on any host",
        f"shell {first}": "or a shell there",
        f"logs {last} -f": "what its pvcd says",
    }
    harms = {
        f"kill {last}": f"a power cut; `power {last} on` ends it",
        f"freeze {last}": f"a host that hangs; `thaw {last}` ends it",
        f"partition {last}": f"{last} alone on one side; `heal` ends it",
    }
    width = max(len(words) for words in {**looks, **harms})
    shown = [[f"  {command} {w.ljust(width)}  # {why}" for w, why in table.items()] for table in (looks, harms)]
    return f"""\
A cluster of {len(hosts)} is up. To look around:

{chr(10).join(shown[0])}

To see it suffer, and recover:

{chr(10).join(shown[1])}

The first admin token is in {directory / "admin-token"}. To end it all: {command} down
"""


def ask_gateway(host: LabHost, method: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to the host's gateway, by its socket; what is so already (409) is no error. Raises PvcError."""
    transport = Transport(Connection(host.name, f"unix://{host.socket}"), "lab")
    body = None if fields is None else json.dumps(fields).encode()
    try:
        answer = transport.request(
            method, path, body=body, key=os.urandom(16).hex() if body else "", timeout_s=_REQUEST_TIMEOUT_S
        )
    except (Lost, NoConnection) as error:
        raise Unavailable(f"{host.name}'s gateway does not answer: {error}", code="lab.no_answer") from error
    reply: dict[str, Any] = json.loads(answer.body)
    if answer.status >= 400 and answer.status != _CONFLICT:
        raise DriverError(
            f"{host.name} refuses {method} {path}: {reply.get('detail', answer.status)}",
            code="lab.command_failed",
            hint=f"`pvc lab logs {host.name}` shows what pvcd says",
        )
    return reply
