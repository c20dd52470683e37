"""docs/reference/api.md: every endpoint with its fields, replies and an example."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec
from msgspec import inspect as types

from pvc.commands.access_table import told_action
from pvc.gateway.auth import FAILURES_ALLOWED
from pvc.gateway.bodies import MAX_BODY_BYTES
from pvc.gateway.cards import BASE_PATH, FieldCard, field_card
from pvc.gateway.console import CONSOLE_ACTION, CONSOLE_PATH
from pvc.gateway.endpoint import Endpoint
from pvc.schemas.markdown import NOTICE, block, table

_INTRODUCTION = f"""\
# The HTTP API

Everything is below `{BASE_PATH}`, on port 7370. The same as an OpenAPI 3.1 document: `GET {BASE_PATH}/openapi.json`, or
`schemas/openapi.json` in the source.

## Who is asking

Over TCP every request carries `Authorization: Bearer pvc_<id>_<secret>`. The first token comes from `pvc cluster init`.
Over the Unix socket the caller is root and needs none. Each endpoint names its action; which role may do it, on the
whole cluster or for some VMs, says [the table](../access.md#the-table). After {FAILURES_ALLOWED} wrong tokens an
address gets 429 for a while; a right token always works. A few replies about the log are for
[other nodes](../decisions/0018-peers.md) too, who sign what they ask with `Authorization: PVC-Peer` instead, and show a
certificate. How people come to a token by an issuer: [logging in](../login.md).

## Fields

The fields of a command come as JSON, as a form (urlencoded or multipart, a file for a long field), or as query
arguments; those named in the path come from there. A field may come from one place only. In forms and queries a list
is repeated or comma-separated, and a list of objects is written as JSON. A body has at most {MAX_BODY_BYTES:,} bytes.

## What every request can have

| | |
| --- | --- |
| `Idempotency-Key: <key>` | Of a command: with the same key it is not done twice, however often it is sent. |
| `?dry_run=true` | Of a command: say what would happen, and change nothing. |
| `?min_position=<n>` | Wait (at most 10 s) until the answering node has folded position n. |
| `PVC-Source: cli/0.1.0` | Through what the request comes; it stands in the history. |
| `X-Request-Id: <id>` | What whoever passes the request on has called it: 1 to 64 of `A-Z a-z 0-9 . _ : -`. |
| `traceparent: <...>` | The W3C header of a trace that the request is part of; the trace of the command links to it. |

Every reply has the header `PVC-Position`: the log's position at that reply; and `PVC-Request-Id`, which stands in the
node's journal too. A query about the past (`at`) is answered
with that of the past, and with `PVC-At` and `PVC-At-Time`: which position that is, and when it was recorded. `at` is a
position, a time in ISO 8601, how long ago (`2h`), or `now`; see [other times](../time-travel.md).

## Errors

Errors are problems ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)), `application/problem+json`:

```json
{{
 "type": "about:blank",
 "title": "Conflict",
 "status": 409,
 "detail": "web01 is already running",
 "code": "vm.is_running",
 "hint": "`pvc vm info web01` shows more",
 "field": "",
 "position": 12
}}
```

`code` is stable and what a program should go by; `detail` and `hint` are for people; `field` names the input at fault.

| status | means | then |
| --- | --- | --- |
| 400, 413, 415, 422 | The input is wrong. | Mend it. |
| 401, 403 | No valid token; a role that does not allow it, or not for this VM. | Use another token. |
| 404 | What is named does not exist. | The hint has near names. |
| 409 | The present state does not allow it. | The hint says what to do first. |
| 429, 503 | Not now. Nothing was changed. | Try again after `Retry-After`. |
| 504 | The outcome is not known. | Ask again with the same `Idempotency-Key`. |

"""
_TITLES = {
    "cluster": "Cluster",
    "node": "Nodes",
    "vm": "VMs",
    "fault": "Faults",
    "history": "History",
    "event": "Events",
    "operation": "Operations",
    "log": "The log itself",
    "access": "Access",
    "login": "Logging in",
    "audit": "The audit, and the people in the log",
    "webhook": "Webhooks",
    "time": "Other times",
    "metrics": "Metrics",
}


def api_page(endpoints: Sequence[Endpoint]) -> str:
    """The whole page."""
    parts = [NOTICE, _INTRODUCTION]
    order = [*_TITLES, "api"]
    ordered = sorted(endpoints, key=lambda endpoint: order.index(_group(endpoint)))
    for group, members in groupby(ordered, key=_group):
        parts.append(f"## {_TITLES.get(group, 'The API itself')}\n\n" if group != "api" else "")
        parts += [_section(endpoint) for endpoint in members]
        if group == "vm":
            parts.append(_console())
    parts.append(_HEALTH)
    return "".join(parts)


_HEALTH = f"""\
### GET /health

Whether this gateway can do its work: `{{"status": "ok", "reasons": [], "position": 12, "version": "0.1.0"}}`. It is
`degraded` for reasons, and the HTTP status is 503 when it cannot take commands. Needs no token; also at
`{BASE_PATH}/health`.
"""


def _group(endpoint: Endpoint) -> str:
    return endpoint.name.partition(".")[0]


def _section(endpoint: Endpoint) -> str:
    text = f"### {endpoint.method} {endpoint.path}\n\n{endpoint.summary}\n\n"
    if endpoint.help:
        text += f"{endpoint.help}\n\n"
    command = f"Command `{endpoint.name}`. " if endpoint.command else ""
    text += (
        f"{command}{told_action(endpoint.action)}{', or another node of the cluster' if endpoint.peers else ''}.\n\n"
    )
    text += _fields(endpoint)
    if endpoint.command is not None:
        text += _outcomes(endpoint) + block(_curl(endpoint), "sh")
    elif endpoint.body is not None:
        text += block(_curl_with(endpoint.path, endpoint.body_example), "sh")
    if endpoint.command is None and isinstance(endpoint.reply, type) and issubclass(endpoint.reply, msgspec.Struct):
        text += f"Reply: `{'`, `'.join(endpoint.reply.__struct_fields__)}`.\n\n"
    return text


def _fields(endpoint: Endpoint) -> str:
    struct = endpoint.command.struct if endpoint.command else endpoint.arguments
    if struct is None:
        return ""
    hidden = endpoint.command.internal if endpoint.command else ()
    info = types.type_info(struct)
    assert isinstance(info, types.StructType), "fields are those of a struct"
    cards = [field_card(field) for field in info.fields if field.name not in hidden]
    return table(("field", "type", "", "meaning"), _rows(cards, endpoint.path))


def _rows(cards: Iterable[FieldCard], path: str, prefix: str = "") -> Iterable[tuple[str, str, str, str]]:
    for card in cards:
        if card.required:
            need = "in the path" if f"{{{card.name}}}" in path else "required"
        else:
            need = f"default `{json.dumps(card.default)}`" if card.default not in (None, "", ()) else ""
        yield f"`{prefix}{card.name}`", _type(card), need, card.description
        yield from _rows(card.fields or (), "", f"{prefix}{card.name}[].")


def _type(card: FieldCard) -> str:
    if card.enum:
        return " ".join(f"`{choice}`" for choice in card.enum)
    if card.type == "integer" and card.minimum is not None and card.maximum is not None:
        return f"{card.minimum:,} to {card.maximum:,}" if card.maximum < 1 << 60 else f"from {card.minimum:,}"
    if card.type == "list":
        assert card.item, "a list has items"
        return f"list of {_type(card.item)}"
    return {"object-list": "list of objects", "string": "text"}.get(card.type, card.type)


def _outcomes(endpoint: Endpoint) -> str:
    assert endpoint.command, "only commands have outcomes"
    outcomes = endpoint.command.outcomes
    if not outcomes:
        return ""
    told = ", ".join(f"`{event}` ({'success' if good else 'failure'})" for event, good in outcomes.items())
    begins = ", ".join(f"`{event}`" for event in sorted(endpoint.command.begins))
    where = f"Where it leads to {begins}, it" if begins else "It"
    cause = "whatever has caused it" if endpoint.command.anywhere else "caused by its record"
    return f"{where} ends with {told}, {cause}.\n\n"


def _curl(endpoint: Endpoint) -> str:
    assert endpoint.command, "only commands have examples"
    example = dict(endpoint.command.example)
    path = endpoint.path.format(**{name: example[name] for name in example if f"{{{name}}}" in endpoint.path})
    body = {name: value for name, value in example.items() if f"{{{name}}}" not in endpoint.path}
    method = "" if endpoint.method == "POST" else f" -X {endpoint.method}"
    method = f"{method} -X POST" if endpoint.method == "POST" and not body else method
    way = '-H "Authorization: Bearer $TOKEN" http://127.0.0.1:7370'
    if endpoint.before_init:
        way = "--unix-socket /run/pvc/pvc.sock http://localhost"
    line = f"curl{method} {way}{BASE_PATH}{path}"
    return f"{line} \\\n  --json '{json.dumps(body)}'" if body else line


def _curl_with(path: str, body: Mapping[str, Any] | None) -> str:
    way = '-H "Authorization: Bearer $TOKEN" http://127.0.0.1:7370'
    return f"curl {way}{BASE_PATH}{path} \\\n  --json '{json.dumps(body)}'"


def _console() -> str:
    return (
        f"### WebSocket {CONSOLE_PATH}\n\n"
        "The live serial console: binary frames both ways, until either side closes.\n\n"
        f"{told_action(CONSOLE_ACTION)}.\n\n"
    )
