"""`pvc access`: who may do what, and their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.past import at_option, note_past
from pvc.cli.run import sentence
from pvc.cli.session import Session, now_us
from pvc.cli.table import WHOLE, Cell, Column, render_facts
from pvc.cli.times import age, ago
from pvc.client.api_types import Reply

COLUMNS = (
    Column("NAME", rank=0),
    Column("KIND"),
    Column("MAY"),
    Column("TOKENS", right=True),
    Column("LAST USE", rank=2, least=WHOLE),
)

TOKEN_COLUMNS = (
    Column("TOKEN", rank=0, least=WHOLE),  # it is what the other commands take
    Column("OWNER", rank=0),
    Column("AT MOST"),
    Column("MADE", rank=2, least=WHOLE),
    Column("EXPIRES", least=WHOLE),
    Column("LAST USE", rank=2, least=WHOLE),
    Column("DESCRIPTION", rank=2),
)

DAY_US = 86_400 * 1_000_000

SOON_US = 14 * DAY_US
"""A token that expires within this time is shown in yellow."""


def show_principals(session: Session, at: str | None) -> None:
    """All of them, one a line."""
    principals = session.client.get("/access", {"at": at or ""})["items"]
    note_past(session)
    if session.wants_data:
        session.show_data(principals)
        return
    at_us = now_us()
    rows: list[list[str | Cell]] = [
        [
            principal["name"],
            principal["kind"],
            granted(principal["grants"]),
            Cell(str(principal["tokens"]), "" if principal["tokens"] else "yellow"),
            age(principal["used_us"], at_us),
        ]
        for principal in principals
    ]
    session.show_table(COLUMNS, rows)
    session.note("Root on a node may do everything, and is not listed.")


def show_principal(session: Session, principal: str | None, at: str | None) -> None:
    """One in full; oneself, where none is named."""
    if principal is None:
        me = session.client.whoami()
        if me["method"] != "token":
            if at:
                raise usage_error("--at is for a principal, and you are none", "pvc access info NAME --at MOMENT")
            _show_me(session, me)
            return
        principal = str(me["principal"])
    found = session.client.get(f"/access/{quote(principal, safe='')}", {"at": at or ""})
    note_past(session)
    if session.wants_data:
        session.show_data(found)
        return
    row, at_us = found["principal"], now_us()
    facts: list[tuple[str, str | Cell]] = [
        ("Name", row["name"]),
        ("Kind", f"{row['kind']}, who logs in at the issuer" if row["login"] else row["kind"]),
        ("May", granted(row["grants"])),
        ("Description", row["description"] or "-"),
        ("Added", ago(row["added_us"], at_us)),
        ("Last use", ago(row["used_us"], at_us) if row["used_us"] else "never"),
        ("History", f"access/{row['id']}"),
    ]
    session.show(render_facts(facts, session.look))
    if found["tokens"]:
        show_token_table(session, found["tokens"])


def _show_me(session: Session, me: dict[str, Any]) -> None:
    if session.wants_data:
        session.show_data(me)
        return
    facts: list[tuple[str, str | Cell]] = [("Name", me["principal"]), ("May", granted(me["grants"]))]
    session.show(render_facts(facts, session.look))


def show_tokens(session: Session) -> None:
    """Those that one may see, one a line."""
    tokens = session.client.get("/tokens")["items"]
    if session.wants_data:
        session.show_data(tokens)
        return
    show_token_table(session, tokens)
    if not tokens:
        session.note("There is no token.")


def show_token_table(session: Session, tokens: Sequence[dict[str, Any]]) -> None:
    """The table of tokens."""
    at_us = now_us()
    rows: list[list[str | Cell]] = [
        [
            token["id"],
            token["principal"],
            "" if token["role"] == "admin" else token["role"],
            age(token["created_us"], at_us),
            _expiry(token, at_us),
            age(token["used_us"], at_us),
            token["description"],
        ]
        for token in tokens
    ]
    session.show_table(TOKEN_COLUMNS, rows)


def _expiry(token: dict[str, Any], at_us: int) -> Cell:
    if not token["expires_us"]:
        return Cell("never")
    left_us = token["expires_us"] - at_us
    if token["expired"] or left_us <= 0:
        return Cell(f"expired {age(token['expires_us'], at_us)}", "dim")
    days, hours = left_us // DAY_US, left_us // (DAY_US // 24)
    return Cell(f"in {days} d" if days > 1 else f"in {hours} h", "yellow" if left_us < SOON_US else "")


def granted(grants: Sequence[dict[str, str]]) -> str:
    """`operator (tag shop), viewer`."""
    return ", ".join(_grant(grant) for grant in grants) or "nothing"


def _grant(grant: dict[str, str]) -> str:
    limits = [f"{word} {grant[word]}" for word in ("tag", "name") if grant.get(word)]
    return f"{grant['role']} ({', '.join(limits)})" if limits else grant["role"]


def show_made(session: Session, reply: Reply) -> None:
    """What a command that makes a token did, and the token, on a line of its own."""
    for event in reply["events"]:
        session.say(sentence("", event["summary"]))
    token = reply.get("token")
    if token:
        session.note("The token, shown only this once (the log keeps but its hash):")
        session.say(token)
    elif reply["repeated"]:
        session.note("The token was shown the first time, and cannot be shown again.")


list_principals = PvcCommand(
    "list",
    show_principals,
    params=[at_option()],
    help="List who may do what.\n\nWho may not see all is shown themselves.",
    short_help="List who may do what.",
    example="pvc access list",
)

info = PvcCommand(
    "info",
    show_principal,
    reads=True,
    params=[click.Argument(["principal"], required=False, shell_complete=complete.principal_names), at_option()],
    about={"principal": "Name of a person or a service; without, you yourself."},
    help="Show what somebody may do, and their tokens.",
    example="pvc access info anna",
)

list_tokens = PvcCommand(
    "list",
    show_tokens,
    help="List tokens, without their secrets.\n\nWho may not see all is shown their own.",
    short_help="List tokens, without their secrets.",
    example="pvc access token list",
)
