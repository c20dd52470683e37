"""Tells records as a story: oldest first, each request with what it led to beneath it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pvc.cli.table import GAP
from pvc.cli.text import Look, clean, fit, pad, paint, width_of, wrap
from pvc.cli.times import took, when
from pvc.client.api_types import RecordView, ToldEvent

MIN_WHAT = 30
"""What happened is wrapped to the screen; before it gets narrower than this, from where it was asked gives way."""

MIN_FROM = 8
"""Less than this says nothing; the column is then left out."""

LEAST_WHAT = 12
"""Where even that is not enough, lines run over the edge."""

TITLES = ("WHEN", "WHO", "FROM", "WHAT", "RESULT")

REFUSED = frozenset({"command.rejected", "access.refused", "access.login_refused"})
"""The events of what was refused; RESULT says so."""

Outcomes = Callable[[RecordView], Mapping[str, bool]]
"""The event types that end what a record began, and whether that is success."""


class Line(NamedTuple):
    """A line of the story, still without colours and columns."""

    when: str
    who: str
    source: str
    branch: str
    """Drawn before `what`, to show what it follows from."""
    what: str
    result: str
    style: str


def render_story(
    records: Sequence[RecordView],
    *,
    outcomes: Outcomes,
    look: Look,
    now_us: int,
    names: Mapping[str, str] | None = None,
) -> str:
    """The story of some records, in any order. `names` gives the subjects' names, where they are to be told."""
    lines = tell(records, outcomes=outcomes, now_us=now_us, names=names)
    if not lines:
        return ""
    widths = [max(width_of(TITLES[i]), *(width_of(line[i]) for line in lines)) for i in range(3)]
    what = max(width_of(TITLES[3]), *(width_of(line.branch) + width_of(line.what) for line in lines))
    result = max(width_of(TITLES[4]), *(width_of(line.result) for line in lines))
    if look.width:
        room = look.width - sum(widths) - result - 4 * len(GAP)
        if room < min(what, MIN_WHAT):
            source = widths[2] - (min(what, MIN_WHAT) - room)
            room += widths[2] - source if source >= MIN_FROM else widths[2] + len(GAP)
            widths[2] = source if source >= MIN_FROM else 0
        what = max(min(what, room), LEAST_WHAT)
    head = [pad(fit(title, width), width) for title, width in zip(TITLES, [*widths, what], strict=False) if width]
    text = [paint(GAP.join([*head, TITLES[4]]), "bold", look)]
    for line in lines:
        text += _rendered(line, widths, what, look)
    return "".join(line.rstrip() + "\n" for line in text)


def tell(
    records: Sequence[RecordView], *, outcomes: Outcomes, now_us: int, names: Mapping[str, str] | None = None
) -> list[Line]:
    """The lines of the story. A record whose cause is not among the records stands by itself."""
    ordered = sorted(records, key=lambda record: record["position"])
    here = {record["id"] for record in ordered}
    led_to: dict[str, list[RecordView]] = {}
    for record in ordered:
        cause = record.get("cause") or ""
        led_to.setdefault(cause if cause in here else "", []).append(record)
    lines: list[Line] = []
    todo = [(record, record, 0) for record in reversed(led_to.get("", []))]
    while todo:
        record, root, depth = todo.pop()
        lines += _lines_of(record, root, depth, outcomes, now_us, names)
        todo += [(child, root, depth + 1) for child in reversed(led_to.get(record["id"], []))]
    return lines


def who(record: RecordView) -> str:
    """Who did it: the principal; a node by its name."""
    return record["actor"]["principal"]


def whence(record: RecordView) -> str:
    """From where and through what: `local socket, cli/0.1.0`, `10.0.0.5, api`; nothing for what a node learnt."""
    actor = record["actor"]
    if actor["method"] == "node":
        return ""
    place = actor.get("address") or {"socket": "local socket"}.get(actor["method"], actor["method"])
    return f"{place}, {actor['source']}" if actor.get("source") else place


def _lines_of(
    record: RecordView,
    root: RecordView,
    depth: int,
    outcomes: Outcomes,
    now_us: int,
    names: Mapping[str, str] | None,
) -> list[Line]:
    after = f"+{took(record['time_us'] - root['time_us'])}" if depth else ""
    ends = outcomes(root)
    lines = []
    for i, event in enumerate(record["events"]):
        result, style = _result(event, ends, asked=not depth and record["actor"]["method"] != "node")
        lines.append(
            Line(
                when=when(record["time_us"], now_us) if i == 0 else "",
                who=clean(who(record)) if i == 0 else "",
                source=clean(whence(record)) if i == 0 else "",
                branch="   " * (depth - 1) + ("└─ " if i == 0 else "   ") if depth else "",
                what=_what(record, event, names),
                result=" ".join(part for part in (result, after) if part),
                style=style,
            )
        )
    return lines


def _result(event: ToldEvent, ends: Mapping[str, bool], *, asked: bool) -> tuple[str, str]:
    if event["type"] in REFUSED:
        return "refused", "red"
    good = ends.get(event["type"], not event.get("failure"))
    if not good:
        return "failed", "red"
    if event["type"] in ends or (asked and not ends):
        return "ok", "green"
    return "", ""


def _what(record: RecordView, event: ToldEvent, names: Mapping[str, str] | None) -> str:
    if event["type"] in REFUSED and "message" in event["data"]:
        asked = record["command"]["name"].replace(".", " ").replace("_", " ")
        return clean(f"{asked}: {event['data'].get('message', '')}")
    summary = clean(event["summary"])
    subject = event["subject"]
    kind, _, ref = subject.partition("/")
    if names is None or not ref or kind == "access":
        return summary
    name = clean(names.get(subject, subject))
    return summary if name in summary.replace(":", " ").replace(",", " ").split() else f"{name}: {summary}"


def _rendered(line: Line, widths: Sequence[int], what_width: int, look: Look) -> list[str]:
    parts = wrap(line.what, max(what_width - width_of(line.branch), 1))
    text = []
    for i, part in enumerate(parts):
        first = i == 0
        head = [
            paint(pad(line.when if first else "", widths[0]), "dim", look),
            pad(line.who if first else "", widths[1]),
            *([paint(pad(fit(line.source if first else "", widths[2]), widths[2]), "dim", look)] if widths[2] else []),
        ]
        branch = line.branch if first else " " * width_of(line.branch)
        body = paint(branch, "dim", look) + paint(part, "red" if line.style == "red" else "", look)
        fill = " " * (what_width - width_of(branch) - width_of(part))
        text.append(GAP.join([*head, body + fill, paint(line.result if first else "", line.style, look)]))
    return text
