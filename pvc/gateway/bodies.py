"""Reads what came with a request, from path, query and a JSON or form body, within a size and a time, into fields."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import FormData, ImmutableMultiDict, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from pvc.errors import InvalidInput, TooLarge
from pvc.gateway.fields import Fields
from pvc.gateway.problems import HungUp, Malformed, TooSlow, WrongContentType
from pvc.gateway.quoted import BODY
from pvc.gateway.strict_json import BadJson, read_json

MAX_BODY_BYTES = 1024 * 1024
"""Four times the largest record, so that a body over it could never become one."""

BODY_DEADLINE_S = 30.0
"""How long a body may take to arrive: 1 MiB over a slow line."""

CONTROLS = ("dry_run", "min_position")
"""Query arguments that are about the request and not about the command."""

T = TypeVar("T")


def control_of(request: Request, name: str) -> str:
    """The text of a control, or nothing. Raises InvalidInput where it is given twice: which one counts?"""
    assert name in CONTROLS, "a query argument that is no field"
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise InvalidInput(
            f"`{name}` is given {len(values)} times", code="input.conflict", hint="give it once", field=name
        )
    return values[0] if values else ""


async def read_fields(request: Request, fields: Fields) -> dict[str, Any]:
    """All fields of a command, as JSON would say them. Each from one place, or the same from several."""
    query = {name: values for name, values in texts_of(request.query_params).items() if name not in CONTROLS}
    return merge(
        {
            "path": fields.from_texts({name: [value] for name, value in request.path_params.items()}),
            "query": fields.from_texts(query),
            "body": await _read_body(request, fields),
        }
    )


async def read_document(request: Request) -> dict[str, Any]:
    """A body that is a JSON object and nothing else. Raises TooLarge, WrongContentType, Malformed, InvalidInput."""
    body = await _read_bytes(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        shown = f"of the type {kind[:60]!r}" if kind else "without a Content-Type"
        raise WrongContentType(f"the body came {shown}", hint="send application/json")
    return _parse_json(body)


async def read_struct(request: Request, struct: type[T], *, hint: str, field: str = "") -> T:
    """A body that is a JSON object with the fields of `struct`. Raises as `read_document` does."""
    document = await read_document(request)
    try:
        return msgspec.convert(document, struct)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the body cannot be used: {error}", hint=hint, field=field) from None


def merge(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One set of fields out of several. Raises InvalidInput where two disagree."""
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, values in sources.items():
        for name, value in values.items():
            if merged.setdefault(name, value) != value:
                raise InvalidInput(
                    f"`{name}` is one thing in the {origin[name]} and another in the {source}",
                    code="input.conflict",
                    hint="give it in one place only",
                    field=name,
                )
            origin.setdefault(name, source)
    return merged


def texts_of(arguments: ImmutableMultiDict[str, str]) -> dict[str, list[str]]:
    """Query arguments with all their values."""
    texts: dict[str, list[str]] = {}
    for name, value in arguments.multi_items():
        texts.setdefault(name, []).append(value)
    return texts


async def _read_body(request: Request, fields: Fields) -> dict[str, Any]:
    body = await _read_bytes(request)
    if not body:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return _parse_json(body)
    if kind == "application/x-www-form-urlencoded":
        try:
            form = await FormParser(request.headers, _once(body)).parse()
        except MultiPartException as error:  # starlette's name for any form that it cannot read
            raise Malformed(f"the body is no form: {error}", hint="let curl make it with --data-urlencode") from error
        return fields.from_texts(await _form_texts(form))
    if kind == "multipart/form-data":
        try:
            form = await MultiPartParser(request.headers, _once(body), max_part_size=MAX_BODY_BYTES).parse()
        except (MultiPartException, KeyError, UnicodeError) as error:  # the last from a charset that decodes nothing
            raise Malformed(f"the body is no multipart form: {error}", hint="let curl make it with --form") from error
        return fields.from_texts(await _form_texts(form))
    shown = f"of the type {kind[:60]!r}" if kind else "without a Content-Type"
    raise WrongContentType(
        f"the body came {shown}", hint="send application/json, application/x-www-form-urlencoded or multipart/form-data"
    )


async def _read_bytes(request: Request) -> bytes:
    """The body, unless it is too large: then no more of it is read than shows that."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:12]) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
    except ClientDisconnect as error:
        raise HungUp("the client hung up in the middle of the body", hint="send it again") from error
    except TimeoutError as error:
        raise TooSlow(
            f"the body did not arrive within {BODY_DEADLINE_S:g} s", hint="send it again, over a better line"
        ) from error
    read = request.scope[BODY] = bytes(body)
    return read


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        document = read_json(body.decode())
    except UnicodeDecodeError as error:
        raise _bad_json(f"byte {error.start} is not UTF-8") from None
    except BadJson as error:
        raise _bad_json(str(error)) from None
    if not isinstance(document, dict):
        raise Malformed(
            "the body is JSON, but not an object",
            code="input.bad_json",
            hint='write the fields as {"name": value}',
        )
    return document


def _bad_json(why: str) -> Malformed:
    return Malformed(f"the body is not JSON: {why}", code="input.bad_json", hint="mend the JSON, or send a form")


def _too_large() -> TooLarge:
    return TooLarge(
        f"the body is larger than {MAX_BODY_BYTES:,} bytes", hint="no command needs so much; is it the right file?"
    )


async def _form_texts(form: FormData) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        texts.setdefault(name, []).append(await _file_text(name, value) if isinstance(value, UploadFile) else value)
    return texts


async def _file_text(name: str, file: UploadFile) -> str:
    try:
        return (await file.read()).decode()
    except UnicodeDecodeError as error:
        raise Malformed(
            f"the file given for `{name[:80]}` is not text: byte {error.start} is not UTF-8", hint="send a text file"
        ) from None


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
