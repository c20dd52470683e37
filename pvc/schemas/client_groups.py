"""Writes the client library's methods, for blocking programs and for asyncio: one text for both, so they never differ.

What a method does is in `pvc.client.calls`; what is written here is its signature, its documentation and its types.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, get_type_hints

import msgspec

from pvc.gateway.cards import FieldCard
from pvc.gateway.commands import Reply
from pvc.gateway.endpoint import Endpoint
from pvc.gateway.records import RecordView
from pvc.schemas.client_methods import PATH_FIELD, Method, methods
from pvc.schemas.client_models import WIDTH, Models, quoted_docstring

FOLDER = "pvc/client/generated"

ABOUT = {
    "access": "People, services and their tokens: who may do what.",
    "audit": "Who did what, and what is known of people.",
    "cluster": "The cluster as a whole.",
    "faults": "What is wrong.",
    "log": "The log: what happened, proofs of it, and its care.",
    "login": "Logging people in at an issuer, for programs that do so themselves.",
    "nodes": "The hypervisors.",
    "operations": "What is under way.",
    "vms": "The VMs.",
    "webhooks": "Who is told of events, and what became of it.",
}

OWN_METHODS = {"vms": "VmStreams"}
"""Groups with methods that are written by hand, and the class that has them."""

_CONTROLS = {
    "dry_run": ("bool = False", "Only say what would happen."),
    "wait": ("float | None = None", "Wait for the end, for at most so many seconds, as `wait` of the result does."),
    "key": ('str = ""', "The idempotency key; one is made where none is given."),
    "if_match": (
        "int | None = None",
        "Raise PreconditionFailed unless its `position` is still this one, that of what you have read.",
    ),
}


def client_files(endpoints: Sequence[Endpoint]) -> dict[str, str]:
    """The modules of the library that are made from the endpoints."""
    models, found = Models(), methods(endpoints)
    for spoken_of in (_command_reply(found), Reply, RecordView):
        models.annotation(spoken_of)
    files = {f"{FOLDER}/{name}.py": _module(found, models, waits=name == "suspending") for name in _MODULES}
    return {f"{FOLDER}/__init__.py": _PACKAGE, **files, f"{FOLDER}/models.py": models.module()}


def _command_reply(found: Sequence[Method]) -> Any:
    """One type for the replies of all commands: some say more than others, such as a token that was made."""
    replies = {method.endpoint.reply for method in found if method.kind == "command"}
    fields: dict[str, Any] = get_type_hints(Reply, include_extras=True)
    for reply in sorted(replies, key=lambda reply: str(reply.__name__)):
        fields |= get_type_hints(reply, include_extras=True)
    about = "What became of a command. What it does not make, such as a token, is empty."
    return msgspec.defstruct("CommandReply", list(fields.items()), namespace={"__doc__": about}, kw_only=True)


_PACKAGE = '"""What is made from the gateway\'s endpoints by `python -m pvc.schemas`. Change it there, never here."""\n'
_MODULES = ("blocking", "suspending")


def _module(found: Sequence[Method], models: Models, *, waits: bool) -> str:
    classes, groups = [], []
    for group, of_group in groupby(found, key=lambda method: method.group):
        groups.append(group)
        classes.append(_class(group, list(of_group), models, waits=waits))
    classes.append(_groups_class(groups, waits=waits))
    text = "\n\n".join(classes)
    prefix, kind = ("Async", "asyncio") if waits else ("", "blocking programs")
    used = sorted((name for name in [*models.names, *models.inputs] if re.search(rf"\b{name}\b", text)), key=str.lower)
    head = [
        f'"""The methods of the client for {kind}, in groups. Generated: see pvc/schemas."""',
        "",
        "from __future__ import annotations",
        "",
        "import builtins",
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, Literal",
        "",
        f"from pvc.client.calls import {'AsyncGroup, Calls' if waits else 'Calls, Group'}",
        "from pvc.client.generated.models import (",
        *(f"    {name}," for name in used),
        ")",
        f"from pvc.client.operations import {prefix}Operation",
        f"from pvc.client.streams import {prefix}VmStreams",
    ]
    return "\n".join(head) + "\n\n\n" + text


def _class(group: str, found: Sequence[Method], models: Models, *, waits: bool) -> str:
    prefix = "Async" if waits else ""
    base = f"{prefix}{OWN_METHODS.get(group, 'Group')}"
    lines = [f"class {_class_name(group, waits=waits)}({base}):", f'    """{_about(group)}"""']
    for method in found:
        lines += ["", *_method(method, models, waits=waits)]
    return "\n".join(lines) + "\n"


def _groups_class(groups: Sequence[str], *, waits: bool) -> str:
    prefix = "Async" if waits else ""
    lines = [
        f"class {prefix}Groups:",
        '    """All methods of a client, in groups."""',
        "",
        "    def __init__(self, calls: Calls) -> None:",
    ]
    for group in groups:
        lines += [f"        self.{group} = {_class_name(group, waits=waits)}(calls)", f'        """{_about(group)}"""']
    return "\n".join(lines) + "\n"


def _class_name(group: str, *, waits: bool) -> str:
    return f"{'Async' if waits else ''}{group.title().replace('_', '')}"


def _about(group: str) -> str:
    return ABOUT.get(group, f"{group.title()}.")


def _method(method: Method, models: Models, *, waits: bool) -> list[str]:
    controls = _controls(method)
    required = [card for card in method.keywords if card.required]
    optional = [card for card in method.keywords if not card.required]
    positional = sorted(method.positional, key=lambda card: not card.required)
    parameters = ["self", *(_parameter(method, card, models) for card in positional)]
    keywords = [_parameter(method, card, models) for card in (*required, *optional)]
    if method.kind == "pages":
        keywords.append("limit: int | None = None" if method.limit is None else f"limit: int | None = {method.limit}")
    keywords += [f"{name}: {_CONTROLS[name][0]}" for name in controls]
    if keywords:
        parameters += ["*", *keywords]
    returned, call = _call(method, models, waits=waits)
    begin = f"    {'async ' if waits else ''}def {method.name}("
    line = f"{begin}{', '.join(parameters)}) -> {returned}:"
    signature = [line]
    if len(line) > WIDTH:
        signature = [begin, *(f"        {one}," for one in parameters), f"    ) -> {returned}:"]
    return [*signature, *_docstring(method, controls), *call]


def _controls(method: Method) -> tuple[str, ...]:
    if method.kind == "command":
        # What has a position of its own can be held to it.
        held = {"vm", "node"} & set(PATH_FIELD.findall(method.endpoint.path))
        return ("dry_run", "wait", "key", *(["if_match"] if held else []))
    return ("dry_run", "key") if method.endpoint.controls else ()


def _parameter(method: Method, card: FieldCard, models: Models) -> str:
    called = f"{method.endpoint.name.partition('.')[0]}_{card.name}".title().replace("_", "")
    spelt = models.input_annotation(card, called)
    return f"{card.name}: {spelt}" if card.required else f"{card.name}: {spelt} | None = None"


def _docstring(method: Method, controls: Sequence[str]) -> list[str]:
    items = [(card.name, _told(card)) for card in (*method.positional, *method.keywords)]
    if method.kind == "pages":
        items.append(("limit", "Items at most; None: all."))
    items += [(name, _CONTROLS[name][1]) for name in controls]
    items = [(name, text) for name, text in items if text]
    gone, text = method.endpoint.deprecated, method.endpoint.help
    if gone is not None:
        text = f"Deprecated since {gone.since}; works until {gone.sunset}. Use {gone.instead}.\n\n{text}".strip()
    return quoted_docstring(method.endpoint.summary, text, indent=8, items=items)


def _told(card: FieldCard) -> str:
    default = card.default
    if default in (None, "", [], ()) or isinstance(default, bool):
        return card.description
    return f"{card.description} {default} where nothing is said.".strip()


def _call(method: Method, models: Models, *, waits: bool) -> tuple[str, list[str]]:
    """What a method returns, and the statement that does it."""
    prefix, wait = ("Async", "await ") if waits else ("", "")
    endpoint = method.endpoint
    given = [card.name for card in (*method.positional, *method.keywords)]
    fields = "{" + ", ".join(f'"{name}": {name}' for name in given) + "}"
    if method.kind == "command":
        arguments = [f'"{endpoint.name}"', fields, *(f"{name}={name}" for name in _controls(method))]
        return f"{prefix}Operation", _statement(f"return {wait}self._command", arguments)
    path = f'"{endpoint.path}"'
    if method.kind in ("pages", "items"):
        item = models.annotation(method.item)
        arguments = [path, fields, item, f'items="{method.items}"']
        if method.kind == "pages":
            arguments += [f"cursor={_tuple(method.cursor)}", "limit=limit"]
        return f"builtins.list[{item}]", _statement(f"return {wait}self._{method.kind}", arguments)
    reply = models.annotation(endpoint.reply)
    arguments = [path, fields, reply]
    if method.kind == "post":
        arguments += ["dry_run=dry_run", "key=key"] if endpoint.controls else []
        return reply, _statement(f"return {wait}self._post", arguments)
    return reply, _statement(f"return {wait}self._get", arguments)


def _tuple(values: Sequence[str]) -> str:
    return "(" + ", ".join(f'"{value}"' for value in values) + ")"


def _statement(begin: str, arguments: Sequence[str]) -> list[str]:
    line = f"        {begin}({', '.join(arguments)})"
    if len(line) <= WIDTH:
        return [line]
    lines = [f"        {begin}("]
    for argument in arguments:
        if len(argument) + 13 <= WIDTH:
            lines.append(f"            {argument},")
        else:
            entries = argument.removeprefix("{").removesuffix("}").split(", ")
            lines += ["            {", *(f"                {entry}," for entry in entries), "            },"]
    return [*lines, "        )"]
