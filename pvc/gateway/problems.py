"""Errors at the border: every one becomes a problem+json reply (RFC 9457), with its status, code and hint.

The errors that only HTTP knows are here, beside the ones of `pvc.errors`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

import msgspec
from starlette.responses import Response

from pvc.errors import InvalidInput, NotFound, PvcError, Unauthenticated

CONTENT_TYPE = "application/problem+json"


class Malformed(InvalidInput):
    """The request cannot be read at all: no JSON, no form, not UTF-8."""

    status = 400
    default_code = "input.malformed"


class NoSuchRoute(NotFound):
    """Nothing is at this path."""

    default_code = "http.no_such_route"


class WrongMethod(PvcError):
    """Something is at this path, but does not take this method."""

    status = 405
    default_code = "http.wrong_method"

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(f"{path} does not take {method}", hint=f"it takes {' and '.join(allowed)}")
        self.allowed = allowed


class TooSlow(PvcError):
    """The request's body did not arrive in time."""

    status = 408
    default_code = "http.too_slow"


class HungUp(PvcError):
    """The client went away before its request was whole; nobody hears of this but the node's log."""

    status = 400
    default_code = "http.hung_up"


class WrongContentType(PvcError):
    """The body is of a kind that is not understood."""

    status = 415
    default_code = "http.wrong_content_type"


class TooManyFailures(PvcError):
    """This address has failed to authenticate too often of late."""

    status = 429
    default_code = "access.too_many_failures"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "too many requests with a wrong token came from this address",
            hint=f"put the token right, then try again in {retry_after_s} s",
        )
        self.retry_after_s = retry_after_s


class TooManyRequests(PvcError):
    """This principal asks for more than one may."""

    status = 429
    default_code = "access.too_many_requests"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "too many requests came from you, over all your tokens",
            hint=f"go on in {retry_after_s} s, and ask less often: `GET /events` waits for what is new",
        )
        self.retry_after_s = retry_after_s


class TooManyLogins(PvcError):
    """This network tries to log in more often than people do."""

    status = 429
    default_code = "access.too_many_logins"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "too many logins are tried from this network",
            hint=f"try again in {retry_after_s} s; tokens open as before",
        )
        self.retry_after_s = retry_after_s


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused or failed."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    """What is wrong, with the name and value of what is at fault."""
    code: str
    """Stable, dotted: what programs go by."""
    hint: str
    """What to do about it."""
    field: str
    """The input field at fault, if it is one."""
    position: int
    """The log's position that this was found at."""


def problem_of(error: PvcError, position: int) -> Problem:
    """The problem that tells of an error."""
    return Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        field=error.field,
        position=position,
    )


def problem_response(error: PvcError, position: int) -> Response:
    """The reply that tells of an error, with the headers that belong to its status."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, WrongMethod):
        headers["Allow"] = ", ".join(error.allowed)
    elif isinstance(error, TooManyFailures | TooManyRequests | TooManyLogins):
        headers["Retry-After"] = str(error.retry_after_s)
    elif error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    body = msgspec.json.encode(problem_of(error, position))
    return Response(body, error.status, headers, media_type=CONTENT_TYPE)
