"""Whether what was released can live with what is here: old records with new code, old clients with new gateways. Pure.

Two directions. What comes *in* (stored events, commands, arguments) may be let in more widely than before, and no
narrower. What goes *out* (replies) may have more in it than before, and nothing less.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

Schema: TypeAlias = Mapping[str, Any]
Way: TypeAlias = Literal["in", "out"]


class Break(NamedTuple):
    """Something that was released does not go any more."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    {self.remedy}"


KEEP = "old records have it: keep the field and its default, or raise the type's V and write an upcaster"
KEEP_TYPE = "old records have it: keep the struct, its registration, evolve branch and story line, unused if need be"
KEEP_API = "clients of the released version rely on it: keep it, and add what is new beside it"

_LOWEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_HIGHEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def event_breaks(
    old: Mapping[str, Schema], new: Mapping[str, Schema], upcasters: Collection[tuple[str, int]]
) -> Iterator[Break]:
    """What of the released events cannot be read any more. `upcasters` are those there are, as (type, from version)."""
    for name, before in old.items():
        where = f"event {name}"
        after = new.get(name)
        if after is None:
            yield Break(where, "it is gone", KEEP_TYPE)
            continue
        released, present = before.get("x-version", 1), after.get("x-version", 1)
        if present < released:
            yield Break(where, f"its version went back from {released} to {present}", "versions only go up")
        elif present > released:
            for version in range(released, present):
                if (name, version) not in upcasters:
                    what = f"version {version} was released, and there is no upcaster from it"
                    yield Break(where, what, "write one, in UPCASTERS of pvc/events/registry.py")
        else:
            yield from _Comparison(before, after, "in", KEEP, defaults=True).breaks(before, after, where)


def command_breaks(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> Iterator[Break]:
    """What of the released commands cannot be given any more."""
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            yield Break(f"command {name}", "it is gone", KEEP_API)
        else:
            yield from _Comparison(before, after, "in", KEEP_API).breaks(before, after, f"command {name}")


def api_breaks(old: Schema, new: Schema) -> Iterator[Break]:
    """What a client of the released API would miss: operations, arguments, fields of replies."""
    for path, methods in old["paths"].items():
        for method, before in methods.items():
            where = f"{method.upper()} {path}"
            after = new["paths"].get(path, {}).get(method)
            if after is None:
                yield Break(where, "it is gone", KEEP_API)
                continue
            yield from _argument_breaks(old, new, before, after, where)
            compared = _Comparison(old, new, "in", KEEP_API)
            asked, asks = (_contents(operation.get("requestBody", {})) for operation in (before, after))
            yield from _content_breaks(compared, asked, asks, f"{where} body")
            compared = _Comparison(old, new, "out", KEEP_API)
            replied, replies = (_contents(operation["responses"].get("200", {})) for operation in (before, after))
            yield from _content_breaks(compared, replied, replies, f"{where} reply")


def _argument_breaks(old: Schema, new: Schema, before: Schema, after: Schema, where: str) -> Iterator[Break]:
    had, has = (
        {
            (one["in"], one["name"]): one
            for one in (_resolved(document, each) for each in operation.get("parameters", ()))
        }
        for document, operation in ((old, before), (new, after))
    )
    for key, argument in had.items():
        if key not in has:
            yield Break(f"{where} {key[1]}", "the argument is gone", KEEP_API)
        else:
            compared = _Comparison(old, new, "in", KEEP_API)
            yield from compared.breaks(argument.get("schema", {}), has[key].get("schema", {}), f"{where} {key[1]}")
    for key, argument in has.items():
        if argument.get("required") and not had.get(key, {}).get("required"):
            yield Break(f"{where} {key[1]}", "the argument is required now", KEEP_API)


def _content_breaks(
    compared: _Comparison, before: Mapping[str, Schema], after: Mapping[str, Schema], where: str
) -> Iterator[Break]:
    for media, content in before.items():
        if media not in after:
            yield Break(where, f"there is no {media} any more", KEEP_API)
        else:
            yield from compared.breaks(content.get("schema", {}), after[media].get("schema", {}), where)


def _contents(holder: Schema) -> Mapping[str, Schema]:
    content: Mapping[str, Schema] = holder.get("content", {})
    return content


class _Comparison:
    """Compares schemas of two documents, in which references are looked up."""

    def __init__(self, old: Schema, new: Schema, way: Way, remedy: str, *, defaults: bool = False) -> None:
        self._old = old
        self._new = new
        self._in = way == "in"
        self._remedy = remedy
        self._defaults = defaults
        """Whether what is left out is stored as left out, so that a default says what old data mean."""
        self._open: set[tuple[str, str]] = set()
        """References that are being compared: a schema may have itself in it."""

    def breaks(self, old: Schema, new: Schema, where: str) -> Iterator[Break]:
        """All that does not go any more at `where`, and below."""
        pair = (str(old.get("$ref", "")), str(new.get("$ref", "")))
        if all(pair):
            if pair in self._open:
                return
            self._open.add(pair)
        yield from self._default(old, new, where)
        yield from self._shapes(_resolved(self._old, old), _resolved(self._new, new), where)
        self._open.discard(pair)

    def _default(self, old: Schema, new: Schema, where: str) -> Iterator[Break]:
        if self._defaults and "default" in old and "default" in new and old["default"] != new["default"]:
            yield self._break(where, f"its default was {old['default']!r} and is {new['default']!r}")

    def _shapes(self, old: Schema, new: Schema, where: str) -> Iterator[Break]:
        if "anyOf" in old or "anyOf" in new:
            yield from self._choices(old.get("anyOf", [old]), new.get("anyOf", [new]), where)
            return
        if old.get("type") != new.get("type"):
            if not (self._in and "type" not in new and "enum" not in new):
                yield self._break(where, f"it was {_kind(old)} and is {_kind(new)}")
            return
        yield from self._words(old, new, where)
        if self._in:
            yield from self._bounds(old, new, where)
        yield from self._fields(old, new, where)
        for key in ("items", "additionalProperties"):
            if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
                yield from self.breaks(old[key], new[key], f"{where}[]")

    def _choices(self, old: list[Schema], new: list[Schema], where: str) -> Iterator[Break]:
        given, accepted = (old, new) if self._in else (new, old)
        for choice in given:
            pairs = ((choice, one) if self._in else (one, choice) for one in accepted)
            if not any(not list(self.breaks(before, after, where)) for before, after in pairs):
                document = self._old if self._in else self._new
                text = _kind(_resolved(document, choice))
                yield self._break(where, f"{text} is no longer taken" if self._in else f"it may be {text} now")

    def _words(self, old: Schema, new: Schema, where: str) -> Iterator[Break]:
        before, after = (set(_words_of(schema)) for schema in (old, new))
        if self._in and after:
            gone = sorted(map(repr, before - after)) if before else ["any other value"]
            if not before <= after or not before:
                yield self._break(where, f"{', '.join(gone)} is no longer taken")

    def _bounds(self, old: Schema, new: Schema, where: str) -> Iterator[Break]:
        for keys, sign in ((_LOWEST, 1), (_HIGHEST, -1)):
            for key in keys:
                if key in new and (key not in old or sign * new[key] > sign * old[key]):
                    yield self._break(where, f"{key} was {old.get(key, 'none')} and is {new[key]}")
        if "pattern" in new and new["pattern"] != old.get("pattern"):
            yield self._break(where, f"its pattern was {old.get('pattern', 'none')!r} and is {new['pattern']!r}")

    def _fields(self, old: Schema, new: Schema, where: str) -> Iterator[Break]:
        before, after = (schema.get("properties", {}) for schema in (old, new))
        for name, field in before.items():
            if name not in after:
                yield self._break(f"{where}.{name}", "the field is gone")
            else:
                yield from self.breaks(field, after[name], f"{where}.{name}")
        needed, certain = (set(schema.get("required", ())) for schema in ((new, old) if self._in else (old, new)))
        for name in sorted(needed - certain):
            if self._in:
                what = "it is required now" if name in before else "it is new and has no default"
                yield Break(f"{where}.{name}", what, "give it a default that says what its absence means")
            elif name in after:
                yield self._break(f"{where}.{name}", "it may be missing now")

    def _break(self, where: str, what: str) -> Break:
        return Break(where, what, self._remedy)


def _resolved(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        found: Any = document
        for word in schema["$ref"].removeprefix("#/").split("/"):
            found = found[word]
        schema = found
    return schema


def _words_of(schema: Schema) -> list[Any]:
    words: list[Any] = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return words


def _kind(schema: Schema) -> str:
    if words := _words_of(schema):
        return f"one of {', '.join(map(str, words))}"
    return str(schema.get("title") or schema.get("type") or "anything")
