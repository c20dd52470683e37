"""docs/reference/commands.md: the help of every command of `pvc`, as the command line itself tells it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from pvc.cli.app import cli
from pvc.schemas.markdown import NOTICE, block

_WIDTH = 100

_INTRODUCTION = """\
# The command line

What `-h` shows for each command. `-c NAME` before or after any of them chooses the connection.

"""


def cli_page() -> str:
    """The whole page."""
    root = _context(cli, None, "pvc")
    parts = [NOTICE, _INTRODUCTION, block(cli.get_help(root))]
    for context in _commands(root):
        depth = "##" if isinstance(context.command, click.Group) else "###"
        shown = "" if isinstance(context.command, click.Group) else block(context.command.get_help(context))
        parts.append(f"{depth} {context.command_path}\n\n{shown or _summary(context.command)}")
    return "".join(parts).rstrip("\n") + "\n"


def _commands(parent: click.Context) -> Iterator[click.Context]:
    group = parent.command
    assert isinstance(group, click.Group), "only groups have commands"
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None, "what is listed exists"
        context = _context(command, parent, name)
        yield context
        if isinstance(command, click.Group):
            yield from _commands(context)


def _context(command: click.Command, parent: click.Context | None, name: str) -> click.Context:
    return click.Context(
        command,
        parent=parent,
        info_name=name,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=["-h", "--help"],
    )


def _summary(command: click.Command) -> str:
    return f"{command.help}\n\n" if command.help else ""
