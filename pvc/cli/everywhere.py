"""`-c all`: a question put to every cluster that is known here, side by side, with one answer made of theirs.

A cluster that is down, slow or says no is told on stderr and by the exit code; it never hides what the others say.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pvc.cli import exits
from pvc.cli.session import Session, format_data, format_line, left_out, write_error
from pvc.cli.shown import Kept, Screen, data_of, screen_of
from pvc.client.errors import ClientError, ConfigError, Unreachable

Ask = Callable[[Session], int | None]


PATIENCE_S = 10.0
"""One that takes longer does not hold back what the others have said."""


class Answer(NamedTuple):
    """What one cluster says: what it would show, or why it does not."""

    name: str
    kept: Kept
    code: int
    error: ClientError | None = None


def run_everywhere(session: Session, ask: Ask) -> int:
    """Ask all, and show what they say; returns the highest of the exit codes.

    That one does not know a thing is no failure where another has told of it.
    """
    answers = ask_each(sessions_of_all(session), ask)
    told = [answer for answer in answers if answer.code != exits.NOT_FOUND]
    if any(answer.code == exits.OK for answer in told):
        answers = told
    show_answers(session, answers)
    return max(answer.code for answer in answers)


def sessions_of_all(session: Session) -> list[Session]:
    """One for each connection there is: those stored, and this machine's own unless it leads to one of them."""
    from pvc.client.connections import LOCAL, load_connections, local_is_there

    for variable in ("PVC_TOKEN", "PVC_TOKEN_FILE"):
        if os.environ.get(variable):
            raise ConfigError(
                f"{variable} is a token of one cluster, and would be shown to all of them",
                code="client.one_connection",
                hint=f"unset {variable}; each connection has a token of its own",
            )
    names = list(load_connections().connections)
    made = [session.keeping(name, among_several=True) for name in names]
    if local_is_there():
        own = session.keeping(LOCAL, among_several=True)
        if not made or not _is_one_of(own, made):
            made.insert(0, own)
    if not made:
        raise ConfigError(
            "there is no cluster to talk to",
            code="client.no_connection",
            hint="pvc connection add NAME URL...",
        )
    return made


class Question:
    """A question on its way to one cluster, in a thread of its own, so that nobody waits for one that hangs."""

    def __init__(self, session: Session, ask: Ask) -> None:
        self._session = session
        self._ask = ask
        self._then: Callable[[], None] | None = None
        self._answer: Answer | BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it is answered."""
        return self._answer is not None

    def call(self, then: Callable[[], None]) -> None:
        """Have this called when it is answered."""
        self._then = then
        if self.is_over:
            then()

    def answer(self, until_s: float | None) -> Answer:
        """What came of it; an error where nothing did until then (monotonic seconds; None: for ever)."""
        left_s = None if until_s is None else max(until_s - time.monotonic(), 0.0)
        self._thread.join(left_s)
        if self._answer is None:
            slow = Unreachable(
                "it has not answered yet", code="client.slow_cluster", hint="pvc doctor tells why, with -c and its name"
            )
            return Answer(self._session.connection, Kept(), exits.UNAVAILABLE, slow)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = _answer(self._session, self._ask)
        except BaseException as fault:  # noqa: BLE001 - raised again where the answer is wanted
            self._answer = fault
        if self._then is not None:
            self._then()


def ask_each(sessions: Sequence[Session], ask: Ask, patience_s: float = PATIENCE_S) -> list[Answer]:
    """What each says, in their order; all are asked at the same time."""
    questions = [Question(session, ask) for session in sessions]
    until_s = time.monotonic() + patience_s
    return [question.answer(until_s) for question in questions]


def show_answers(session: Session, answers: Sequence[Answer]) -> None:
    """One answer made of all, then the notes and the errors of each."""
    kept = {answer.name: answer.kept for answer in answers if answer.error is None}
    screen = screen_for(session, kept, several=True)
    sys.stdout.write(screen.text)
    sys.stdout.flush()
    if screen.left_out:
        session.note(left_out(screen.left_out))
    for answer in answers:
        if not session.wants_data:
            for note in answer.kept.notes:
                session.note(f"{answer.name}: {note}")
        if answer.error is not None:
            error = answer.error
            write_error(session, f"{answer.name}: {error.message}", hint=error.hint, code=error.code)


def screen_for(session: Session, kept: Mapping[str, Kept], *, several: bool, lines: bool = False) -> Screen:
    """What these have said, in the form that was asked for; `lines`: data as one of many that follow each other."""
    if not session.wants_data:
        return screen_of(kept, session.look, several=several)
    return Screen(
        "".join(
            format_line(data.data, session.output) if data.line or lines else format_data(data.data, session.output)
            for data in data_of(kept, several=several)
        )
    )


def _answer(session: Session, ask: Ask) -> Answer:
    try:
        code = ask(session) or exits.OK
    except ClientError as error:
        return Answer(session.connection, session.kept(), exits.exit_code(error), error)
    return Answer(session.connection, session.kept(), code)


def _is_one_of(own: Session, others: Sequence[Session]) -> bool:
    """Whether this machine's cluster is stored under a name as well; not, where that cannot be told just now."""

    def identify(session: Session) -> None:
        session.show_data(session.client.cluster()["id"])

    mine, *theirs = ask_each([own, *others], identify)
    known = [answer.kept.parts for answer in theirs if answer.error is None]
    return mine.error is None and mine.kept.parts in known
