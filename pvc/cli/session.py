"""What one call of `pvc` carries from command to command: the gateway it talks to, and how it speaks to the person."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from pvc import __version__
from pvc.cli.shown import Data, Kept, Table, Text
from pvc.cli.table import Column, Row, lay_out
from pvc.cli.text import HALVES, Look, clean, escaped, harmless, is_harmless, paint

if TYPE_CHECKING:
    from pvc.client.json_client import JsonClient

SOURCE = f"cli/{__version__}"

AMONG_SEVERAL_S = 15.0
"""For an answer, where other clusters' answers wait to be shown with it."""


class Session:
    """One call. Answers go to stdout; notes, progress and errors go to stderr."""

    def __init__(self) -> None:
        self.connection = ""
        """The name given with `-c`, or empty."""
        self.output = "table"
        self.verbose = False
        self.among_several = False
        """Whether other clusters are asked the same, beside this one."""
        self.ends_with = 0
        """The exit code where the reader of our output leaves before its end: 0 until something is known to be wrong.
        Set it before what is wrong is shown."""
        self._client: JsonClient | None = None
        self._kept: Kept | None = None

    @property
    def client(self) -> JsonClient:
        """The client, made when it is first needed. Raises ConfigError."""
        if self._client is None:
            from pvc.client.connections import choose_connection
            from pvc.client.errors import ConfigError
            from pvc.client.json_client import JsonClient

            if self.everywhere:
                raise ConfigError(
                    "this is done at one cluster, not at all of them",
                    code="client.one_connection",
                    hint="choose it with -c NAME; `pvc connection list` shows them",
                )
            chosen = choose_connection(self.connection)
            patience = {"tries": 2, "timeout_s": AMONG_SEVERAL_S} if self.among_several else {}
            self._client = JsonClient(chosen, source=SOURCE, **patience)  # type: ignore[arg-type]
        return self._client

    @property
    def everywhere(self) -> bool:
        """Whether all clusters are meant, and not one of them."""
        from pvc.client.connections import ALL

        return (self.connection or ("" if os.environ.get("PVC_URL") else os.environ.get("PVC_CONNECTION"))) == ALL

    @property
    def wants_data(self) -> bool:
        """Whether the answer is for a program."""
        return self.output in ("json", "yaml")

    @property
    def look(self) -> Look:
        """What stdout can show."""
        look = look_of(sys.stdout)
        return look._replace(width=0) if self.output == "wide" else look

    def keeping(self, connection: str = "", *, among_several: bool = False) -> Session:
        """The same call, at this connection, which keeps what it would show."""
        made = Session()
        made.connection = connection or self.connection
        made.output, made.verbose, made.among_several = self.output, self.verbose, among_several
        made._kept = Kept()
        return made

    def kept(self) -> Kept:
        """What was to be shown since this was last asked."""
        kept, self._kept = self._kept, Kept()
        assert kept is not None, "asked of one that keeps"
        return kept

    def show(self, text: str) -> None:
        """Write an answer of several lines; nothing in it but our own colours reaches the terminal as a command."""
        text = harmless(text)
        if self._kept is not None:
            self._kept.parts.append(Text(text))
        else:
            sys.stdout.write(text)

    def say(self, text: str) -> None:
        """Write an answer of one line."""
        self.show(clean(text) + "\n")

    def show_table(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """Write a table as the screen has room for it, and say what it had no room for."""
        if self._kept is not None:
            self._kept.parts.append(Table(columns, rows))
            return
        laid = lay_out(columns, rows, self.look)
        sys.stdout.write(laid.text)
        if laid.left_out:
            self.note(left_out(laid.left_out))

    def show_data(self, data: Any) -> None:
        """Write an answer for a program, in the format that was asked for."""
        if self._kept is not None:
            self._kept.parts.append(Data(data))
        else:
            sys.stdout.write(format_data(data, self.output))

    def show_record(self, record: Any) -> None:
        """Write one of many answers for a program: a line of JSON, or a document of YAML."""
        if self._kept is not None:
            self._kept.parts.append(Data(record, line=True))
        else:
            sys.stdout.write(format_line(record, self.output))

    def note(self, text: str) -> None:
        """Tell the person something beside the answer."""
        if self._kept is not None:
            self._kept.notes.append(text)
        else:
            sys.stderr.write(clean(text) + "\n")


def left_out(titles: Sequence[str]) -> str:
    """Says which columns there was no room for."""
    return f"No room for {', '.join(titles)}; -o wide shows all"


def look_of(stream: TextIO) -> Look:
    """What a stream can show: any width and no colour unless it is a terminal.

    NO_COLOR takes the colours away, whatever else is set; CLICOLOR_FORCE gives them also to a pipe; CLICOLOR=0 and a
    dumb terminal have none.
    """
    env, terminal = os.environ, stream.isatty()
    forced = env.get("CLICOLOR_FORCE", "0") not in ("", "0")
    wanted = forced or (terminal and env.get("CLICOLOR") != "0" and env.get("TERM") != "dumb")
    return Look(width=_width(stream) if terminal else 0, colour=wanted and not env.get("NO_COLOR"))


def _width(stream: TextIO) -> int:
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        width = 0
    told = os.environ.get("COLUMNS", "")
    return width or (int(told) if told.isdecimal() else 0) or 80


def format_data(data: Any, output: str) -> str:
    """The data as one JSON or YAML document, without anything that a terminal would take for a command."""
    import json

    document = json.dumps(data, indent=2, ensure_ascii=False)
    if output == "json":
        return escaped(document) + "\n"
    import yaml

    if HALVES.search(document):
        data = json.loads(HALVES.sub("\N{REPLACEMENT CHARACTER}", document))  # YAML has no way to write them
    text: str = yaml.dump(data, Dumper=_yaml_dumper(), sort_keys=False, allow_unicode=True, width=10_000)
    if not is_harmless(text):
        text = yaml.dump(data, Dumper=_yaml_dumper(), sort_keys=False, allow_unicode=False, width=10_000)
    return text


def format_line(data: Any, output: str) -> str:
    """The data as one of many: a line of JSON, or a document of YAML with its mark."""
    if output == "json":
        import json

        return escaped(json.dumps(data, ensure_ascii=False)) + "\n"
    return "---\n" + format_data(data, "yaml")


def now_us() -> int:
    """The time, for showing."""
    return time.time_ns() // 1000


def write_error(session: Session, message: str, *, hint: str = "", code: str = "", **more: Any) -> None:
    """Say what went wrong, on stderr: for a person, or as JSON where the answer was to be JSON."""
    if session.output == "json":
        import json

        error = {"code": code, "message": message, "hint": hint, **more}
        sys.stderr.write(json.dumps({"error": {key: value for key, value in error.items() if value}}) + "\n")
        return
    look = look_of(sys.stderr)
    lines = [f"{paint('Error:', 'red', look)} {clean(message)}"]
    if hint:
        lines.append(f"{paint('Hint:', 'cyan', look)} {clean(hint)}")
    if code and session.verbose:
        lines.append(f"Code: {code}")
    sys.stderr.write("".join(f"{line}\n" for line in lines))


def pass_session(ctx: click.Context) -> Session:
    """The session of a Click context."""
    session = ctx.find_object(Session)
    assert session is not None, "main() puts it there"
    return session


def _yaml_dumper() -> Any:
    import yaml

    return getattr(yaml, "CSafeDumper", yaml.SafeDumper)
