"""`pvc history`: who did what, when, from where and why, and what came of it, as a story."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand
from pvc.cli.names import subject_names
from pvc.cli.past import at_option, note_past
from pvc.cli.session import Session, now_us
from pvc.cli.story import render_story
from pvc.cli.values import When
from pvc.cli.vm import vm_argument
from pvc.client.api_types import RecordView, ToldEvent
from pvc.client.cards import load_cards

PAGE = 200
"""Records per request; the gateway's index reads this many at once."""


def story_of_vm(session: Session, vm: str, **options: Any) -> None:
    """All that happened to a VM, also under former names."""
    _show(session, f"vm/{vm}", options)


def story_of_node(session: Session, node: str, **options: Any) -> None:
    """All that happened to a node."""
    _show(session, f"node/{node}", options)


def story_of_cluster(session: Session, **options: Any) -> None:
    """All that happened to the cluster itself."""
    _show(session, "cluster", options)


def story_of_all(session: Session, **options: Any) -> None:
    """All that happened."""
    _show(session, "", options)


def history_options() -> list[click.Parameter]:
    """What a history may be narrowed to."""
    return [
        click.Option(["--since"], type=When(), help="Not before this: 2h, 3d, today, 07:30, 2026-07-24."),
        click.Option(["--until"], type=When(), help="Not after this."),
        click.Option(
            ["--actor"],
            metavar="NAME",
            shell_complete=complete.actors,
            help="Only what this principal did: anna, root, node/hv1.",
        ),
        click.Option(
            ["--type", "types"],
            metavar="TYPE",
            shell_complete=complete.event_types,
            multiple=True,
            help="Only such events: vm.started, vm.*. Can be repeated.",
        ),
        click.Option(
            ["-n", "--limit"],
            type=click.IntRange(1, 100_000),
            default=50,
            show_default=True,
            metavar="NUMBER",
            help="How many records, the newest.",
        ),
        at_option(),
    ]


def fetch_history(session: Session, subject: str, options: dict[str, Any]) -> tuple[list[RecordView], list[str], bool]:
    """The newest records that fit the options, oldest first, what they are about, and whether there are older ones."""
    limit = options["limit"]
    filters = {
        "subject": subject,
        "since": options.get("since") or "",
        "until": options.get("until") or "",
        "actor": options.get("actor") or "",
        "tag": options.get("tag") or "",
        "type": ",".join(options.get("types") or ()),
        "at": options.get("at") or "",
    }
    records: list[RecordView] = []
    before: int | str = ""
    while True:
        page = session.client.history(limit=min(PAGE, limit - len(records)), before=before, **filters)
        records += page["records"]
        if session.client.moment is not None:
            filters["at"] = str(session.client.moment.position)
        if page["next_before"] is None or len(records) >= limit:
            return records[::-1], page["subjects"], page["next_before"] is not None
        before = page["next_before"]


def _show(session: Session, subject: str, options: dict[str, Any]) -> None:
    records, subjects, more = fetch_history(session, subject, options)
    note_past(session)
    if session.wants_data:
        session.show_data(records)
        return
    names = None if subject else subject_names(session.client, records)
    # A record may be about many things, such as the recovery of all VMs of a node.
    told = [cast("RecordView", {**record, "events": _about(record["events"], subjects)}) for record in records]
    story = render_story(told, outcomes=outcomes_of, look=session.look, now_us=now_us(), names=names)
    session.show(story)
    if not records:
        session.note(_nothing(subject, options))
    elif more:
        session.note(f"There is more before this: --limit {options['limit'] * 4} shows it.")


def _about(events: list[ToldEvent], subjects: list[str]) -> list[ToldEvent]:
    return [event for event in events if event["subject"] in subjects] or events


def outcomes_of(record: RecordView) -> dict[str, bool]:
    """What ends what a record has begun; empty where that was done at once."""
    card = load_cards().get(record["command"]["name"])
    if card is None or (card["begins"] and all(event["type"] not in card["begins"] for event in record["events"])):
        return {}
    return card["outcomes"]


def _nothing(subject: str, options: dict[str, Any]) -> str:
    narrowed = [name for name in ("since", "until", "actor", "types", "at") if options.get(name)]
    what = f"Nothing is known of {subject.partition('/')[2] or subject}" if subject else "Nothing has happened"
    return f"{what} with these filters." if narrowed else f"{what} yet."


def _command(name: str, run: Any, arguments: Sequence[click.Parameter], about: dict[str, str], text: str) -> PvcCommand:
    example = {
        "vm": "pvc history vm web01 --since today",
        "node": "pvc history node hv1",
        "cluster": "pvc history cluster",
        "all": "pvc history all --actor admin --type 'vm.*' --since 2d",
    }
    return PvcCommand(
        name, run, reads=True, params=[*arguments, *history_options()], about=about, help=text, example=example[name]
    )


of_vm = _command(
    "vm",
    story_of_vm,
    [vm_argument()],
    {"vm": "Name (also a former one) or id of the VM."},
    "Tell the story of a VM.\n\nIt covers every VM that ever had the name, also removed ones.",
)
of_node = _command(
    "node",
    story_of_node,
    [click.Argument(["node"], shell_complete=complete.node_names)],
    {"node": "Name of the node."},
    "Tell the story of a node.",
)
of_cluster = _command("cluster", story_of_cluster, [], {}, "Tell the story of the cluster itself.")
of_all = _command("all", story_of_all, [], {}, "Tell the story of everything.")
