"""`python -m pvc.cli.manual DIR`: the manual pages and the shells' completions, as a package installs them.

Both are made from what `-h` shows, so that they say the same. Below DIR stands what belongs below `/usr`:

    share/man/man1/pvc.1, pvc-vm-start.1, ...
    share/man/man8/pvcd.8
    share/bash-completion/completions/pvc
    share/zsh/vendor-completions/_pvc
    share/fish/vendor_completions.d/pvc.fish

The date of the pages is that of SOURCE_DATE_EPOCH, where a package's build sets it, so that a build can be repeated.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from pvc import __version__
from pvc.cli import exits, roff
from pvc.cli.app import EXTENSIONS, cli
from pvc.cli.base import CONTEXT
from pvc.cli.completion import SHELLS, completion_script

DAEMON = "pvc.daemon.main:main"
"""Known by these words alone: the command line imports nothing of the daemon."""

SEE_DAEMON = "The whole manual stands in the project's docs directory: configuration.md has every field of the file."

_PLACES = {
    "bash": "share/bash-completion/completions/pvc",
    "zsh": "share/zsh/vendor-completions/_pvc",
    "fish": "share/fish/vendor_completions.d/pvc.fish",
}

ENVIRONMENT = (
    ("PVC_CONNECTION", "Name of the connection to use; all asks every cluster."),
    ("PVC_URL", "URL of a gateway to use, or several with commas between."),
    ("PVC_TOKEN_FILE", "File with the token to use, which only you can read."),
    ("PVC_TOKEN", "The token to use; other programs of yours can read it there."),
    ("PVC_SOCKET", "Path of the local gateway's socket."),
    ("PVC_CONFIG_DIR", "Directory of connections.json."),
    ("NO_COLOR", "If set: no colours."),
    ("CLICOLOR_FORCE", "If set and not 0: colours also where there is no terminal."),
    ("PVC_DEBUG", "If set: a traceback for a fault in pvc itself."),
)

FILES = (
    ("~/.config/pvc/connections.json", "The stored connections with their tokens; mode 0600."),
    ("/run/pvc/pvc.sock", "The gateway of this machine, where it is a node."),
)


def main(arguments: Sequence[str]) -> int:
    """Write all files; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pvc.cli.manual", description="Write manual pages and shell completions as a package has them."
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="what becomes /usr: it gets a share/ below it")
    directory: Path = parser.parse_args(arguments).directory
    files = all_files()
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(files)} files written below {directory}")
    return 0


def all_files() -> dict[str, str]:
    """Path below /usr -> the text."""
    date = _date()
    files = {f"share/man/man1/{_name(context)}.1": page(context, date) for context in contexts()}
    daemon = _daemon()
    if daemon is not None:
        files["share/man/man8/pvcd.8"] = page(daemon, date, number=8)
    return files | {_PLACES[shell]: completion_script(shell) for shell in SHELLS}


def contexts() -> Iterator[click.Context]:
    """Every command and group, `pvc` itself first."""
    root = click.Context(cli, info_name="pvc", **CONTEXT)  # type: ignore[arg-type]
    yield root
    yield from _below(root)


def page(context: click.Context, date: str, *, number: int = 1) -> str:
    """The manual page of a command or a group."""
    command, name = context.command, _name(context)
    parts = [
        '.\\" Made by: python -m pvc.cli.manual\n',
        roff.title(name, number, date, f"pvc {__version__}"),
        roff.section("NAME"),
        roff.paragraphs(f"{name} - {_one_line(command)}"),
        roff.section("SYNOPSIS"),
        roff.synopsis(context.command_path, " ".join(command.collect_usage_pieces(context))),
        roff.section("DESCRIPTION"),
        roff.paragraphs((command.help or command.short_help or "").replace("\b", "").strip() or _one_line(command)),
    ]
    parts += _parameters(context)
    if isinstance(command, click.Group):
        parts += _commands(context)
    if example := _example(command):
        parts += [roff.section("EXAMPLES"), roff.example(example)]
    if name == "pvc":
        parts += [roff.section("ENVIRONMENT"), roff.entries(ENVIRONMENT), roff.section("FILES"), roff.entries(FILES)]
    if number == 1:
        parts += [roff.section("EXIT STATUS"), roff.entries(_exit_codes())]
    parts += [roff.section("SEE ALSO"), _see_also(context)]
    return "".join(parts)


def _below(parent: click.Context) -> Iterator[click.Context]:
    group = parent.command
    assert isinstance(group, click.Group), "only groups have commands"
    for word in group.list_commands(parent):
        if parent.parent is None and word in EXTENSIONS:
            continue  # a tool of those who develop PVC
        command = group.get_command(parent, word)
        assert command is not None, "what is listed exists"
        context = click.Context(command, parent=parent, info_name=word, **CONTEXT)  # type: ignore[arg-type]
        yield context
        if isinstance(command, click.Group):
            yield from _below(context)


def _parameters(context: click.Context) -> list[str]:
    about = getattr(context.command, "about", {})
    arguments = [param for param in context.command.params if isinstance(param, click.Argument)]
    rows = [(param.make_metavar(context), about.get(param.name or "", "")) for param in arguments]
    told = [(word.strip("[]."), text) for word, text in rows if text]
    records = [
        param.get_help_record(context)
        for param in context.command.get_params(context)
        if isinstance(param, click.Option)
    ]
    options = [record for record in records if record is not None]
    return [
        *([roff.section("ARGUMENTS"), roff.entries(told)] if told else []),
        *([roff.section("OPTIONS"), roff.entries(options)] if options else []),
    ]


def _commands(context: click.Context) -> list[str]:
    group = context.command
    assert isinstance(group, click.Group), "asked of groups alone"
    rows = []
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if command is not None and not (context.parent is None and word in EXTENSIONS):
            rows.append((f"{_name(context)}-{word}(1)", _one_line(command)))
    return [roff.section("COMMANDS"), roff.entries(rows)]


def _exit_codes() -> list[tuple[str, str]]:
    told = " ".join(exits.TEXT.split()).rstrip(".").split("; ")
    return [(code, text) for code, _, text in (one.partition(" ") for one in told)]


def _see_also(context: click.Context) -> str:
    if _name(context) == "pvcd":
        return f"\\fBpvc\\fR(1)\n.PP\n{roff.paragraphs(SEE_DAEMON)}"
    if context.parent is None:
        return "\\fBpvcd\\fR(8)\n"
    above = list(dict.fromkeys([_name(context.parent), "pvc"]))
    return ",\n".join(f"\\fB{roff.escaped(name)}\\fR(1)" for name in above) + "\n"


def _example(command: click.Command) -> str:
    found = re.search(r"Example:\n(.*)", command.epilog or "", re.DOTALL)
    return "\n".join(line.strip() for line in found[1].splitlines()) if found else ""


def _one_line(command: click.Command) -> str:
    text = command.short_help or (command.help or "").partition("\n\n")[0]
    return " ".join(text.split()).rstrip(".")


def _name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _daemon() -> click.Context | None:
    module, name = DAEMON.split(":")
    try:
        command: click.Command = getattr(importlib.import_module(module), name)
    except ImportError:
        return None
    return click.Context(command, info_name="pvcd", **CONTEXT)  # type: ignore[arg-type]


def _date() -> str:
    made = os.environ.get("SOURCE_DATE_EPOCH", "")
    return time.strftime("%Y-%m-%d", time.gmtime(int(made) if made.isdecimal() else None))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
