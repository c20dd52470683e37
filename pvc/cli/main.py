"""The entry of `pvc`: runs the command and turns whatever goes wrong into a message and an exit code, once, here.

It imports next to nothing itself, so that Ctrl-C is answered quietly even while the rest is being loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc.cli.session import Session

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pvc` and return its exit code. No traceback reaches a person unless PVC_DEBUG is set."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    from pvc.cli.session import Session

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ellipsis gets a question mark
    session = Session()
    try:
        return _carry_out(session, arguments)
    except BrokenPipeError:
        _let_go_of_readers()
        return session.ends_with


def _carry_out(session: Session, arguments: Sequence[str] | None) -> int:
    from click import Abort

    from pvc.cli.app import cli

    try:
        code = cli.main(args=arguments, prog_name="pvc", standalone_mode=False, obj=session)
        session.ends_with = code if isinstance(code, int) else 0
        sys.stdout.flush()
        return session.ends_with
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if os.environ.get("PVC_DEBUG"):
            raise
        return _explain(session, error)


def _explain(session: Session, error: Exception) -> int:
    from click import ClickException

    from pvc.cli import exits
    from pvc.cli.session import write_error
    from pvc.client.errors import ApiError, ClientError

    if isinstance(error, ClientError):
        status = error.status if isinstance(error, ApiError) else 0
        field = error.field if isinstance(error, ApiError) else ""
        session.ends_with = exits.exit_code(error)
        write_error(session, error.message, hint=error.hint, code=error.code, status=status, field=field)
        return session.ends_with
    if isinstance(error, ClickException):
        return _explain_usage(session, error)
    session.ends_with = exits.REJECTED
    write_error(
        session,
        f"pvc itself has failed: {type(error).__name__}: {error}",
        hint="this is a fault in PVC; PVC_DEBUG=1 shows where, please report it",
        code="cli.internal",
    )
    return session.ends_with


def _explain_usage(session: Session, error: Any) -> int:
    from pvc.cli import exits
    from pvc.cli.session import write_error

    session.ends_with = exits.USAGE if error.exit_code == exits.USAGE else exits.REJECTED
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return session.ends_with
    ctx = getattr(error, "ctx", None)
    hint = getattr(error, "hint", "") or (f"{ctx.command_path} -h shows how it is used" if ctx else "")
    write_error(session, error.format_message().rstrip("."), hint=hint, code="cli.usage")
    return session.ends_with


def _let_go_of_readers() -> None:
    """What reads our output has seen enough (`pvc vm list | head`). Keep Python from flushing the rest into it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
