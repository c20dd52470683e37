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

MIN_WRAP = 20
"""Narrower, text is not wrapped but runs over the edge: a word a line cannot be read."""

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}

_MARKS = "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
"""Marks that turn the direction of writing around, break lines, or are not seen at all: two names would look alike."""

HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which no encoding has; JSON may name them."""

_CONTROLS = re.compile(rf"[\x00-\x1f\x7f-\x9f\u00ad{_MARKS}\ud800-\udfff\U000e0000-\U000e007f]+")
"""C0 and C1 controls, those marks, halves of characters that cannot be written, and invisible copies of ASCII."""

_OURS = re.compile(rf"(\x1b\[(?:0|1|2|3[1-6])m|[\n\t])|{_CONTROLS.pattern}")
"""Line ends, tabs and the colours of STYLES; or else what does not belong on a terminal."""

_JOINERS = re.compile("[\u200c\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]")
"""What makes one sign of two, a picture of a letter, or another skin: each terminal takes another width for that."""

_ACCENTS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_PILES = re.compile(f"([{_ACCENTS}]{{4}})[{_ACCENTS}]+")
"""More accents on one letter than any language has: they would be drawn over other lines."""

_SPACES = re.compile(r"[ \t\r\n\u2028\u2029]+")


def clean(text: str) -> str:
    """The text on one line, with a visible mark in place of control characters."""
    if text.isascii() and text.isprintable():
        return text
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", _SPACES.sub(" ", text))
    return text if text.isascii() else _PILES.sub(r"\1", _JOINERS.sub("", text))


def escaped(document: str) -> str:
    """A JSON document without control characters and marks: in it they may be written as `\\u009b`."""
    return _CONTROLS.sub(lambda found: "".join(_escape(one) for one in found[0]), document)


def harmless(text: str) -> str:
    """A text of several lines with our own colours, and a visible mark in place of anything else of the kind.

    The last door before the terminal, for what was not cleaned where it was put in.
    """
    return _OURS.sub(lambda found: found[1] or "\N{REPLACEMENT CHARACTER}", text)


def is_harmless(text: str) -> bool:
    """Whether a text of several lines can be shown as it is."""
    return not _CONTROLS.search(text.replace("\n", ""))


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
    """The text in lines of at most `width` columns, broken between words; at least one line.

    Spaces before the text set all its lines in.
    """
    inset = " " * (len(text) - len(text.lstrip(" ")))
    if inset and width - len(inset) >= MIN_WRAP:
        return [f"{inset}{line}" for line in wrap(text[len(inset) :], width - len(inset))]
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
    if character < "\u0300":
        return 1
    if unicodedata.category(character) in _UNSEEN or "\u1160" <= character <= "\u11ff":
        return 0  # the latter are the vowels and ends of a Korean syllable, which stand in its first sign
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


_UNSEEN = frozenset({"Mn", "Me", "Cf"})


def _escape(character: str) -> str:
    if character == "\n":
        return character
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
