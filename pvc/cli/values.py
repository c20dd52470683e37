"""Values on the command line: on|off, sizes and times with units, files, and objects as `key=value,key=value`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pvc.cli.times import parse_mib, parse_seconds, parse_when
from pvc.client.cards import Field

MAX_FILE_BYTES = 1024 * 1024
"""A domain XML has a few KiB; the gateway refuses bodies over this anyway."""

_ON = frozenset({"on", "yes", "true"})
_OFF = frozenset({"off", "no", "false"})


class OnOff(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.3 only
    """A boolean that is an argument."""

    name = "on|off"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """As shown in the usage line."""
        return "on|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """True or False."""
        word = str(value).lower()
        if word not in _ON | _OFF:
            self.fail(f"{value!r} is neither 'on' nor 'off'", param, ctx)
        return word in _ON

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Both."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in ("on", "off") if word.startswith(incomplete)]


class Amount(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.3 only
    """A whole number within bounds; where the field is of MiB or seconds, with a unit if one likes."""

    def __init__(self, field: Field) -> None:
        name = field["name"]
        self._parse, self._like = int_or_none, "a whole number"
        self.name = "NUMBER"
        if name.endswith("_mib"):
            self._parse, self._like, self.name = parse_mib, "a size such as 2048 (MiB) or 2G", "MIB"
        elif name.endswith("_ms"):
            self.name = "MS"
        elif name.endswith("_s"):
            self._parse, self._like, self.name = parse_seconds, "a time such as 90 (seconds), 2m or 30d", "TIME"
        self._low, self._high = field.get("minimum"), field.get("maximum")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        number = value if isinstance(value, int) else self._parse(str(value))
        if number is None:
            self.fail(f"{value!r} is not {self._like}", param, ctx)
        if self._low is not None and number < self._low:
            self.fail(f"{value} is less than the least allowed, {self._low:,}", param, ctx)
        if self._high is not None and number > self._high:
            self.fail(f"{value} is more than the most allowed, {self._high:,}", param, ctx)
        return number


class TextFile(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.3 only
    """A file whose text is the value; `-` is standard input."""

    name = "FILE|-"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text."""
        try:
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if value == "-" else _read(Path(value))
        except OSError as error:
            self.fail(f"{value!r} cannot be read: {error.strerror}", param, ctx)
        if len(data) > MAX_FILE_BYTES:
            self.fail(f"{value!r} has more than {MAX_FILE_BYTES:,} bytes", param, ctx)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            self.fail(f"{value!r} is no UTF-8 text (byte {error.start + 1:,})", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Leave it to the shell."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


class Parts(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.3 only
    """An object of a list: `path=/x,format=qcow2`. A bare first value is the object's required part."""

    def __init__(self, fields: list[Field]) -> None:
        self._fields = {_word(field): field for field in fields}
        self._flags = {word for word, field in self._fields.items() if field["type"] == "boolean"}
        required = [word for word, field in self._fields.items() if field.get("required")]
        self._first = required[0] if required else next(iter(self._fields))
        optional = "".join(f"[,{word}=…]" for word in self._fields if word != self._first)
        self.name = f"{self._first}={self._first.upper()}{optional}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """The object as the API takes it."""
        if isinstance(value, dict):
            return value
        made: dict[str, Any] = {}
        for i, part in enumerate(str(value).split(",")):
            word, sign, text = part.partition("=")
            if not sign and i == 0:
                word, text = self._first, part
            elif not sign and word in self._flags:
                text = "on"
            elif not sign:
                self.fail(f"{part!r} has no '='; write it as {self.name}", param, ctx)
            if word not in self._fields:
                self.fail(f"{word!r} is not known here; known are {', '.join(self._fields)}", param, ctx)
            field = self._fields[word]
            if field["name"] in made:
                self.fail(f"{word!r} is given twice", param, ctx)
            made[field["name"]] = _part_value(field, text, param, ctx)
        if self._fields[self._first]["name"] not in made:
            self.fail(f"{value!r} has no {self._first}=", param, ctx)
        return made


class When(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.3 only
    """An instant: 2h, 3d, 2 hours ago, today, yesterday, 07:30, or a date and time of this machine's zone."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As the API wants it."""
        import time

        parsed = parse_when(str(value), time.time())
        if parsed is None:
            self.fail(f"{value!r} is no time; write 2h, 3d, today, 07:30, 2026-07-24 or '2026-07-24 07:30'", param, ctx)
        return parsed


class Moment(When):
    """A moment of the log: a position, or an instant."""

    name = "MOMENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As the API wants it."""
        text = str(value).strip()
        if text == "now" or (text.isascii() and text.isdecimal()):
            return text
        return super().convert(text, param, ctx)


def int_or_none(text: str) -> int | None:
    """The whole number, or None where it is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 20 else None


def _part_value(field: Field, text: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
    if field["type"] == "boolean":
        return OnOff().convert(text, param, ctx)
    if field["type"] == "integer":
        return Amount(field).convert(text, param, ctx)
    if field["type"] == "enum":
        return click.Choice(field["enum"]).convert(text, param, ctx)
    return text


def _word(field: Field) -> str:
    return field["name"].replace("_", "-")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)
