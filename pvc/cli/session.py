"""What one call of `pvc` carries from command to command: the gateway it talks to, and how it speaks to the person."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

import click

from pvc import __version__
from pvc.cli.text import Look, clean, paint

if TYPE_CHECKING:
    from pvc.client.json_client import JsonClient

SOURCE = f"cli/{__version__}"


class Session:
    """One call. Answers go to stdout; notes, progress and errors go to stderr."""

    def __init__(self) -> None:
        self.connection = ""
        """The name given with `-c`, or empty."""
        self.output = "table"
        self.verbose = False
        self._client: JsonClient | None = None

    @property
    def client(self) -> JsonClient:
        """The client, made when it is first needed. Raises ConfigError."""
        if self._client is None:
            from pvc.client.connections import choose_connection
            from pvc.client.json_client import JsonClient

            self._client = JsonClient(choose_connection(self.connection), source=SOURCE)
        return self._client

    @property
    def wants_data(self) -> bool:
        """Whether the answer is for a program."""
        return self.output != "table"

    @property
    def look(self) -> Look:
        """What stdout can show."""
        return look_of(sys.stdout)

    def show(self, text: str) -> None:
        """Write an answer as it is."""
        sys.stdout.write(text)

    def say(self, text: str) -> None:
        """Write an answer of one line."""
        sys.stdout.write(clean(text) + "\n")

    def show_data(self, data: Any) -> None:
        """Write an answer for a program, in the format that was asked for."""
        sys.stdout.write(format_data(data, self.output))

    def note(self, text: str) -> None:
        """Tell the person something beside the answer."""
        sys.stderr.write(clean(text) + "\n")


def look_of(stream: TextIO) -> Look:
    """What a stream can show: any width and no colour unless it is a terminal. Honours NO_COLOR (no-color.org)."""
    if not stream.isatty():
        return Look()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        width = 0
    return Look(width=width or int(os.environ.get("COLUMNS") or 80), colour=not plain)


def format_data(data: Any, output: str) -> str:
    """The data as one JSON or YAML document."""
    if output == "json":
        import json

        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    import yaml

    text: str = yaml.dump(data, Dumper=_yaml_dumper(), sort_keys=False, allow_unicode=True, width=10_000)
    return text


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
