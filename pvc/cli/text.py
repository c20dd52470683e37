"""Text on a terminal: how wide it is, cut to fit, harmless, and coloured. Pure.

What comes from guests, hypervisors and other admins may hold control characters; none of them reaches the terminal.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple


class Look(NamedTuple):
    """What the reader's screen can show: `width` in columns, 0 for any width (a pipe), and colour or not."""

    width: int = 0
    colour: bool = False


PLAIN = Look()

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
"""C0 and C1 controls, and the marks that turn the direction of writing around."""

_SPACES = re.compile(r"[ \t\r\n]+")


def clean(text: str) -> str:
    """The text on one line, with a visible mark in place of control characters."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", _SPACES.sub(" ", text))


def width_of(text: str) -> int:
    """Columns that the text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(_width_of_character(character) for character in text)


def fit(text: str, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than `width`."""
    if width_of(text) <= width:
        return text
    kept, taken = [], 0
    for character in text:
        taken += _width_of_character(character)
        if taken > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled up to `width` with spaces."""
    space = " " * (width - width_of(text))
    return space + text if right else text + space


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` columns, broken between words; at least one line."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        while width_of(word) > width:
            head = fit(word, width + 1)[:-1] or word[0]
            lines[-1] = head
            lines.append("")
            word = word[len(head) :]
        lines[-1] = word
    return lines


def paint(text: str, style: str, look: Look) -> str:
    """The text in a style (`red`, `bold`), where there is colour."""
    if not style or not look.colour or not text:
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def _width_of_character(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
