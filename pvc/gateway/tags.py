"""Entity tags: a reader is spared what it has already, and a command can be held to what its sender has seen.

The tag of one thing is its revision (the position of the last record that touched it, or a digest of it where the state
keeps no position), a dot, and a digest of the whole reply, in which there are measured figures too. `If-Match` goes by
the revision alone: that a VM uses other memory now is no reason to refuse to stop it. The tag of a list is a digest.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pvc.commands.base import CommandSpec, Context, Decide, Decision
from pvc.errors import ChangedMeanwhile, InvalidInput
from pvc.projections.access_state import PrincipalState
from pvc.projections.state import ClusterState, Node, Vm

REVISION = "pvc-revision"
"""A header by which a handler tells the revision of what it shows; it leaves the gateway as part of the tag."""

MAX_TAGS = 50
"""Tags of one header that are looked at."""

_DIGEST_BYTES = 8
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]{0,200})"')
_OWN_POSITION = re.compile(rb'"position":[0-9]+')


def revision_of(thing: Vm | Node | PrincipalState) -> str:
    """What changes whenever a record touches it."""
    if isinstance(thing, PrincipalState):
        return _digest(msgspec.msgpack.encode(thing, order="deterministic"))
    return str(thing.position)


def tag(request: Request, response: Response) -> Response:
    """The reply to a reader with its tag, or in its place one that says that the reader has it already."""
    if response.status_code != 200 or response.media_type != "application/json":
        return response
    revision = response.headers.get(REVISION, "")
    if revision:
        del response.headers[REVISION]
        entity_tag = f'"{revision}.{_digest(bytes(response.body))}"'
    else:
        # How far the log has come says nothing about the list, so the tag is a weak one.
        entity_tag = f'W/"{_digest(_OWN_POSITION.sub(b"", bytes(response.body), count=1))}"'
    response.headers["etag"] = entity_tag
    response.headers.setdefault("cache-control", "private, no-cache")
    if not _known(request, entity_tag):
        return response
    kept = {name: value for name, value in response.headers.items() if name not in ("content-length", "content-type")}
    return Response(None, 304, kept)


def required_revisions(request: Request, spec: CommandSpec | None) -> frozenset[str] | None:
    """The revisions of its subject that a command is for; None: for any. Raises InvalidInput where it has no subject
    that has one, for to overlook the header would be to do what was not to be done."""
    texts = request.headers.getlist("if-match")
    if not texts:
        return None
    if spec is None or subject_kind(spec) is None:
        raise InvalidInput(
            "this takes no `If-Match`: it is not about one VM, node or principal",
            code="precondition.no_subject",
            hint="leave the header out",
            field="If-Match",
        )
    text = ",".join(texts)
    if text.strip() == "*":
        return None  # that there is such a thing, the command itself asks for
    found = [(weak, value) for weak, value in _TAG.findall(text)]
    if not found or _TAG.sub("", text).strip(", \t") or len(found) > MAX_TAGS or any(weak for weak, _ in found):
        raise InvalidInput(
            f"`If-Match` cannot be {text[:80]!r}",
            code="precondition.invalid",
            hint='give the ETag that a read has told, with its quotes: "1043.5f2d8c01e97a4b36"',
            field="If-Match",
        )
    return frozenset(value.partition(".")[0] for _, value in found)


def subject_kind(spec: CommandSpec) -> str | None:
    """Which field of a command names its subject, where that has a revision: the one in its path."""
    return next((kind for kind in ("vm", "node", "principal") if f"{{{kind}}}" in spec.path), None)


def held_to(decide: Decide, spec: CommandSpec, revisions: frozenset[str] | None) -> Decide:
    """A `decide` that refuses where its subject, in the very state that it decides on, has another revision."""
    kind = subject_kind(spec)
    if revisions is None or kind is None:
        return decide
    return functools.partial(_decide_if_unchanged, decide, kind, revisions)


def _decide_if_unchanged(
    decide: Decide, kind: str, revisions: frozenset[str], state: ClusterState, command: Any, context: Context
) -> Decision:
    name = getattr(command, kind)
    thing: Vm | Node | PrincipalState | None
    if kind == "vm":
        thing = state.vms.get(state.vm_names.get(name, name))
    else:
        thing = state.nodes.get(name) if kind == "node" else state.principals.get(name)
    if thing is not None and revision_of(thing) not in revisions:
        at = f", at position {thing.position}" if not isinstance(thing, PrincipalState) else ""
        raise ChangedMeanwhile(
            f"{thing.name} has changed since you read it{at}",
            hint="read it again, and see whether you still want this; the history says who changed it",
            field="If-Match",
        )
    return decide(state, command, context)


def _known(request: Request, entity_tag: str) -> bool:
    text = ",".join(request.headers.getlist("if-none-match"))
    if text.strip() == "*":
        return True
    return any(f'"{value}"' == entity_tag.removeprefix("W/") for _, value in _TAG.findall(text)[:MAX_TAGS])


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
