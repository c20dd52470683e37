"""`pvc audit`: who has touched what, who came in, the people whom the log knows by name, and copies of their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pvc.cli import complete, exits
from pvc.cli.access import granted
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.log import written
from pvc.cli.session import Session, now_us
from pvc.cli.table import WHOLE, Cell, Column
from pvc.cli.times import age, ago, when
from pvc.cli.values import When

COLUMNS = (Column("NAME", rank=0), Column("KEY", rank=2), Column("RECORDS", right=True), Column("STATE"))

TOUCHED = (Column("HAS TOUCHED IT", rank=0), Column("RECORDS", right=True), Column("LAST", least=WHOLE), Column("WITH"))
MAY = (Column("MAY TOUCH IT", rank=0), Column("ROLES"), Column("TOKENS", right=True), Column("ACTIONS"))
RESULT_WIDTH = 34
"""Of a result with its code; only how many more there were may be cut off."""

LOGINS = (
    Column("WHEN", rank=0, least=WHOLE),
    Column("WHO", rank=0),
    Column("FROM", rank=0),
    Column("TOKEN", rank=3, least=WHOLE),
    Column("AT NODE", rank=2),
    Column("RESULT", rank=0, least=RESULT_WIDTH),
)

_TOLD = {"erasing": "to be erased, asked for", "erased": "erased"}

PORTION = 1_000
"""Keys, or records, of one request."""

MOST_LOGINS = 100_000


def show_people(session: Session) -> None:
    """All of them; the erased ones last."""
    people = session.client.get("/audit/people")["items"]
    if session.wants_data:
        session.show_data(people)
        return
    at_us = now_us()
    rows: list[list[str | Cell]] = []
    for person in people:
        readable = person["state"] == "readable"
        told = (
            person["state"]
            if readable
            else f"{_TOLD.get(person['state'], person['state'])} {ago(person['since_us'], at_us)}"
        )
        style = {"readable": "green", "erasing": "yellow"}.get(person["state"], "dim")
        rows.append([person["name"], person["key"], str(person["records"]), Cell(told, style)])
    session.show_table(COLUMNS, rows)
    if not rows:
        session.note("Nobody has acted with a token yet.")


def show_who(session: Session, subject: str, since: str | None) -> None:
    """Who has touched a thing, and who may."""
    found = session.client.get("/audit/who", {"subject": subject, "since": since or ""})
    if session.wants_data:
        session.show_data({"touched": found["touched"], "may": found["may"], "complete": found["complete"]})
        return
    at_us = now_us()
    touched: list[list[str | Cell]] = [
        [
            one["actor"],
            str(one["records"]),
            age(one["last_us"], at_us),
            ", ".join(f"{name} ({count})" if count > 1 else name for name, count in one["commands"].items()),
        ]
        for one in found["touched"]
    ]
    may: list[list[str | Cell]] = [
        [one["principal"], granted(one["grants"]), str(one["tokens"]), ", ".join(one["actions"])]
        for one in found["may"]
    ]
    session.show_table(TOUCHED, touched)
    if not touched:
        session.note(f"Nobody has touched {subject}{' since then' if since else ''}.")
    session.show("\n")
    session.show_table(MAY, may)
    if not found["complete"]:
        session.note(f"Only the newest {found['considered']:,} records were looked through; --since narrows it.")
    session.note("Root on a node may do everything, and is not listed.")


LOGIN_EVENTS = ("access.token_used", "access.logged_in", "access.login_refused")


def show_logins(session: Session, actor: str | None, refused: bool, since: str | None, limit: int) -> None:
    """Who has come in and who was refused, newest first."""
    query = {"actor": actor or "", "refused": "true" if refused else "", "since": since or ""}
    records: list[dict[str, Any]] = []
    before: int | str | None = ""
    while before is not None and len(records) < limit:
        wanted = min(PORTION, limit - len(records))
        page = session.client.get("/audit/logins", {**query, "limit": wanted, "before": before})
        records += page["records"]
        before = page["next_before"]
    if session.wants_data:
        session.show_data(records)
        return
    at_us = now_us()
    rows: list[list[str | Cell]] = []
    for record in records:
        for event in record["events"]:
            if event["type"] not in LOGIN_EVENTS:
                continue  # a login is one record with the token that it made
            data, refusal = event["data"], event["type"] == "access.login_refused"
            more = f", and {data['unrecorded']} more before it" if data.get("unrecorded") else ""
            rows.append(
                [
                    when(record["time_us"], at_us),
                    "?" if refusal else record["actor"]["principal"],
                    data["network"] if refusal else record["actor"].get("address", ""),
                    data.get("token", ""),
                    data["node"],
                    _result(event["type"], data, more),
                ]
            )
    session.show_table(LOGINS, rows)
    if not rows:
        narrowed = " with these filters" if actor or refused or since else " yet"
        session.note(f"Nobody has come in{', and nobody was refused,' if not refused else ''}{narrowed}.")
    if before is not None:
        further = f"-n {min(4 * limit, MOST_LOGINS)}" if limit < MOST_LOGINS else "`pvc history all --until TIME`"
        session.note(f"There are older ones: {further} shows them.")


def _result(kind: str, data: dict[str, Any], more: str) -> Cell:
    if kind == "access.login_refused":
        return Cell(f"refused: {data['code']}{more}", "red")
    return Cell(f"logged in by {data['how']}" if kind == "access.logged_in" else "ok", "green")


def export_keys(session: Session, file: str) -> None:
    """Write all keys into a file that is its owner's alone."""
    keys = session.client.get("/audit/keys")["keys"]
    with written(file) as out:
        out.write(json.dumps({"keys": keys}, indent=1).encode() + b"\n")
    session.note(f"Exported {len(keys)} keys. Keep them apart from the log, and destroy them before long: whoever is")
    session.note("erased meanwhile can be read with this copy.")


def import_keys(session: Session, file: str) -> int:
    """Have the keys of a file again; says which could not be kept."""
    keys = _keys_in(file)
    kept, erased, taken = 0, 0, list[str]()
    for first in range(0, len(keys), PORTION):
        reply = session.client.post("/audit/keys", body={"keys": keys[first : first + PORTION]})
        kept, erased, taken = kept + reply["kept"], erased + reply["erased"], taken + reply["taken"]
    if session.wants_data:
        session.show_data({"kept": kept, "erased": erased, "taken": taken})
    else:
        session.say(f"Keys kept: {kept}. Of people who were erased, and so not kept: {erased}.")
        for name in taken:
            session.note(f"Not kept: {name} has another key by now; what was sealed with the old one stays unreadable.")
    return exits.OUTCOME_FAILED if taken else exits.OK


def _since() -> click.Option:
    return click.Option(["--since"], type=When(), help="Not before this: 2h, 3d, today, 07:30, 2026-07-24.")


def _keys_in(file: str) -> list[Any]:
    try:
        keys = json.loads(Path(file).read_bytes())["keys"]
    except OSError as error:
        raise usage_error(f"{file} cannot be read: {error.strerror}", "give a file of pvc audit export-keys") from error
    except (ValueError, KeyError, TypeError):
        raise usage_error(f"{file} has no keys", "give a file of pvc audit export-keys") from None
    if not isinstance(keys, list):
        raise usage_error(f"{file} has no keys", "give a file of pvc audit export-keys")
    return keys


who = PvcCommand(
    "who",
    show_who,
    reads=True,
    params=[click.Argument(["subject"], shell_complete=complete.subjects), _since()],
    about={"subject": "vm/NAME, node/NAME, access/NAME or cluster."},
    help="Show who has touched a thing, and who may.\n\nTouched: whoever has a record about it, refused tries too. "
    "May: whoever was given a role that allows something with it.",
    short_help="Show who has touched a thing, and who may.",
    example="pvc audit who vm/web01",
)

login = PvcCommand(
    "login",
    show_logins,
    reads=True,
    params=[
        click.Option(
            ["--actor"], metavar="NAME", shell_complete=complete.actors, help="Only of this person or service."
        ),
        click.Option(["--refused"], is_flag=True, help="Only those that were refused."),
        _since(),
        click.Option(
            ["-n", "--limit"],
            type=click.IntRange(1, MOST_LOGINS),
            default=50,
            show_default=True,
            metavar="NUMBER",
            help="Lines at most.",
        ),
    ],
    help="Show who has come in with a token, and who was refused.\n\nThe use of a token is recorded once a day for "
    "each address and gateway; of refused tries few are recorded, and the others counted.",
    short_help="Show who has come in, and who was refused.",
    example="pvc audit login --refused --since 1d",
)

people = PvcCommand(
    "people",
    show_people,
    reads=True,
    help="List the people whom the log knows by name, and those who are erased.",
    example="pvc audit people",
)

export = PvcCommand(
    "export-keys",
    export_keys,
    params=[click.Argument(["file"], shell_complete=complete.files)],
    about={"file": "The file to write; - is standard output."},
    help="Write the keys that make people's names readable into a file.\n\nOnly as root on a node. A backup of the"
    " cluster has its log and not these keys.",
    example="pvc audit export-keys /safe/keys.json",
)

restore = PvcCommand(
    "import-keys",
    import_keys,
    params=[click.Argument(["file"], shell_complete=complete.files)],
    about={"file": "A file of pvc audit export-keys."},
    help="Have keys again that were lost, from a copy.\n\nOnly as root on a node. After a restore, before anybody else"
    " acts. Keys of people who were erased are not kept.",
    example="pvc audit import-keys /safe/keys.json",
)
