"""Runs a derived command: ask first, send it, say what it did, and wait for what it leads to."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any

import click

from pvc.cli import exits
from pvc.cli.base import usage_error
from pvc.cli.names import subject_names
from pvc.cli.progress import ProgressLine
from pvc.cli.session import Session, write_error
from pvc.cli.text import clean, paint
from pvc.cli.times import took
from pvc.client.api_types import OperationInfo, RecordView, Reply
from pvc.client.cards import Card
from pvc.client.errors import ApiError, ClientError
from pvc.client.waiting import Outcome

_FIELD = re.compile(r"`(\w+)(?:\[\d+\])?(?:\.(\w+))?`")

REPLIES = {
    "cluster.rebalance": "moves:show_moves",
    "access.create_token": "access:show_made",
    "access.rotate_token": "access:show_made",
}
"""Commands whose reply is shown by a function written by hand: its module of `pvc.cli`, and its name."""

MANY = frozenset({"node.flush", "node.ready"})
"""Commands that move many VMs; what became of each is told at the end."""

OWN_WAITS = frozenset({"cluster.rebalance", "node.confirm_fenced"})
"""Commands that have no outcome of their own, but one for each VM: `pvc.cli.waits`."""

_VIEWS = {"vm": "history vm", "node": "history node", "webhook": "webhook deliveries"}
"""What shows how a failure came about, by the kind of what it is about."""

_CONTROLS = ("dry_run", "yes", "wait", "wait_timeout")


def run_card(session: Session, card: Card, values: dict[str, Any]) -> int:
    """Run a command with the values from its options and arguments; returns the exit code."""
    controls = {name: values.pop(name, None) for name in _CONTROLS}
    fields = given_fields(values)
    dry_run = bool(controls["dry_run"])
    if dry_run and controls["wait"]:
        raise usage_error("--dry-run and --wait exclude each other", "a dry run changes nothing, so nothing follows")
    if card["confirm"] and not controls["yes"] and not dry_run:
        confirm(card["confirm"].format_map(fields))
    try:
        reply = session.client.command(card["name"], fields, dry_run=dry_run)
    except ApiError as error:
        error.message, error.hint = (as_typed(text, card) for text in (error.message, error.hint))
        raise
    if reply.get("secret") and not session.wants_data:
        from pvc.cli.webhook import show_secret

        show_secret(session, str(reply.get("secret")))  # before anything can go wrong
    if not controls["wait"]:
        show_reply(session, reply, label_of(fields))
        return exits.OK
    timeout_s = _wait_s(card, fields, controls["wait_timeout"])
    operation = reply.get("operation")
    if operation is not None and card["name"] in OWN_WAITS:
        from pvc.cli.waits import finish

        return finish(session, reply, operation["id"], label_of(fields), timeout_s)
    return _wait(session, reply, label_of(fields), timeout_s)


def as_typed(text: str, card: Card) -> str:
    """A message about fields (`memory_mib`, `disks[0].path`) in words of the command line (--memory, --disk path)."""
    from pvc.cli.derive import option_name

    words = {
        field["name"]: field["name"].upper() if field["name"] in card["args"] else f"--{option_name(field)}"
        for field in card["fields"]
    }

    def typed(match: re.Match[str]) -> str:
        word = words.get(match[1], match[0])
        return f"{word} {match[2]}" if match[2] else word

    return _FIELD.sub(typed, text)


def confirm(question: str) -> None:
    """Ask before damage is done. Raises a usage error where there is nobody to ask, Abort on a no."""
    if not sys.stdin.isatty():
        raise usage_error(f"there is no terminal to ask at: {clean(question)}", "give --yes to go ahead unasked")
    question = clean(question)
    if not click.confirm(f"{question}{'' if question.endswith('?') else '.'}\nGo ahead?", default=False, err=True):
        raise click.exceptions.Exit(exits.REJECTED)


def label_of(fields: dict[str, Any]) -> str:
    """What a command is about, as the person named it."""
    return str(next((fields[name] for name in _NAMING if fields.get(name)), ""))


_NAMING = ("vm", "node", "hook", "principal", "name")
"""Fields by which a command says what it is about."""


def sentence(label: str, summary: str) -> str:
    """What an event says, with its subject's name unless it is in it."""
    summary = clean(summary)
    words = summary.replace(":", " ").replace(",", " ").split()
    if not label or label in words:
        return summary if summary.startswith(label) and label else summary[:1].upper() + summary[1:]
    return f"{label}: {summary}"


def given_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given: options that were not are None, or an empty list. Leaves out what is no field."""
    values = {name: value for name, value in values.items() if name not in _CONTROLS and value != ()}
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    for name in [name for name in fields if name.startswith("no_")]:
        emptied, listed = fields.pop(name), name.removeprefix("no_")
        if emptied and listed in fields:
            raise usage_error(f"--no-{listed} excludes giving some", "leave one of them out")
        if emptied:
            fields[listed] = []
    return {name: value for name, value in fields.items() if value is not None}


def _wait_s(card: Card, fields: dict[str, Any], asked: int | None) -> float:
    from pvc.cli.derive import wait_s

    if asked is not None:
        return asked
    defaults = {field["name"]: field.get("default") for field in card["fields"]}
    return wait_s(card) + int(fields.get("timeout_s") or defaults.get("timeout_s") or 0)


def show_reply(session: Session, reply: Reply, label: str) -> None:
    """What a command did, or would do."""
    if session.wants_data:
        session.show_data(reply)
    elif not reply["changed"]:
        session.say(f"Nothing to change{_about(label)}: it is so already.")
    elif reply["name"] in REPLIES:
        _reply_view(reply["name"])(session, reply)
    else:
        names = {} if label else subject_names(session.client, [reply])
        for event in reply["events"]:
            session.say(sentence(label or names.get(event["subject"], ""), event["summary"]))
    _show_notes(session, reply)


def _reply_view(name: str) -> Callable[[Session, Reply], None]:
    module, function = REPLIES[name].split(":")
    view: Callable[[Session, Reply], None] = getattr(importlib.import_module(f"pvc.cli.{module}"), function)
    return view


def _about(label: str) -> str:
    return f" about {label}" if label else ""


def _show_notes(session: Session, reply: Reply) -> None:
    if session.wants_data:
        return
    if reply["dry_run"]:
        session.note("Note: this was a dry run; nothing was changed.")
    if reply["repeated"]:
        session.note("Note: this command had been carried out before; it was not done twice.")
    for note in reply["notes"]:
        session.note(f"Note: {note}")
    if session.verbose:
        session.note(f"Position {reply['position']}, record {reply['record'] or 'none'}")


def _wait(session: Session, reply: Reply, label: str, timeout_s: float) -> int:
    from pvc.cli.watch import watching

    if reply.get("operation") is None:  # done at once, or nothing had to change
        show_reply(session, reply, label)
        return exits.OK
    with ProgressLine(sys.stderr, plain=not session.wants_data) as progress:
        for event in reply["events"]:
            if event["type"] not in reply["outcomes"]:  # which is told at the end
                progress.step(sentence(label, event["summary"]))

        subjects = {event["subject"] for event in reply["events"]}

        def on_progress(record: RecordView) -> None:
            for event in record["events"]:
                own = len(subjects) > 1 or event["subject"] in subjects
                if own and event["type"] not in reply["outcomes"]:
                    progress.step(sentence(label, event["summary"]))

        try:
            with watching(session, reply["name"], label, progress):
                outcome = session.client.wait_for(reply, timeout_s=timeout_s, on_progress=on_progress)
        except (ClientError, KeyboardInterrupt) as error:
            session.ends_with = exits.exit_code(error) if isinstance(error, ClientError) else exits.INTERRUPTED
            if session.wants_data:  # what was accepted, and a secret that is shown nowhere else
                session.show_data({**reply, "outcome": {"success": None, "record": None}})
            raise
    assert outcome is not None, "there is an operation"
    session.ends_with = exits.OK if outcome.success else exits.OUTCOME_FAILED
    results = _results(outcome.operation) if reply["name"] in MANY else None
    if session.wants_data:
        shown = {"success": outcome.success, "record": outcome.record}
        session.show_data({**reply, "outcome": shown, **({} if results is None else {"vms": results})})
    else:
        _show_notes(session, reply)
        _show_results(session, results)
    if outcome.success:
        if not session.wants_data:
            _show_outcome(session, sentence(label, outcome.text), outcome.waited_s)
        return exits.OK
    _show_failure(session, reply, label, outcome)
    return exits.OUTCOME_FAILED


def _results(info: OperationInfo) -> list[dict[str, Any]]:
    from pvc.cli.moves import results_of

    return results_of(info)


def _show_results(session: Session, results: list[dict[str, Any]] | None) -> None:
    if results:
        from pvc.cli.moves import render_results

        session.show(render_results(results, session.look))


def _show_outcome(session: Session, text: str, waited_s: float) -> None:
    look = session.look
    session.show(f"{clean(text)} {paint(f'(+{took(round(waited_s * 1e6))})', 'dim', look)}\n")


def _show_failure(session: Session, reply: Reply, label: str, outcome: Outcome) -> None:
    subject = reply["events"][0]["subject"] if reply["events"] else ""
    view = _VIEWS.get(subject.partition("/")[0], "")
    hint = f"`pvc {view} {label}` shows how it came about" if view and label else ""
    write_error(session, sentence(label, outcome.text), hint=hint, code=outcome.code)
