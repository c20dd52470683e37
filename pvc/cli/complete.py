"""Names for the shell's Tab key, asked from the gateway: quickly, or not at all. A failure offers nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pvc.cli.session import SOURCE, Session
from pvc.cli.text import clean

if TYPE_CHECKING:
    from pvc.client.client import Client

TIMEOUT_S = 0.7
"""A person waits at the Tab key; a gateway on the same continent answers well within this."""

MAX_NAMES = 200
"""More than anyone reads."""

Complete = Callable[[click.Context, click.Parameter, str], list[Any]]


def for_field(name: str) -> Complete | None:
    """The completion of a command's field; None where the shell's own will do."""
    return {
        "vm": vm_names,
        "node": node_names,
        "node_limits": node_names,
        "tag": tag_names,
        "tags": tag_names,
        "affinity": tag_names,
        "anti_affinity": tag_names,
        "fault": fault_ids,
        "principal": principal_names,
        "token": token_ids,
        "hook": webhook_names,
    }.get(name)


def vm_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of VMs."""
    return _asked(ctx, lambda client: [row["name"] for row in client.vms(name=f"{incomplete}*", limit=MAX_NAMES)])


def node_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of nodes."""
    return _asked(ctx, lambda client: _beginning(incomplete, [node["name"] for node in client.nodes()]))


def tag_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Tags: of the VM where one is to be removed, of all VMs elsewhere."""

    def ask(client: Client) -> list[str]:
        if ctx.info_name == "remove" and ctx.params.get("vm"):
            tags = {tag["tag"] for tag in client.vm(ctx.params["vm"])["tags"]}
        else:
            tags = {tag for row in client.vms() for tag in row["tags"]}
        return _beginning(incomplete, sorted(tags))

    return _asked(ctx, ask)


def fault_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Ids of faults that nobody has taken notice of yet."""
    return _asked(ctx, lambda client: _beginning(incomplete, [f["id"] for f in client.faults(acknowledged=False)]))


def principal_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """People and services."""
    return _asked(ctx, lambda client: _beginning(incomplete, _principals(client)))


def actors(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Who may have done something: people, services, root, and nodes."""

    def ask(client: Client) -> list[str]:
        if incomplete.startswith("node/"):
            return _beginning(incomplete, [f"node/{node['name']}" for node in client.nodes()])
        return _beginning(incomplete, [*_principals(client), "root", "node/"])

    return _asked(ctx, ask)


def token_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Ids of tokens; shells that have room for it show whose they are."""
    from click.shell_completion import CompletionItem

    tokens: list[Any] = []

    def ask(client: Client) -> list[str]:
        tokens.extend(client.get("/tokens")["items"])
        return []

    _asked(ctx, ask)
    return [
        CompletionItem(token["id"], help=clean(f"{token['principal']} {token['description']}".strip()))
        for token in tokens
        if token["id"].startswith(incomplete)
    ]


def event_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Types of events that commands lead to, and all of a kind."""
    from pvc.client.cards import load_cards

    types = {name for card in load_cards().values() for name in card["outcomes"]}
    return _items(_beginning(incomplete, sorted(types | {f"{name.partition('.')[0]}.*" for name in types})))


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Files of this machine, which the shell knows."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def webhook_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of webhooks."""
    return _asked(ctx, lambda client: _beginning(incomplete, [one["name"] for one in client.get("/webhooks")["items"]]))


def subjects(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """What there is a history of: `vm/web01`, `node/hv1`, `cluster`."""

    def ask(client: Client) -> list[str]:
        kind, _, name = incomplete.partition("/")
        if kind == "vm":
            return [f"vm/{row['name']}" for row in client.vms(name=f"{name}*", limit=MAX_NAMES)]
        if kind == "node":
            return _beginning(incomplete, [f"node/{node['name']}" for node in client.nodes()])
        return _beginning(incomplete, ["vm/", "node/", "cluster"])

    return _asked(ctx, ask)


def connection_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of connections."""
    from pvc.client.connections import ALL, LOCAL, load_connections
    from pvc.client.errors import ClientError

    try:
        return _items(
            _beginning(
                incomplete, [*load_connections().connections, LOCAL, *([ALL] if param.name == "connection" else [])]
            )
        )
    except ClientError:
        return []


def _asked(ctx: click.Context, ask: Callable[[Client], list[str]]) -> list[Any]:
    from pvc.client import connections
    from pvc.client.client import Client
    from pvc.client.errors import ClientError

    session = ctx.find_object(Session)
    named = (session.connection if session else "") or ctx.find_root().params.get("connection") or ""
    try:
        connection = connections.choose_connection(named)
        with Client(connection, source=SOURCE, tries=1, timeout_s=TIMEOUT_S) as client:
            return _items(ask(client))
    except ClientError:
        return []  # the Tab key is no place for an error


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _principals(client: Client) -> list[str]:
    return [principal["name"] for principal in client.get("/access")["items"]]


def _items(names: list[str]) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in names if name == clean(name)]
