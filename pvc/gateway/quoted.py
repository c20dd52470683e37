"""What somebody has written into a request, as a refusal may quote it: it is not opened where it is sealed.

Sealed names and addresses are in backups, exports and what webhooks deliver. Who holds one must not have it opened by
asking for something of that name, and reading what there is not.
"""

from __future__ import annotations

from urllib.parse import unquote_plus

import msgspec
from starlette.types import Scope

BODY = "pvc.body"
"""In a request's scope: its body, once it was read."""


def what_was_asked(scope: Scope) -> str:
    """Path, query, headers and body of a request, as they came and as they are read."""
    query = scope.get("query_string", b"").decode("latin-1")
    body: bytes = scope.get(BODY, b"")
    text = body.decode("utf-8", "replace")
    headers = [value.decode("latin-1") for _, value in scope.get("headers", ())]
    return "\n".join(
        (scope.get("path", ""), query, unquote_plus(query), *headers, text, unquote_plus(text), _without_escapes(body))
    )


def _without_escapes(body: bytes) -> str:
    """JSON again, in which a letter is that letter."""
    try:
        return msgspec.json.encode(msgspec.json.decode(body)).decode()
    except (msgspec.DecodeError, msgspec.EncodeError, UnicodeError, RecursionError):
        return ""
