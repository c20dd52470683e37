"""What a guest, a gateway or another node says reaches no terminal and no log line as a command."""

from __future__ import annotations

import logging
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.cli.vm_serial import printable
from pvc.daemon.journal import TextLines

HARMLESS = re.compile(r"(?:[\n\t]|\x1b\[[0-9;]*m|[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069])*")
PIECES = st.sampled_from(
    [
        "\x1b",
        "\x1b\x1b[K",
        "\x1b\x08",
        "[2J",
        "]52;c;Zm9v\x07",
        "\x9b2J",
        "\x9d0;x\x9c",
        "\x1b[0m",
        "\x1b[",
        "\x1bP",
        "\x1b\\",
        "\u202e",
        "é",
        "日",
        "text",
        "\r\n",
        "\t",
        "\x7f",
        "\x1b[?1049h",
        "\x1b[6n",
        "m",
    ]
)


@pytest.mark.parametrize(
    "said",
    [
        b"\x1b\x08[2J",
        b"\x1b\x1b[K[2J",
        b"\x1b\x00]52;c;Zm9v\x07",
        b"\xc2\x9b2J",
        b"\xc2\x9d52;c;Zm9v\xc2\x9c",
        b"\x9b2J",
        "a\u202eb".encode(),
    ],
)
def test_an_escape_that_was_put_together_of_what_is_left_is_none(said: bytes) -> None:
    text, rest = printable(said + b"x" * 600)
    assert HARMLESS.fullmatch(text.decode()), text
    assert not rest


@given(st.lists(st.one_of(PIECES.map(str.encode), st.binary(max_size=6)), max_size=12), st.data())
def test_whatever_a_guest_writes_in_whatever_pieces_only_colours_are_left_of_it(
    parts: list[bytes], data: st.DataObject
) -> None:
    said = b"".join(parts)
    shown, held, at = b"", b"", 0
    while at < len(said):
        step = data.draw(st.integers(min_value=1, max_value=len(said) - at))
        text, held = printable(held + said[at : at + step])
        shown += text
        at += step
        assert len(held) <= 600
    assert HARMLESS.fullmatch(shown.decode()), shown


@given(
    st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp")), max_size=40), st.integers(1, 9)
)
def test_a_guests_text_comes_through_whole_however_it_is_cut(text: str, step: int) -> None:
    said = text.encode()
    shown, held = b"", b""
    for at in range(0, len(said), step):
        piece, held = printable(held + said[at : at + step])
        shown += piece
    assert (shown + held).decode() == text


@given(st.text(max_size=60))
def test_a_message_in_the_nodes_log_is_one_line(text: str) -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "peer said %s", (text,), None)
    line = TextLines().format(record)
    assert len(line.splitlines()) == 1 and "WARNING peer said " in line
    assert all(unicodedata.category(char) not in ("Cc", "Cs", "Cf", "Zl", "Zp") for char in line), line
