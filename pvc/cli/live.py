"""`--watch`: the same question again whenever something happens in the cluster, and the answer drawn in place.

The event stream says when to ask: nothing is polled while a cluster is quiet. Where there is no stream to be had, and
where an interval is given, it is asked by the clock. On a terminal one screen is drawn over itself; anywhere else each
answer that differs from the last is appended.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Sequence

from pvc.cli import exits
from pvc.cli.everywhere import Answer, Ask, Question, screen_for, sessions_of_all
from pvc.cli.screen import KEYS, Canvas, compose
from pvc.cli.session import SOURCE, Session, write_error
from pvc.client.connections import Connection
from pvc.client.errors import ClientError

QUIET_S = 10.0
"""On a terminal at least this often, so that "3 min ago" is true; what is measured changes without an event, too."""

BLIND_S = 2.0
"""By the clock, where no stream says when to look."""

SETTLE_S = 0.1
"""What happens together is shown together."""

LEAST_PAUSE_S = 0.5
"""Between two questions: a busy cluster has many events a second, and nobody reads faster."""

PATIENCE_S = 3.0
"""After this long the screen says that there is no answer, and what is newer of other clusters."""

AGAIN_S = 5.0
"""Before a stream that was refused is asked for again."""


def run_watching(session: Session, ask: Ask, title: str, every_s: float | None) -> int:
    """Show the answer until Ctrl-C or `q`. Raises what the first question of a single cluster raises."""
    several = session.everywhere
    sessions = sessions_of_all(session) if several else [session.keeping()]
    with Bell([each.client.connection for each in sessions]) as bell:
        watch = _Watch(sessions, ask, bell, several=several)
        first = watch.look(PATIENCE_S if several else None)
        if not several and first[0].error is not None:
            raise first[0].error
        if sys.stdout.isatty():
            return _draw(session, watch, first, bell, title, every_s)
        return _append(session, watch, first, bell, every_s)


class Bell:
    """Rings when something has happened in one of the clusters, or the screen has another size."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections
        self._blind = set(range(len(connections)))
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        os.set_blocking(self._reader, False)

    def __enter__(self) -> Bell:
        for i, connection in enumerate(self._connections):
            # Daemon threads: a stream that hangs must not hold up the end.
            threading.Thread(target=self._follow, args=(i, connection), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        return  # the followers end with the process; their pipe must stay open for them

    @property
    def blind(self) -> bool:
        """Whether there is a cluster of which nothing is heard."""
        return bool(self._blind)

    def ring(self) -> None:
        """To be heard at the next wait; harmless in a signal's handler."""
        try:
            os.write(self._writer, b"!")
        except BlockingIOError:
            return  # it rings already

    def wait(self, timeout_s: float | None, *, keys: bool = False) -> bytes | None:
        """Until it rings (None), the time is over (None), or somebody types (what they typed)."""
        typed = [sys.stdin.fileno()] if keys else []
        ready, _, _ = select.select([self._reader, *typed], [], [], timeout_s)
        if self._reader in ready:
            self._quieten()
            if SETTLE_S:
                time.sleep(SETTLE_S)
                self._quieten()
            return None
        return os.read(typed[0], KEYS) if ready else None

    def _quieten(self) -> None:
        try:
            os.read(self._reader, 65536)
        except BlockingIOError:
            return

    def _follow(self, i: int, connection: Connection) -> None:
        from pvc.client.json_client import JsonClient

        while True:
            try:
                with JsonClient(connection, source=SOURCE) as client:
                    client.whoami()
                    stream = client.events(after=client.position)
                    self._blind.discard(i)
                    self.ring()  # what happened between the first look and here
                    for _ in stream:
                        self.ring()
            except (ClientError, OSError) as error:
                if isinstance(error, ClientError) and exits.exit_code(error) == exits.DENIED:
                    self._blind.discard(i)
                    return
                self._blind.add(i)
                self.ring()
                time.sleep(AGAIN_S)


class _Watch:
    """The question, asked of each cluster again and again, but never twice of one that still thinks about it."""

    def __init__(self, sessions: Sequence[Session], ask: Ask, bell: Bell, *, several: bool) -> None:
        self._sessions = sessions
        self._ask = ask
        self._bell = bell
        self.several = several
        self._looked_s = float("-inf")
        self._asked: dict[str, Question] = {}
        self._denied: dict[str, Answer] = {}

    def look(self, patience_s: float | None = PATIENCE_S) -> list[Answer]:
        """What each says now; an error in the place of those that do not answer so soon: they ring when they do."""
        pause_s = self._looked_s + LEAST_PAUSE_S - time.monotonic()
        if pause_s > 0:
            time.sleep(pause_s)
        self._looked_s = time.monotonic()
        until_s = None if patience_s is None else self._looked_s + patience_s
        late = set()
        for session in self._sessions:
            name = session.connection
            before = self._asked.get(name)
            if name in self._denied:
                continue
            if before is not None and not before.is_over:
                late.add(name)
                continue
            self._asked[name] = Question(session, self._ask)
        answers = []
        for session in self._sessions:
            name = session.connection
            answer = self._denied.get(name) or self._asked[name].answer(self._looked_s if name in late else until_s)
            if answer.code == exits.DENIED:
                # Each refusal is a record: who is not allowed to look is told so once, not with every event.
                self._denied[name] = answer
            if not self._asked[name].is_over:
                self._asked[name].call(self._bell.ring)
            answers.append(answer)
        return answers


def _draw(session: Session, watch: _Watch, answers: list[Answer], bell: Bell, title: str, every_s: float | None) -> int:
    """One screen, drawn over itself."""
    known = {answer.name: answer for answer in answers}
    text = ""
    try:
        with Canvas(sys.stdout, on_resize=bell.ring) as canvas:
            while True:
                for answer in answers:
                    if answer.error is None or answer.name not in known or known[answer.name].error is not None:
                        known[answer.name] = answer
                text, lines = _frame(session, watch, known, answers)
                canvas.draw(compose(title, text, lines, session.look, canvas.height()))
                typed = bell.wait(every_s or (BLIND_S if bell.blind else QUIET_S), keys=canvas.has_keys)
                if typed is not None and typed.lower()[:1] in (b"q", b"\x04", b""):
                    return exits.OK
                answers = watch.look()
    finally:
        sys.stdout.write(text)  # what was seen last stays to be read


def _frame(
    session: Session, watch: _Watch, known: dict[str, Answer], latest: Sequence[Answer]
) -> tuple[str, list[tuple[str, str]]]:
    """The answer as last known, and the lines to be told beside it, each with its style."""
    shown = {name: answer.kept for name, answer in known.items() if answer.error is None}
    lines = []
    for answer in latest:
        head = f"{answer.name}: " if watch.several else ""
        if answer.error is not None:
            lines.append((f"Error: {head}{answer.error.message}", "red"))
        lines += [(f"{head}{note}", "dim") for note in answer.kept.notes]
    screen = screen_for(session, shown, several=watch.several)
    if screen.left_out:
        lines.append((f"No room for {', '.join(screen.left_out)}", "dim"))
    return screen.text, lines


def _append(session: Session, watch: _Watch, answers: list[Answer], bell: Bell, every_s: float | None) -> int:
    """Answers one after the other, where they differ."""
    last, troubles = "", set[str]()
    while True:
        kept = {answer.name: answer.kept for answer in answers if answer.error is None}
        text = screen_for(session, kept, several=watch.several, lines=True).text
        if kept and text != last:
            sys.stdout.write(text if not last or session.wants_data else f"\n{text}")
            sys.stdout.flush()
            last = text
        failed = {answer.name: answer.error for answer in answers if answer.error is not None}
        for name, error in failed.items():
            if name not in troubles:
                message = f"{name}: {error.message}" if name else error.message
                write_error(session, message, hint=error.hint, code=error.code)
        troubles = set(failed)
        bell.wait(every_s or (BLIND_S if bell.blind else None))
        answers = watch.look()
