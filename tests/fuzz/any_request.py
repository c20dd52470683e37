"""Requests made of what the endpoints say they take, and of what nobody would send: strategies for hypothesis.

Everything follows from the list of endpoints, so a new command or query is covered from its first day on.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from hypothesis import strategies as st

from pvc.gateway.app import all_endpoints
from pvc.gateway.bodies import CONTROLS
from pvc.gateway.cards import BASE_PATH, FieldCard
from pvc.gateway.endpoint import Endpoint
from pvc.gateway.fields import Fields

CALLERS = ("root",) * 4 + ("admin",) * 4 + ("operator", "viewer", "auditor", "limited") * 2 + ("nobody", "forged")

EVIL_TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    "a\nlevel=ERROR forged",
    "\x1b[2J",
    "\x9b2J",
    "\u202egpj.exe",
    "web01\u200b",
    "wеb01",
    "WEB01",
    "ﬁ",
    "e\u0301",
    "é",
    "İ",
    "ß",
    "\ud7ff\U0010ffff",
    "..",
    "../../etc/passwd",
    "%2e%2e%2f",
    "%00",
    "/",
    "//",
    "a/b",
    "-rf",
    "--help",
    "'; DROP TABLE records; --",
    "' OR 1=1 --",
    "*",
    "[",
    "[!",
    "[a--z]",
    "*" * 90,
    "(?:a+)+$",
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1/}",
    "$(reboot)",
    "null",
    "true",
    "NaN",
    "1e400",
    "-0",
    "0x10",
    "١٢",
    "9" * 18,
    "9" * 19,
    "9" * 5_000,
    "-1",
    "root",
    "node/hv1",
    "person-00000000",
    "erased-00000000",
    "x" * 5_000,
    "1970-01-01",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "999999w",
    "now",
    "vm/web01",
    "cluster",
    '[{"path": "/\\ud800"}]',
    '{"a": 1, "a": 2}',
    "[" * 3_000,
    "<domain/>",
    "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><domain>&b;</domain>",
    "<domain>" * 500,
)

EVIL_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 31,
    1 << 63,
    1 << 64,
    10**400,
    -(10**400),
    0.0,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    [None] * 200,
    {"path": "/a", "bus": "ide"},
    ["a"] * 2_000,
)

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"idempotency-key", b"k" * 128),
    (b"idempotency-key", b"k" * 129),
    (b"idempotency-key", b"\xff"),
    (b"idempotency-key", b""),
    (b"pvc-source", b"cli/1 level=ERROR"),
    (b"pvc-source", b"\x1b[2J"),
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"x-forwarded-proto", b"https"),
    (b"forwarded", b"for=127.0.0.1"),
    (b"x-real-ip", b"127.0.0.1"),
    (b"x-original-url", b"/api/v1/whoami"),
    (b"x-http-method-override", b"DELETE"),
    (b"host", b"evil.example"),
    (b"host", b"\xff"),
    (b"accept", b"text/event-stream"),
    (b"accept", b"application/x-ndjson;q=0.5, */*;q=1.0000"),
    (b"accept", b"," * 2_000),
    (b"last-event-id", b"0"),
    (b"last-event-id", b"9" * 30),
    (b"last-event-id", b"\xb2"),
    (b"content-length", b"\xb2"),
    (b"content-encoding", b"gzip"),
    (b"if-match", b'"1"'),
    (b"range", b"bytes=0-18446744073709551615"),
    (b"cookie", b"a=b; " * 500),
    (b"pvc.local", b"true"),
)

KNOWN = {
    "vm": ("web01", "web02", "nobody"),
    "node": ("hv1", "hv2"),
    "principal": ("admin", "anna", "limited"),
    "segment": ("1-4096", "0-0", "2-1"),
}

_FIELD = re.compile(r"{(\w+)}")


@dataclass
class AnyRequest:
    """One request, as an ASGI server would hand it over."""

    endpoint: str
    method: str
    raw_path: str
    caller: str
    query: bytes = b""
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def evil_text() -> st.SearchStrategy[str]:
    """Text that means harm, or anything."""
    anything = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
    return st.one_of(st.sampled_from(EVIL_TEXTS), st.sampled_from(EVIL_TEXTS), anything)


def evil_value() -> st.SearchStrategy[Any]:
    """Something that JSON can say."""
    leaf = st.one_of(st.sampled_from(EVIL_VALUES), evil_text(), st.integers(), st.floats())
    return st.one_of(leaf, leaf, st.lists(leaf, max_size=3), st.dictionaries(evil_text(), leaf, max_size=3))


def value_of(card: FieldCard) -> st.SearchStrategy[Any]:
    """What a field takes, as far as its card says so."""
    match card.type:
        case "integer":
            low = card.minimum if card.minimum is not None else -(1 << 40)
            return st.integers(low, card.maximum if card.maximum is not None else 1 << 40)
        case "boolean":
            return st.booleans()
        case "enum":
            return st.sampled_from(card.enum or [""])
        case "list" if card.item is not None:
            return st.lists(value_of(card.item), max_size=3)
        case "object-list":
            fields = {one.name: value_of(one) for one in card.fields or ()}
            needed = {one.name: fields.pop(one.name) for one in card.fields or () if one.required}
            return st.lists(st.fixed_dictionaries(needed, optional=fields), max_size=3)
    known = [st.sampled_from(KNOWN[card.name])] if card.name in KNOWN else []
    if card.example is not None:
        known.append(st.just(card.example))
    return st.one_of(*known, st.from_regex(card.pattern, fullmatch=False) if card.pattern else st.text(max_size=8))


def cards_of(endpoint: Endpoint) -> dict[str, FieldCard]:
    """Everything that an endpoint may be given by name."""
    if endpoint.command is not None:
        return dict(Fields(endpoint.command.struct, hidden=endpoint.command.internal).cards)
    return dict(Fields(endpoint.arguments).cards) if endpoint.arguments is not None else {}


@st.composite
def any_request(draw: st.DrawFn, endpoints: tuple[Endpoint, ...] = tuple(all_endpoints())) -> AnyRequest:
    """A request to one of the endpoints, more or less as it should be."""
    endpoint = draw(st.sampled_from(endpoints))
    cards = cards_of(endpoint)
    named = dict[str, Any]()
    for name, card in cards.items():
        kind = draw(st.integers(0, 9))
        if kind < (8 if card.required else 3):
            named[name] = draw(value_of(card))
        elif kind == 9:
            named[name] = draw(evil_value())
    path = _FIELD.sub(lambda found: _part(draw, found[1], named), endpoint.path)
    if draw(st.integers(0, 12)) == 0:
        named[draw(evil_text())] = draw(evil_value())
    controls = {name: draw(evil_text()) for name in CONTROLS if draw(st.integers(0, 9)) == 0}
    request = AnyRequest(
        endpoint=endpoint.name,
        method=draw(st.sampled_from((endpoint.method,) * 60 + ("HEAD", "OPTIONS", "PUT", "TRACE", "get", "DELETE"))),
        raw_path=quote(BASE_PATH) + path,
        caller=draw(st.sampled_from(CALLERS)),
        headers=draw(st.lists(st.sampled_from(HEADERS), max_size=3)) if draw(st.booleans()) else [],
    )
    if endpoint.command is None and endpoint.body is None:
        request.query = _query(named | controls)
    else:
        request.query = _query(controls)
        if endpoint.body is not None:
            fields = msgspec.inspect.type_info(endpoint.body)
            assert isinstance(fields, msgspec.inspect.StructType)
            named = {one.name: draw(evil_value()) for one in fields.fields if draw(st.booleans())}
        _put_body(draw, request, named)
    return request


def _part(draw: st.DrawFn, name: str, named: dict[str, Any]) -> str:
    if draw(st.integers(0, 4)):
        named.pop(name, None)
        return quote(str(draw(st.sampled_from(KNOWN.get(name, ("3f2a91c0d4e5", "1"))))), safe="")
    text = draw(evil_text())
    named.pop(name, None)
    return quote(text, safe=draw(st.sampled_from(("", "/%."))))


def _query(named: dict[str, Any]) -> bytes:
    pairs = [(name, item) for name, value in named.items() for item in (value if isinstance(value, list) else [value])]
    return urlencode([(name, _text(item)) for name, item in pairs], errors="replace").encode()[:60_000]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _put_body(draw: st.DrawFn, request: AnyRequest, named: dict[str, Any]) -> None:
    match draw(st.integers(0, 11)):
        case 0:
            request.query = b"&".join(filter(None, (request.query, _query(named))))
        case 1:
            _say(request, b"application/x-www-form-urlencoded", _query(named))
        case 2:
            parts = b"".join(
                b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
                % (name.encode(errors="replace"), _text(value).encode(errors="replace"))
                for name, value in named.items()
            )
            charset = draw(st.sampled_from((b"", b"; charset=utf-16", b"; charset=undefined", b"; charset=\xff")))
            _say(request, b"multipart/form-data; boundary=b" + charset, parts + b"--b--\r\n")
        case 3:
            data = bytearray(json.dumps(named, ensure_ascii=False).encode(errors="surrogatepass"))
            for _ in range(draw(st.integers(1, 4))):
                at = draw(st.integers(0, len(data)))
                data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
            _say(request, b"application/json", bytes(data))
        case 4:
            kind = draw(st.sampled_from((b"text/xml", b"", b"application/json; charset=utf-16", b"a/b+json", b"\xff")))
            _say(request, kind, draw(st.binary(max_size=200)))
        case _:
            _say(request, b"application/json", json.dumps(named).encode())


def _say(request: AnyRequest, kind: bytes, body: bytes) -> None:
    request.body = body
    request.headers = [*request.headers, (b"content-type", kind)]
