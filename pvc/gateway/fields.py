"""From the values that came in to a command or to a query's arguments, with errors that name field, value and remedy.

Text from a form, the query or the path is first made into what JSON would have said, by the fields' types; then one
strict conversion serves all. So a VM named `null` stays text, and no number is guessed where text is meant.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect as types

from pvc.errors import InvalidInput
from pvc.gateway.cards import FieldCard, field_card
from pvc.gateway.strict_json import BadJson, read_json

T = TypeVar("T", bound=msgspec.Struct)

_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}
_SHOWN_CHARS = 80


class Fields:
    """The fields of a struct that may be given from outside."""

    def __init__(self, struct: type[msgspec.Struct], hidden: Collection[str] = ()) -> None:
        info = types.type_info(struct)
        assert isinstance(info, types.StructType), "fields are those of a struct"
        self.struct = struct
        self.cards = {field.name: field_card(field) for field in info.fields if field.name not in hidden}

    def from_texts(self, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """What JSON would have said instead of these texts. Raises InvalidInput for unknown or doubled fields."""
        return {name: _from_texts(self._card(name), list(values)) for name, values in texts.items()}

    def decode(self, struct: type[T], values: Mapping[str, Any]) -> T:
        """The struct with these values. Raises InvalidInput about the first field that is wrong."""
        for name in values:
            self._card(name)
        try:
            return msgspec.convert(values, struct)
        except msgspec.ValidationError as error:
            raise self._explained(str(error), values) from None

    def _card(self, name: str) -> FieldCard:
        card = self.cards.get(name)
        if card is None:
            _unknown(name, self.cards, name)
        return card

    def _explained(self, message: str, values: Mapping[str, Any]) -> InvalidInput:
        """msgspec's message (https://jcristharif.com/msgspec/) in words for a person."""
        what, _, path = message.partition(" - at ")
        steps = _steps(path)
        card, value = self._at(steps, values)
        name = _spelled(steps)
        if missing := re.fullmatch(r"Object missing required field `(.+)`", what):
            return self._missing(missing[1], steps)
        if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", what):
            known = [field.name for field in (card.fields or ())] if card else []
            _unknown(unknown[1], known, _spelled([*steps, unknown[1]]))
        if what.startswith("Invalid enum value"):
            choices = (card.enum or []) if card else []
            return _invalid(name, f"`{name}` cannot be {_shown(value)}", _choice_hint(value, choices))
        if "matching regex" in what:
            return _invalid(name, f"`{name}` cannot be {_shown(value)}", _hint(card))
        return _invalid(name, f"`{name}` {_demand(what)}, not {_shown(value)}", _hint(card))

    def _missing(self, name: str, steps: Sequence[str | int]) -> InvalidInput:
        card, _ = self._at([*steps, name], {})
        spelled = _spelled([*steps, name])
        return InvalidInput(f"`{spelled}` is missing", code="input.missing", hint=_hint(card), field=spelled)

    def _at(self, steps: Sequence[str | int], values: Any) -> tuple[FieldCard | None, Any]:
        """The card and the value at a place in the input, as far as there is one."""
        cards: Mapping[str, FieldCard] = self.cards
        card: FieldCard | None = None
        for step in steps:
            if isinstance(step, int):
                item = card.item if card else None
                if item is not None and (_hint(item) or item.fields):  # else the list's own words tell what goes in
                    card = item
            else:
                card = cards.get(step)
                cards = {field.name: field for field in (card.fields or ())} if card else {}
            try:
                values = values[step]
            except (KeyError, IndexError, TypeError):
                values = None
        return card, values


def _from_texts(card: FieldCard, texts: list[str]) -> Any:
    if card.type == "list":
        if len(texts) == 1:
            return _json_list(card, texts[0]) if texts[0].startswith("[") else [t for t in texts[0].split(",") if t]
        return texts
    if card.type == "object-list":
        return [item for text in texts for item in _json_list(card, text)]
    if len(texts) > 1:
        raise InvalidInput(
            f"`{card.name}` is given {len(texts)} times",
            code="input.conflict",
            hint="give it once",
            field=card.name,
        )
    (text,) = texts
    if card.type == "integer" and re.fullmatch(r"-?[0-9]{1,19}", text):
        return int(text)
    if card.type == "boolean" and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    return text


def _json_list(card: FieldCard, text: str) -> list[Any]:
    """A list written as JSON, or one of its items; without text nothing."""
    if not text:
        return []
    try:
        value = read_json(text)
    except BadJson:
        example = '{"path": "/var/lib/libvirt/images/web01.raw"}' if card.name == "disks" else '[{"name": "value"}]'
        raise _invalid(card.name, f"`{card.name}` cannot be {_shown(text)}", f"write it as JSON: {example}") from None
    return value if isinstance(value, list) else [value]


def _demand(what: str) -> str:
    """`Expected ...` as what the value must be."""
    what = what.partition(", got ")[0]
    if bound := re.fullmatch(r"Expected `(\w+)(?: \| null)?` of length ([<>]=) (\d+)", what):
        unit = "items" if bound[1] == "array" else "characters"
        return f"must have at {'most' if bound[2] == '<=' else 'least'} {bound[3]} {unit}"
    if bound := re.fullmatch(r"Expected `\w+(?: \| null)?` ([<>]=) (-?\d+)", what):
        return f"must be at {'most' if bound[1] == '<=' else 'least'} {int(bound[2]):,}"
    wanted = re.match(r"Expected `([^`]+)`", what)
    words = [_WORDS.get(word, word) for word in (wanted[1].split(" | ") if wanted else ()) if word != "null"]
    return f"must be {' or '.join(words) or 'something else'}"


_WORDS = {
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


def _unknown(name: str, known: Collection[str], spelled: str) -> NoReturn:
    near = difflib.get_close_matches(name[:_SHOWN_CHARS], known, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
    raise InvalidInput(
        f"there is no field {_shown(name)}",
        code="input.unknown_field",
        hint=hint,
        field=spelled[:_SHOWN_CHARS],
    )


def _invalid(field: str, message: str, hint: str) -> InvalidInput:
    return InvalidInput(message, code="input.invalid", hint=hint, field=field)


def _hint(card: FieldCard | None) -> str:
    if card is None:
        return ""
    example = f"For example {json.dumps(card.example)}" if card.example is not None else ""
    choice = f"One of {', '.join(card.enum)}" if card.enum else ""
    return " ".join(part for part in (card.description, choice or example) if part)


def _choice_hint(value: Any, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(value[:_SHOWN_CHARS], choices, n=1) if isinstance(value, str) else []
    one_of = f"one of {', '.join(choices)}"
    return f"did you mean {near[0]}? ({one_of})" if near else one_of


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _steps(path: str) -> list[str | int]:
    """`$.disks[0].path` in steps."""
    found = re.findall(r"\.([A-Za-z0-9_]+)|\[(\d+)\]", path)
    return [name or int(index) for name, index in found]


def _spelled(steps: Sequence[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")
