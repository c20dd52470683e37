"""Which problem codes each endpoint can answer with: read off the source, so that none is forgotten.

From an endpoint's handler, and its command's `decide`, all functions of this package are followed that they name. What
raises an error with a code is noted under the status of the error. That is a little too much (what is named need not be
called) and never too little, but for errors of ports, which come as 503 and 504.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pvc.errors import PvcError
from pvc.gateway import bodies
from pvc.gateway.endpoint import Endpoint
from pvc.gateway.lists import ListOf

STATUSES = frozenset({400, 403, 404, 409, 412, 413, 415, 422})
"""Those whose codes are told for each endpoint; the others are the same everywhere."""

_BODIES = frozenset({400, 413, 415})


class Raised(NamedTuple):
    """An error that a function may raise."""

    status: int
    code: str


def problem_codes(endpoints: Sequence[Endpoint]) -> dict[str, dict[str, list[str]]]:
    """Endpoint -> status -> codes."""
    return {endpoint.name: _codes_of(endpoint) for endpoint in endpoints}


def _codes_of(endpoint: Endpoint) -> dict[str, list[str]]:
    roots: list[Any] = [endpoint.handle]
    if endpoint.command is not None:
        roots.append(endpoint.command.decide)
    if endpoint.body is not None:
        roots.append(bodies.read_document)
    found: dict[str, set[str]] = {}
    for raised in _reached(roots):
        if raised.status in STATUSES and (raised.status not in _BODIES or endpoint.method != "GET"):
            found.setdefault(str(raised.status), set()).add(raised.code)
    found.setdefault("403", set()).add("access.forbidden")
    if not endpoint.before_init:
        found.setdefault("409", set()).add("cluster.not_initialised")
    found.setdefault("422", set()).add("input.invalid")
    return {status: sorted(codes) for status, codes in sorted(found.items())}


def _reached(roots: Sequence[Any]) -> Iterator[Raised]:
    queue, seen = deque(_functions(roots)), set[Any]()
    while queue:
        function = queue.popleft()
        if function in seen:
            continue
        seen.add(function)
        raised, named = _looked_at(function)
        yield from raised
        queue.extend(_functions(named))


def _functions(things: Sequence[Any]) -> Iterator[Any]:
    for thing in things:
        if isinstance(thing, functools.partial):
            yield from _functions([thing.func, *thing.args, *thing.keywords.values()])
        elif isinstance(thing, types.MethodType):
            yield from _functions([thing.__func__])  # a list's page
        elif isinstance(thing, types.FunctionType) and thing.__module__.startswith("pvc."):
            yield thing
        elif inspect.isclass(thing) and thing.__module__.startswith("pvc.gateway.") and not issubclass(thing, PvcError):
            yield from (one for one in vars(thing).values() if isinstance(one, types.FunctionType))


@functools.cache
def _looked_at(function: types.FunctionType) -> tuple[tuple[Raised, ...], tuple[Any, ...]]:
    """The errors that a function makes, and what of this package it names."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return (), ()
    raised: list[Raised] = []
    named: list[Any] = []
    local = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            raised += _raised(node, _value(node.func, function), local)
        if isinstance(node, ast.Name | ast.Attribute):
            value = _value(node, function)
            if value is not None and getattr(value, "__module__", "").startswith("pvc."):
                named.append(value)
    return tuple(raised), tuple(named)


def _raised(call: ast.Call, made: Any, local: Mapping[str, ast.expr]) -> Iterator[Raised]:
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
    if isinstance(given, ast.Name):
        given = local.get(given.id, given)
    code = _text(given) if given is not None else ""
    if inspect.isclass(made) and issubclass(made, PvcError):
        if code or given is None:  # else another error goes on under another name
            yield Raised(made.status, code or made.default_code)
    elif code:
        yield Raised(422, code)  # a helper that makes an error about a field


def _text(node: ast.expr) -> str:
    """The code, with `*` for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in values)
    return ""


def _value(node: ast.expr, function: types.FunctionType) -> Any:
    """What a name means in a function's module."""
    if isinstance(node, ast.Name):
        return function.__globals__.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = function.__globals__.get(node.value.id)
        return getattr(owner, node.attr, None) if inspect.ismodule(owner) or isinstance(owner, ListOf) else None
    return None
