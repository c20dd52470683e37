"""Asks a lab's gateways as an admin's client would: each command with its key, again elsewhere when no answer came.

What became of it is kept to be held against the log afterwards.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from pvc.client.blocking import Transport
from pvc.client.connections import Connection
from pvc.client.transport import Answer, Lost, NoConnection
from pvc.commands.registry import BY_NAME
from pvc.lab.host import LabHost

TRIES = 4
PATIENCE_S = 12.0
"""For one answer; a host that hangs never gives one. Shorter than a gateway tries, so that some outcomes stay open."""
_PAUSE_S = 0.5

Verdict = Literal["acknowledged", "unchanged", "rejected", "unknown", "not-sent", "dry"]


class Asked(msgspec.Struct, kw_only=True):
    """A command, and what its client knows of it."""

    key: str
    name: str
    fields: dict[str, Any]
    asked_s: float
    answered_s: float = 0.0
    verdict: Verdict = "unknown"
    position: int = 0
    record: str = ""
    code: str = ""
    by: list[str] = []
    """The hosts that were asked, in order."""

    @property
    def sentence(self) -> str:
        """For a person."""
        words = " ".join(f"{key}={value}" for key, value in self.fields.items() if key not in ("kernel", "initrd"))
        outcome = f"{self.verdict} {self.code or self.position or ''}".rstrip()
        return f"{self.name} {words} by {','.join(self.by)}: {outcome} ({self.key[:8]})"


def ask(host: LabHost, method: str, path: str, fields: dict[str, Any] | None = None, *, key: str = "") -> Answer:
    """One request to one gateway. Raises Lost, NoConnection."""
    transport = Transport(Connection(host.name, f"unix://{host.socket}"), "chaos", connect_timeout_s=PATIENCE_S)
    body = None if fields is None else json.dumps(fields).encode()
    return transport.request(method, path, body=body, key=key, timeout_s=PATIENCE_S)


def command(
    rng: random.Random, hosts: Sequence[LabHost], name: str, fields: dict[str, Any], *, dry_run: bool = False
) -> Asked:
    """Ask for a command until one gateway or another answers; its key stays the same."""
    asked = Asked(key=f"{rng.getrandbits(128):032x}", name=name, fields=fields, asked_s=time.time())
    spec, given = BY_NAME[name], dict(fields)
    path = spec.path
    for field in [field for field in given if f"{{{field}}}" in path]:
        path = path.replace(f"{{{field}}}", quote(str(given.pop(field)), safe=""))
    if dry_run:
        path = f"{path}?{urlencode({'dry_run': 'true'})}"
    body = given if given or spec.method != "DELETE" else None
    sent = False
    for _ in range(TRIES):
        host = rng.choice(hosts)
        asked.by.append(host.name)
        try:
            answer = ask(host, spec.method, path, body, key=asked.key)
        except NoConnection:
            time.sleep(_PAUSE_S * rng.random())
            continue
        except Lost:
            sent = True
            continue
        sent = True
        if _judge(asked, answer, dry_run=dry_run):
            break
        time.sleep(_PAUSE_S * rng.random())
    else:
        asked.verdict = "unknown" if sent else "not-sent"
    asked.answered_s = time.time()
    return asked


def _judge(asked: Asked, answer: Answer, *, dry_run: bool) -> bool:
    """Whether the answer settles the matter."""
    try:
        reply = json.loads(answer.body)
    except ValueError:
        reply = {}
    asked.code = str(reply.get("code", ""))
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return False
    if dry_run:
        asked.verdict = "dry"
    elif answer.status >= HTTPStatus.BAD_REQUEST:
        asked.verdict = "rejected"
    elif reply.get("record"):
        asked.verdict = "acknowledged"
        asked.record = str(reply["record"])
        asked.position = int(reply["position"])
    else:
        asked.verdict = "unchanged"
        asked.position = int(reply.get("position", 0))
    return True
