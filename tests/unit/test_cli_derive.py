"""Commands made from cards: names, types, examples, and that every example is a command that parses."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click
import pytest

from pvc.cli.app import EXTENSIONS, VIEWS, cli
from pvc.cli.base import CONTEXT, PvcCommand
from pvc.cli.derive import command_from_card, example_line, option_name, wait_s
from pvc.cli.run import as_typed, sentence
from pvc.cli.values import Amount, OnOff, Parts
from pvc.cli.vm import STATES
from pvc.client.cards import Card, Field, load_cards
from pvc.commands.vm_ref import DEFAULT_SHUTDOWN_TIMEOUT_S
from pvc.projections.vm_machine import VmState

CARDS = load_cards()


def parsed(line: str) -> dict[str, Any]:
    """The parameters of a typed line, without running it."""
    words = shlex.split(line)[1:]
    command: click.Command = cli
    ctx = click.Context(cli, **CONTEXT)
    while isinstance(command, click.Group):
        found = command.get_command(ctx, words.pop(0))
        assert found is not None
        command = found
    return command.make_context("x", words, **CONTEXT).params


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_every_example_parses_to_the_fields_it_is_an_example_of(card: Card) -> None:
    params = parsed(example_line(card))
    if tuple(card["cli"]) in VIEWS:
        return  # written by hand; that it parses is enough
    for name, value in card["example"].items():
        given = params[name]
        assert (list(given) if isinstance(given, tuple) else given) == value


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_every_field_can_be_given_and_no_two_under_one_name(card: Card) -> None:
    command = command_from_card(card)
    names = [param.name for param in command.params]
    assert {field["name"] for field in card["fields"]} <= set(names)
    assert len(names) == len(set(names))
    spelt = [word for param in command.params for word in (*param.opts, *param.secondary_opts)]
    assert len(spelt) == len(set(spelt))


def test_options_are_named_as_a_person_would_say_them() -> None:
    words = {
        "memory_mib": "integer",
        "timeout_s": "integer",
        "vcpus": "integer",
        "disks": "object-list",
        "node_limits": "list",
        "on_crash": "enum",
    }
    named = [option_name({"name": name, "type": kind, "description": ""}) for name, kind in words.items()]  # type: ignore[typeddict-item]
    assert named == ["memory", "timeout", "vcpus", "disk", "node-limit", "on-crash"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vm.define", "With --xml, its memory"),
        ("vm.define", "Initial RAM disk file, with --kernel."),
        ("vm.modify", "--restart does that at once"),
        ("vm.shutdown", "with --on-timeout leave left running"),
    ],
)
def test_a_help_speaks_of_options_and_not_of_fields(name: str, said: str) -> None:
    command = command_from_card(CARDS[name])
    text = command.get_help(click.Context(command, terminal_width=200, max_content_width=200))
    assert said in " ".join(text.split())


def test_what_can_do_damage_asks_and_what_goes_on_can_be_waited_for() -> None:
    options = {word for param in command_from_card(CARDS["vm.stop"]).params for word in param.opts}
    assert {"--yes", "--wait", "--wait-timeout", "--dry-run", "--output"} <= options
    options = {word for param in command_from_card(CARDS["vm.add_tag"]).params for word in param.opts}
    assert options.isdisjoint({"--yes", "--wait"})


def test_a_change_that_restarts_is_waited_for_as_long_as_a_restart() -> None:
    assert wait_s(CARDS["vm.modify"]) == wait_s(CARDS["vm.restart"]) + DEFAULT_SHUTDOWN_TIMEOUT_S


def test_a_boolean_argument_is_on_or_off() -> None:
    assert parsed("pvc vm autostart web01 off")["autostart"] is False
    with pytest.raises(click.BadParameter, match="neither 'on' nor 'off'"):
        parsed("pvc vm autostart web01 perhaps")
    assert OnOff().convert("YES", None, None) is True


def test_what_is_not_given_is_not_sent() -> None:
    params = parsed("pvc vm modify web01 --memory 2G")
    assert params["memory_mib"] == 2048
    assert params["vcpus"] is None
    assert params["restart"] is None
    assert params["disks"] == ()


MEMORY: Field = {"name": "memory_mib", "type": "integer", "description": "", "minimum": 16, "maximum": 1024}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("8", "8 is less than the least allowed, 16"),
        ("2G", "2G is more than the most allowed, 1,024"),
        ("much", "'much' is not a size such as 2048 (MiB) or 2G"),
    ],
)
def test_a_bad_amount_is_answered_with_what_is_allowed(typed: str, message: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        Amount(MEMORY).convert(typed, None, None)
    assert caught.value.message == message


def disk(text: str) -> Any:
    fields = next(field for field in CARDS["vm.define"]["fields"] if field["name"] == "disks")
    return Parts(fields["fields"]).convert(text, None, None)


def test_an_object_is_written_as_its_parts() -> None:
    assert disk("path=/a.qcow2,format=qcow2,read-only=on") == {"path": "/a.qcow2", "format": "qcow2", "read_only": True}
    assert disk("/a.raw") == {"path": "/a.raw"}
    assert disk("/a.raw,read-only") == {"path": "/a.raw", "read_only": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=3", "'size' is not known here; known are path, format, bus, read-only"),
        ("/a,format", "'format' has no '='"),
        ("/a,format=vmdk", "'vmdk' is not one of"),
        ("format=raw", "'format=raw' has no path="),
        ("/a,path=/b", "'path' is given twice"),
    ],
)
def test_a_bad_object_is_answered_with_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        disk(text)
    assert message in caught.value.message


def test_the_gateways_words_are_told_in_words_of_the_command_line() -> None:
    card = CARDS["vm.define"]
    assert as_typed("`initrd` needs a `kernel`", card) == "--initrd needs a --kernel"
    assert as_typed("`disks[0].path` cannot be x", card) == "--disk path cannot be x"
    assert as_typed("`name` cannot be x; see `pvc vm list`", card) == "NAME cannot be x; see `pvc vm list`"


def test_a_sentence_names_its_subject_once() -> None:
    assert sentence("web01", "running on hv1") == "web01: running on hv1"
    assert sentence("web01", "defined as web01: 128 MiB") == "Defined as web01: 128 MiB"
    assert sentence("web01", "web01 removed") == "web01 removed"
    assert sentence("", "done") == "Done"


def test_the_command_line_knows_the_states_that_there_are() -> None:
    assert set(STATES) == {state.value for state in VmState}


def test_every_command_has_help_with_an_example() -> None:
    seen = 0
    todo: list[tuple[click.Group, str]] = [(cli, "pvc")]
    while todo:
        group, path = todo.pop()
        ctx = click.Context(group, info_name=path, **CONTEXT)
        for name in group.list_commands(ctx):
            if name in EXTENSIONS:
                continue  # tested where it is made
            command = group.get_command(ctx, name)
            assert command is not None, f"{path} {name}"
            if isinstance(command, click.Group):
                todo.append((command, f"{path} {name}"))
                continue
            assert isinstance(command, PvcCommand)
            text = command.get_help(click.Context(command, info_name=name, **CONTEXT))
            assert re.search(r"^Example:\n  .*pvc ", text, re.MULTILINE), f"{path} {name}"
            assert "`" not in text, f"{path} {name}"
            seen += 1
    assert seen == len(VIEWS) + len([card for card in CARDS.values() if tuple(card["cli"]) not in VIEWS])


def _examples() -> list[str]:
    """Each line of an example that calls `pvc`, without what a shell makes of the rest."""
    found = []
    todo: list[tuple[click.Group, str]] = [(cli, "pvc")]
    while todo:
        group, path = todo.pop()
        ctx = click.Context(group, info_name=path, **CONTEXT)
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            if isinstance(command, click.Group):
                todo += [] if name in EXTENSIONS else [(command, f"{path} {name}")]
            elif command is not None and command.epilog:
                lines = [line.strip() for line in command.epilog.splitlines()[1:]]
                found += [re.split(r"\s[|<>]+\s", line)[0] for line in lines if line.startswith("pvc ")]
    return found


@pytest.mark.parametrize("line", _examples())
def test_every_line_of_an_example_is_a_command_that_parses(line: str) -> None:
    parsed(line.replace("$(date +%F)", "2026-11-20"))


def test_every_list_can_be_watched_and_asked_of_all_clusters() -> None:
    seen = 0
    todo: list[click.Group] = [cli]
    while todo:
        group = todo.pop()
        ctx = click.Context(group, **CONTEXT)
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            if isinstance(command, click.Group) and name not in EXTENSIONS:
                todo.append(command)
            elif isinstance(command, PvcCommand) and name == "list" and group.name != "connection":
                assert command.reads, group.name
                assert "-w, --watch[=SECONDS]" in command.get_help(click.Context(command, **CONTEXT))
                seen += 1
    assert seen >= 6


def test_a_bare_watch_takes_no_word_for_its_value() -> None:
    for line in ("pvc vm tag list --watch web01", "pvc vm tag list -w web01", "pvc vm tag list web01 --watch"):
        params = parsed(line)
        assert params["vm"] == "web01" and params["watch"].every_s is None, line
    assert parsed("pvc vm list --watch=5")["watch"].every_s == 5
    assert parsed("pvc vm list")["watch"] is None
