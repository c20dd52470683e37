"""`pvc webhook list|info|deliveries|parked|test`, and how a new secret is shown."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from pvc.cli import complete, exits
from pvc.cli.base import PvcCommand
from pvc.cli.past import at_option, note_past
from pvc.cli.session import Session, now_us
from pvc.cli.table import WHOLE, Cell, Column, render_facts
from pvc.cli.text import clean, paint
from pvc.cli.times import age, ago, in_future

COLUMNS = (
    Column("WEBHOOK", rank=0),
    Column("STATE", rank=0),
    Column("LAG", right=True),
    Column("BEHIND", right=True),
    Column("DELIVERED", right=True, rank=3),
    Column("LAST", rank=2, least=WHOLE),
    Column("PARKED", right=True),
    Column("URL"),
)
TRIES = (
    Column("WHEN", least=WHOLE),
    Column("POSITION", right=True),
    Column("TYPE"),
    Column("EVENTS", right=True),
    Column("TRY", right=True),
    Column("STATUS", right=True),
    Column("MS", right=True),
    Column("OUTCOME"),
    Column("WHY"),
)
PARKED = (
    Column("POSITION", right=True),
    Column("TYPE"),
    Column("TRIES", right=True),
    Column("PARKED", least=WHOLE),
    Column("WHY"),
)

STYLES = {
    "delivering": "green",
    "replaying": "green",
    "proving": "yellow",
    "retrying": "yellow",
    "down": "red",
    "paused": "dim",
    "disabled": "red",
    "unknown": "yellow",
}
OUTCOMES = {"delivered": "green", "retry": "yellow"}
UNKNOWN = "?"


def show_webhooks(session: Session, at: str | None) -> None:
    """All webhooks, one a line."""
    hooks = session.client.get("/webhooks", {"at": at or ""})["items"]
    past = note_past(session)
    if session.wants_data:
        session.show_data(hooks)
        return
    at_us = now_us()
    rows: list[list[str | Cell]] = [
        [
            hook["name"],
            Cell(hook["state"], STYLES.get(hook["state"], "")),
            *(["", "", ""] if past else [_number(hook["lag"]), _behind(hook), _number(hook["delivered"])]),
            age(hook["last_us"], at_us) if hook["last_us"] else "",
            Cell(str(hook["parked"]), "red" if hook["parked"] else ""),
            hook["url"],
        ]
        for hook in hooks
    ]
    session.show_table([column._replace(optional=True) for column in COLUMNS] if past else COLUMNS, rows)
    if not hooks and not past:
        session.note("There are no webhooks; `pvc webhook add NAME URL` makes one.")


def show_webhook(session: Session, hook: str, at: str | None) -> None:
    """One webhook in full."""
    found = session.client.get(_path(hook), {"at": at or ""})
    past = note_past(session)
    if session.wants_data:
        session.show_data(found)
        return
    facts = _facts(found, now_us())
    # How far it had come then is not known; "never" would be untrue.
    session.show(render_facts([fact for fact in facts if not past or fact[0] not in MEASURED], session.look))


MEASURED = frozenset({"Position", "Lag", "Delivered", "Last"})
"""Facts of a webhook that are of its cursor."""


def _facts(hook: dict[str, Any], at_us: int) -> list[tuple[str, str | Cell]]:
    chosen = hook["settings"]
    replays = ", ".join(f"{span['next']} to {span.get('until', 0)}" for span in hook["replays"])
    names = "sent opened" if chosen.get("reveal_names") else "sent sealed, as in the log"
    secrets = [
        f"{one['id']}{' ' + one['public'] if one['public'] else ''}{', until ' + one['until'] if one['until'] else ''}"
        for one in hook["secrets"]
    ]
    return [
        ("Webhook", hook["name"]),
        ("URL", hook["url"]),
        ("State", Cell(hook["state"], STYLES.get(hook["state"], ""))),
        ("", hook["reason"]),
        ("Trouble", Cell(hook["trouble"], "red")),
        ("Tried", f"{hook['tries']} times" if hook["tries"] else ""),
        ("Next try", in_future(hook["next_us"], at_us) if hook["next_us"] > at_us else ""),
        ("Position", _number(hook["position"])),
        ("Lag", f"{_number(hook['lag'])} records, {_behind(hook) or '0 s'}"),
        ("Replaying", replays),
        ("Delivered", f"{_number(hook['delivered'])} events"),
        ("Last", ago(hook["last_us"], at_us) if hook["last_us"] else "never"),
        ("Parked", str(hook["parked"])),
        ("Types", ", ".join(chosen.get("types", [])) or "all"),
        ("Subjects", ", ".join(chosen.get("subjects", [])) or "all"),
        ("Tags", ", ".join(chosen.get("tags", [])) or "all"),
        ("Batch", f"{chosen.get('batch', 1)} events"),
        ("Rate", f"{chosen.get('rate', 20)} requests a second at most"),
        ("Tries", f"{chosen.get('tries', 10)}, then parked"),
        ("Signature", chosen.get("signature", "hmac")),
        ("Secrets", "; ".join(secrets)),
        ("Proof", f"{chosen.get('ownership', 'challenge')}, {'given' if hook['verified'] else 'not given yet'}"),
        ("Owner", f"{chosen.get('owner', '') or 'the cluster'}, who may see {hook['sees']}"),
        ("Private", ", ".join(chosen.get("allow_private", []))),
        ("Names", names),
        ("Delivered by", hook["deliverer"]),
        ("Description", chosen.get("description", "")),
    ]


def show_deliveries(session: Session, hook: str) -> None:
    """The last requests, the newest first."""
    tries = session.client.get(f"{_path(hook)}/deliveries")["items"]
    if session.wants_data:
        session.show_data(tries)
        return
    at_us = now_us()
    rows: list[list[str | Cell]] = [
        [
            age(one["time_us"], at_us),
            str(one["first"] or ""),
            one["type"],
            str(one["events"]),
            str(one["number"]),
            str(one.get("status") or ""),
            str(one.get("latency_ms", 0)),
            Cell(one.get("outcome", "delivered"), OUTCOMES.get(one.get("outcome", "delivered"), "red")),
            one.get("error", ""),
        ]
        for one in tries
    ]
    session.show_table(TRIES, rows)
    if not tries:
        session.note("Nothing was sent yet.")


def show_parked(session: Session, hook: str) -> None:
    """Events that were given up."""
    parked = session.client.get(f"{_path(hook)}/parked")["items"]
    if session.wants_data:
        session.show_data(parked)
        return
    at_us = now_us()
    rows: list[list[str | Cell]] = [
        [str(one["position"]), one["event"], str(one["tries"]), age(one["time_us"], at_us), one["reason"]]
        for one in parked
    ]
    session.show_table(PARKED, rows)
    if parked:
        first, last = parked[0]["position"], parked[-1]["position"]
        session.note(f"`pvc webhook replay {clean(hook)} --since {first} --until {last}` tries them again.")
    else:
        session.note("Nothing is parked.")


def test_webhook(session: Session, hook: str) -> int:
    """Send a ping now."""
    reply = session.client.post(f"{_path(hook)}/test")
    if session.wants_data:
        session.show_data(reply)
    elif reply["delivered"]:
        session.say(f"{hook} answered {reply['status']} in {reply['latency_ms']} ms.")
    else:
        session.say(f"{hook} did not take the ping: {reply['error'] or 'it answered ' + str(reply['status'])}")
        if reply["body"]:
            session.note(f"It said: {clean(reply['body'])}")
    return exits.OK if reply["delivered"] else exits.OUTCOME_FAILED


def show_secret(session: Session, secret: str) -> None:
    """A secret that was just made."""
    what = "Its public key" if secret.startswith("whpk_") else "Its secret, shown only this once"
    session.show(f"{what}: what the receiver verifies signatures with:\n\n  {paint(secret, 'bold', session.look)}\n\n")


def _path(hook: str) -> str:
    return f"/webhooks/{quote(hook, safe='')}"


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _behind(hook: dict[str, Any]) -> str:
    if hook["lag_s"] is None:
        return UNKNOWN
    return f"{hook['lag_s']:.0f} s" if hook["lag"] else ""


def _of_one(name: str, run: Any, text: str, *options: click.Option) -> PvcCommand:
    return PvcCommand(
        name,
        run,
        params=[click.Argument(["hook"], shell_complete=complete.webhook_names), *options],
        about={"hook": "Name or id of the webhook."},
        help=text,
        example=f"pvc webhook {name} billing",
        reads=name != "test",
    )


list_webhooks = PvcCommand(
    "list",
    show_webhooks,
    params=[at_option()],
    help="List the webhooks, and how far each is behind the log.",
    example="pvc webhook list",
)

info = _of_one("info", show_webhook, "Show all about a webhook.", at_option())
deliveries = _of_one("deliveries", show_deliveries, "Show the last requests to a webhook, and what was answered.")
parked = _of_one("parked", show_parked, "Show the events that a webhook was not given after the last try.")
test = _of_one(
    "test",
    test_webhook,
    "Send a webhook a ping now, and show what it answers.\n\nFails where the answer does not prove the receiver.",
)
