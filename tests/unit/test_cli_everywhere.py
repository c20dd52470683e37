"""One answer made of those of several clusters: tables, data, notes and what is wrong."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from pvc.cli import exits
from pvc.cli.everywhere import ask_each, show_answers
from pvc.cli.session import Session
from pvc.cli.shown import Data, Kept, Table, Text, data_of, screen_of
from pvc.cli.table import Cell, Column
from pvc.cli.text import Look
from pvc.client.errors import ApiError, Unreachable

COLUMNS = (Column("VM", rank=0), Column("STATE"))


def kept(*parts: Table | Text | Data) -> Kept:
    made = Kept()
    made.parts = list(parts)
    return made


def session_at(name: str, output: str = "table") -> Session:
    asking = Session()
    asking.output = output
    return asking.keeping(name, among_several=True)


def test_tables_become_one_with_a_column_for_the_cluster() -> None:
    answers = {
        "east": kept(Table(COLUMNS, [["a", Cell("running", "green")]])),
        "west": kept(Table(COLUMNS, [["b", "stopped"]])),
        "void": kept(Table(COLUMNS, [])),
    }
    assert screen_of(answers, Look(), several=True).text == (
        "CLUSTER  VM  STATE\neast     a   running\nwest     b   stopped\n"
    )


def test_what_follows_a_table_is_told_for_each_cluster() -> None:
    answers = {
        "east": kept(Table(COLUMNS, [["a", "failed"]]), Text("What to do:\n  mend a\n")),
        "west": kept(Table(COLUMNS, [])),
    }
    assert screen_of(answers, Look(), several=True).text == (
        "CLUSTER  VM  STATE\neast     a   failed\n\neast:\nWhat to do:\n  mend a\n"
    )


def test_answers_that_are_no_tables_stand_below_each_other() -> None:
    answers = {"east": kept(Text("Name  a\n")), "west": kept(Text("Name  b\n"))}
    assert screen_of(answers, Look(), several=True).text == "east:\nName  a\n\nwest:\nName  b\n"
    assert screen_of({"": kept(Text("Name  a\n"))}, Look(), several=False).text == "Name  a\n"


def test_data_is_one_list_in_which_each_item_names_its_cluster() -> None:
    answers = {"east": kept(Data([{"name": "a"}])), "west": kept(Data([{"name": "b", "cluster": "x"}]))}
    assert data_of(answers, several=True) == [
        Data([{"cluster": "east", "name": "a"}, {"cluster": "west", "name": "b"}])
    ]
    assert data_of({"east": kept(Data({"health": "ok"}))}, several=True) == [
        Data([{"cluster": "east", "health": "ok"}])
    ]
    assert data_of({"": kept(Data({"health": "ok"}))}, several=False) == [Data({"health": "ok"})]


def test_all_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    def ask(session: Session) -> None:
        together.wait()
        session.show_table(COLUMNS, [[session.connection, "running"]])

    answers = ask_each([session_at(name) for name in ("a", "b", "c")], ask)
    assert [answer.name for answer in answers] == ["a", "b", "c"]
    assert all(answer.code == exits.OK and len(answer.kept.parts) == 1 for answer in answers)


def test_one_that_hangs_and_one_that_refuses_are_answers_too(capsys: pytest.CaptureFixture[str]) -> None:
    for_ever = threading.Event()

    def ask(session: Session) -> int:
        if session.connection == "hangs":
            for_ever.wait()
        if session.connection == "refuses":
            raise ApiError(403, "you may not", code="access.denied", hint="ask an admin")
        session.show_table(COLUMNS, [["web", "running"]])
        session.note("a note")
        return exits.OK

    answers = ask_each([session_at(name) for name in ("hangs", "refuses", "works")], ask, patience_s=0.2)
    for_ever.set()
    assert [answer.code for answer in answers] == [exits.UNAVAILABLE, exits.DENIED, exits.OK]
    assert isinstance(answers[0].error, Unreachable)
    show_answers(Session(), answers)
    shown = capsys.readouterr()
    assert shown.out == "CLUSTER  VM   STATE\nworks    web  running\n"
    assert shown.err.splitlines() == [
        "Error: hangs: it has not answered yet",
        "Hint: pvc doctor tells why, with -c and its name",
        "Error: refuses: you may not",
        "Hint: ask an admin",
        "works: a note",
    ]


def test_data_of_several_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    asking = Session()
    asking.output = "json"

    def ask(session: Session) -> None:
        session.show_data([{"name": f"{session.connection}-1"}])
        session.note("not for programs")

    show_answers(asking, ask_each([session_at(name, "json") for name in ("a", "b")], ask))
    shown = capsys.readouterr()
    told: Any = json.loads(shown.out)
    assert [(one["cluster"], one["name"]) for one in told] == [("a", "a-1"), ("b", "b-1")]
    assert shown.err == ""


def test_a_fault_of_our_own_is_not_hidden() -> None:
    def ask(session: Session) -> None:
        raise KeyError(session.connection)

    with pytest.raises(KeyError):
        ask_each([session_at("a")], ask)
