"""Makes a command of the command line from a command card: arguments, options, help and example. Pure.

Names: `memory_mib` becomes `--memory MIB`, `timeout_s` `--timeout TIME`, a list `--tag` that may be repeated, a
boolean `--protected/--no-protected`, a boolean argument `on|off`.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand
from pvc.cli.run import OWN_WAITS, as_typed, run_card
from pvc.cli.session import Session
from pvc.cli.times import as_time
from pvc.cli.values import Amount, OnOff, Parts, TextFile
from pvc.client.cards import Card, Field

_UNITS = ("_mib", "_s", "_ms")
_FILES = frozenset({"xml"})
"""Fields that are too long for a command line, and are read from a file."""

WAIT_S = 120
"""How long --wait waits by default, beside the command's own time-out: an emulated guest is slow to start."""

LONG_WAITS_S = {
    "vm.migrate": 900,
    "vm.move": 900,
    "vm.unmigrate": 900,
    "node.flush": 3600,
    "node.ready": 3600,
    "cluster.rebalance": 3600,
    "node.confirm_fenced": 900,
    "node.add": 900,
    "vm.modify": WAIT_S + 90,
}
"""The same where memory is sent over the network (64 GiB take ten minutes at 1 Gbit/s, and a node has many VMs), where
many guests boot at once, or where a person is to start a daemon; and where a guest has its usual time to shut down in,
without a field that says so."""

_METAVARS = {
    "NODE-LIMIT": "NODE",
    "KERNEL": "PATH",
    "INITRD": "PATH",
    "PASSWORD-FILE": "PATH",
    "DESCRIPTION": "TEXT",
    "CMDLINE": "TEXT",
    "REASON": "TEXT",
    "OPTION": "NAME=VALUE",
    "AFFINITY": "TAG",
    "ANTI-AFFINITY": "TAG",
}
"""What an option takes, where its own name does not say it."""


def command_from_card(card: Card) -> PvcCommand:
    """The Click command of a card."""

    def run(session: Session, **values: Any) -> int | None:
        return run_card(session, card, values)

    fields = {field["name"]: field for field in card["fields"]}
    arguments = [_argument(fields[name], last=name == card["args"][-1]) for name in card["args"]]
    options = [
        option for field in card["fields"] if field["name"] not in card["args"] for option in _options(field, card)
    ]
    return PvcCommand(
        card["cli"][-1],
        run,
        params=[*arguments, *options, *_controls(card)],
        about={name: _plain(fields[name]["description"], card) for name in card["args"]},
        help=f"{card['summary']}\n\n{_plain(card['help'], card)}",
        short_help=card["summary"],
        example=example_line(card),
    )


def may_wait(card: Card) -> bool:
    """Whether there is anything to wait for."""
    return bool(card["outcomes"]) or card["name"] in OWN_WAITS


def wait_s(card: Card) -> int:
    """How long --wait waits by default."""
    return LONG_WAITS_S.get(card["name"], WAIT_S)


def example_line(card: Card) -> str:
    """The card's example as one would type it."""
    fields = {field["name"]: field for field in card["fields"]}
    words = ["pvc", *card["cli"]]
    for name in card["args"]:
        value = card["example"].get(name)
        if isinstance(value, bool):
            words.append("on" if value else "off")
        elif isinstance(value, list):
            words += [str(item) for item in value]
        elif value is not None:
            words.append(str(value))
    for name, value in card["example"].items():
        if name not in card["args"]:
            words += _typed(fields[name], value)
    if may_wait(card):
        words.append("--wait")
    return shlex.join(words)


def option_name(field: Field) -> str:
    """The option's name without its dashes."""
    name = field["name"]
    for unit in _UNITS:
        name = name.removesuffix(unit)
    if field["type"] in ("list", "object-list"):
        name = name.removesuffix("s")
    return name.replace("_", "-")


def _typed(field: Field, value: Any) -> list[str]:
    name = f"--{option_name(field)}"
    if isinstance(value, bool):
        return [name if value else f"--no-{option_name(field)}"]
    if isinstance(value, list):
        return [word for item in value for word in (name, _typed_item(item))]
    return [name, as_time(value) if _is_time(field) else str(value)]


def _typed_item(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    spelt = {True: "on", False: "off"}
    return ",".join(
        f"{key.replace('_', '-')}={spelt[value] if isinstance(value, bool) else value}" for key, value in item.items()
    )


def _argument(field: Field, *, last: bool) -> click.Argument:
    many = field["type"] == "list"
    assert last or not many, "only the last argument takes several values"
    word = _metavar(field)
    if not field.get("required"):
        word = f"[{word}]..." if many else f"[{word}]"
    return click.Argument(
        [field["name"]],
        type=_type(field),
        required=bool(field.get("required")),
        nargs=-1 if many else 1,
        metavar=None if field["type"] in ("boolean", "enum") else word,
        shell_complete=complete.for_field(field["name"]),
    )


def _options(field: Field, card: Card) -> list[click.Option]:
    name = option_name(field)
    several = field["type"] in ("list", "object-list")
    shared: dict[str, Any] = {"default": None, "required": bool(field.get("required")), "help": _help(field, card)}
    if field["type"] == "boolean":
        return [click.Option([field["name"], f"--{name}/--no-{name}"], **shared)]
    option = click.Option(
        [field["name"], f"--{name}"],
        type=_type(field),
        multiple=several,
        metavar=None if field["type"] == "enum" else _metavar(field),
        shell_complete=complete.for_field(field["name"]),
        **shared,
    )
    if not several or "default" in field or field.get("min_length"):
        return [option]
    plural = field["name"].replace("_", "-")
    emptied = click.Option([f"no_{field['name']}", f"--no-{plural}"], is_flag=True, help=f"Leave no {plural}.")
    return [option, emptied]


def _controls(card: Card) -> list[click.Option]:
    options = [click.Option(["--dry-run"], is_flag=True, help="Say what would happen; change nothing.")]
    if card["confirm"]:
        options.append(click.Option(["-y", "--yes"], is_flag=True, help="Do not ask first."))
    if may_wait(card):
        own = next((field.get("default") or 0 for field in card["fields"] if field["name"] == "timeout_s"), 0)
        options.append(
            click.Option(["--wait/--no-wait"], default=False, help="Wait for the outcome; fail where it is a failure.")
        )
        usual = f"{as_time(wait_s(card))}{' + --timeout' if own else ''}"
        options.append(
            click.Option(
                ["--wait-timeout"],
                type=Amount({"name": "wait_timeout_s", "type": "integer", "description": "", "minimum": 1}),
                metavar="TIME",
                help=f"How long --wait waits at most.  [default: {usual}]",
            )
        )
    return options


def _type(field: Field) -> Any:
    if field["name"] in _FILES:
        return TextFile()
    match field["type"]:
        case "boolean":
            return OnOff()
        case "integer":
            return Amount(field)
        case "enum":
            return click.Choice(field["enum"])
        case "object-list":
            return Parts(field["fields"])
        case _:
            return click.STRING


def _metavar(field: Field) -> str:
    kind = _type(field)
    if kind is not click.STRING:
        return str(kind.name)
    word = option_name(field).upper()
    return _METAVARS.get(word, word)


def _help(field: Field, card: Card) -> str:
    text = _plain(field["description"], card)
    if field["type"] in ("list", "object-list"):
        text = f"{text} Can be repeated."
    default = field.get("default")
    if default in (None, "", [], False):
        return text
    shown = {True: "on"}.get(default, default) if isinstance(default, bool) else default
    if _is_time(field):
        shown = as_time(default)
    return f"{text}  [default: {shown}]"


def _is_time(field: Field) -> bool:
    """Whether it is a number of seconds, which people may write as 90, 2m, 12h or 30d."""
    return field["type"] == "integer" and field["name"].endswith("_s")


def _plain(text: str, card: Card) -> str:
    """A help text in words of the command line: `xml` is --xml, and `on_timeout: leave` is --on-timeout leave."""
    return as_typed(re.sub(r"`(\w+): (\w+)`", r"`\1` \2", text), card).replace("`", "")
