"""`-c all`: a question put to every cluster that is known here, side by side, with one answer made of theirs.

A cluster that is down, slow or says no is told on stderr and by the exit code; it never hides what the others say.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pvc.cli import exits
from pvc.cli.session import Session, format_data, format_line, left_out, write_error
from pvc.cli.shown import Kept, Screen, data_of, screen_of
from pvc.client.errors import ClientError, ConfigError

Ask = Callable[[Session], int | None]


class Answer(NamedTuple):
    """What one cluster says: what it would show, or why it does not."""

    name: str
    kept: Kept
    code: int
    error: ClientError | None = None


def run_everywhere(session: Session, ask: Ask) -> int:
    """Ask all, and show what they say; returns the highest of the exit codes."""
    answers = ask_each(sessions_of_all(session), ask)
    show_answers(session, answers)
    return max(answer.code for answer in answers)


def sessions_of_all(session: Session) -> list[Session]:
    """One for each connection there is: those stored, and this machine's own unless it leads to one of them."""
    from pvc.client.connections import LOCAL, load_connections, local_is_there

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


def ask_each(sessions: Sequence[Session], ask: Ask) -> list[Answer]:
    """What each says, in their order; all are asked at the same time."""
    answers: dict[int, Answer | BaseException] = {}

    def run(i: int) -> None:
        try:
            answers[i] = _answer(sessions[i], ask)
        except BaseException as fault:  # noqa: BLE001 - raised where all have ended
            answers[i] = fault

    # Daemon threads, so that Ctrl-C does not wait for a gateway that hangs.
    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(1, len(sessions))]
    for thread in threads:
        thread.start()
    if sessions:
        run(0)
    for thread in threads:
        thread.join()
    told = []
    for i in range(len(sessions)):
        answer = answers[i]
        if isinstance(answer, BaseException):
            raise answer
        told.append(answer)
    return told


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
