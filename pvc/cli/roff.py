"""Manual pages in the language of man(7), from plain text. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 72
"""Of a line of the source, so that it can be read and sent as it is."""

_ESCAPES = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def title(name: str, section: int, date: str, version: str) -> str:
    """The head of a page."""
    return f'.TH {quoted(name.upper())} {section} {date} {quoted(version)} "PVC manual"\n'


def section(name: str) -> str:
    """The head of a section."""
    return f".SH {name}\n"


def synopsis(command: str, parameters: str) -> str:
    """How a command is called."""
    return f"\\fB{escaped(command)}\\fR {escaped(parameters)}\n"


def paragraphs(text: str) -> str:
    """Text whose paragraphs have an empty line between them."""
    parts = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    return ".PP\n".join(_filled(part) for part in parts)


def entries(rows: Sequence[tuple[str, str]]) -> str:
    """Words, each with what it means."""
    return "".join(f".TP\n\\fB{escaped(word)}\\fR\n{_filled(text)}" for word, text in rows)


def example(text: str) -> str:
    """Lines to be typed, as they are."""
    lines = "".join(f"{line(one)}\n" for one in text.splitlines())
    return f".nf\n.RS 4\n{lines}.RE\n.fi\n"


def _filled(text: str) -> str:
    """Text in short lines, which the reader's screen fills anew."""
    parts = textwrap.wrap(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{line(part)}\n" for part in parts)


def line(text: str) -> str:
    """One line of text; a dot or an apostrophe at its beginning is no command."""
    text = escaped(text.strip())
    return f"\\&{text}" if text.startswith((".", "\\(aq")) else text


def escaped(text: str) -> str:
    """Text whose signs are taken as they are: hyphens that can be copied, quotes that stay straight."""
    return "".join(_ESCAPES.get(sign) or (sign if sign.isascii() else f"\\[u{ord(sign):04X}]") for sign in text)


def quoted(text: str) -> str:
    """An argument of a macro."""
    return f'"{escaped(text)}"'
