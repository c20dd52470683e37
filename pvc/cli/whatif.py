"""`pvc whatif`: what would come of a command, or of the loss of a node; nothing is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import click

from pvc.cli import exits
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.run import as_typed, given_fields, label_of, sentence
from pvc.cli.session import Session
from pvc.cli.table import Cell, Column, render_table
from pvc.cli.text import Look, clean, paint
from pvc.cli.times import mib
from pvc.client.cards import Card, load_cards
from pvc.client.other_times import Forecast, ForecastAnswer, what_if

THEN = "--then"
NODE_LOSS = "node-loss"

PLACEMENTS = (Column("VM"), Column("NOW"), Column("THEN"), Column("WHY"))
LEFT = (Column("LEFT"), Column("NODE"), Column("WHY"))
NODES = (Column("NODE"), Column("NOW"), Column("THEN"), Column("ALLOCATED"))


def show_forecast(session: Session, words: tuple[str, ...]) -> int:
    """What would be; exits as the first refused command would."""
    steps = split(words)
    forecast = what_if(session.client, [step.body for step in steps])
    refused = [answer for answer in forecast["answers"] if answer["refusal"] is not None]
    if session.wants_data:
        session.show_data(forecast)
    else:
        session.note(f"What if, at position {forecast['position']}; nothing is changed")
        for step, answer in zip(steps, forecast["answers"], strict=True):
            session.show(_answer(step, answer, session.look))
        session.show(render_forecast(forecast, session.look))
        for note in forecast["notes"]:
            session.note(f"Note: {note}")
    return exits.REJECTED if refused else exits.OK


def render_forecast(forecast: Forecast, look: Look) -> str:
    """VMs that would be elsewhere or otherwise, those that would be left, and what that means for the nodes."""
    parts = []
    if forecast["placements"]:
        moved: list[list[str | Cell]] = [
            [one["name"], _at(one["source"], one["before"]), _at(one["target"], one["after"]), ", ".join(one["why"])]
            for one in forecast["placements"]
        ]
        parts.append(render_table(PLACEMENTS, moved, look))
    if forecast["left"]:
        left: list[list[str | Cell]] = [
            [Cell(one["name"], "red"), one["node"], one["reason"]] for one in forecast["left"]
        ]
        parts.append(render_table(LEFT, left, look))
    if forecast["nodes"]:
        nodes: list[list[str | Cell]] = [
            [
                one["node"],
                one["before"],
                one["after"],
                f"{mib(one['allocated_before_mib'])} → {mib(one['allocated_after_mib'])} of {mib(one['memory_mib'])}",
            ]
            for one in forecast["nodes"]
        ]
        parts.append(render_table(NODES, nodes, look))
    return "\n".join(parts)


class Step:
    """One question as typed: its words, and what the API is asked."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.card: Card | None = None
        self.label = ""
        if words[0] == NODE_LOSS:
            if len(words) != 2:
                raise usage_error(f"{NODE_LOSS} takes the name of one node", "pvc whatif node-loss hv2")
            self.body: dict[str, Any] = {"node_loss": words[1]}
            self.label = words[1]
            return
        self.card, rest = _card_of(words)
        fields = _fields_of(self.card, rest)
        self.label = label_of(fields)
        self.body = {"command": self.card["name"], "fields": fields}


def split(words: Sequence[str]) -> list[Step]:
    """The questions, which stand between --then's."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == THEN:
            parts.append([])
        else:
            parts[-1].append(word)
    if not all(parts):
        raise usage_error("there is no command to try out", "pvc whatif vm start web01, or pvc whatif node-loss hv2")
    return [Step(part) for part in parts]


def _card_of(words: Sequence[str]) -> tuple[Card, list[str]]:
    """The command that the words begin with, and the rest of them."""
    cards = [card for card in load_cards().values() if list(words[: len(card["cli"])]) == list(card["cli"])]
    if not cards:
        shown = " ".join(words[:3])
        raise usage_error(
            f"{shown!r} is no command that changes anything", "`pvc -h` lists the commands; queries need no what-if"
        )
    card = max(cards, key=lambda card: len(card["cli"]))
    return card, list(words[len(card["cli"]) :])


def _fields_of(card: Card, words: list[str]) -> dict[str, Any]:
    from pvc.cli.derive import command_from_card

    command = command_from_card(card)
    context = command.make_context(" ".join(("pvc", *card["cli"])), words, obj=Session())
    return given_fields(dict(context.params))


def _at(node: str, state: str) -> str:
    return f"{node}, {state}" if node else "-"


def _answer(step: Step, answer: ForecastAnswer, look: Look) -> str:
    refusal = answer["refusal"]
    if refusal is not None:
        texts = (refusal["message"], refusal["hint"])
        message, hint = (as_typed(text, step.card) if step.card else text for text in texts)
        return f"{paint('Refused:', 'red', look)} {clean(message)}\n{paint('Hint:', 'cyan', look)} {clean(hint)}\n\n"
    told = [sentence(step.label, event["summary"]) for event in answer["events"]]
    if not told and step.card is not None:
        told = ["Nothing to change: it is so already."]
    lines = [*told, *(f"Note: {clean(note)}" for note in answer["notes"])]
    return "".join(f"{line}\n" for line in lines) + ("\n" if lines else "")


class _WhatIf(PvcCommand):
    """Leaves the options of the commands that it tries out to them."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.ignore_unknown_options = True
        self.context_settings = {**self.context_settings, "ignore_unknown_options": True}


whatif = _WhatIf(
    "whatif",
    show_forecast,
    params=[
        click.Argument(
            ["words"],
            nargs=-1,
            required=True,
            type=cast("Any", click.UNPROCESSED),
            metavar="COMMAND...",
        )
    ],
    about={"words": "A command as pvc takes it, or node-loss NODE; more of them after --then."},
    help="Show what would come of a command, or of the loss of a node.\n\nIt is played through to its end on a copy of "
    "the present state: where VMs would go and why, and which would find no room. Nothing is changed. Guests are taken "
    "to start and power off as asked, migrations to arrive, fence agents to work.",
    short_help="Show what would come of a command, or of the loss of a node.",
    example="pvc whatif node-loss hv2\npvc whatif node flush hv1 --then vm start web09",
)
