"""The entry of `pvc`: runs the command and turns whatever goes wrong into a message and an exit code, once, here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from pvc.cli import exits
from pvc.cli.app import cli
from pvc.cli.session import Session, write_error
from pvc.client.errors import ApiError, ClientError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pvc` and return its exit code. No traceback reaches a person unless PVC_DEBUG is set."""
    session = Session()
    try:
        code = cli.main(args=arguments, prog_name="pvc", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return code if isinstance(code, int) else exits.OK
    except BrokenPipeError:
        return _reader_gone()
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        return exits.INTERRUPTED
    except Exception as error:
        if os.environ.get("PVC_DEBUG"):
            raise
        return _explain(session, error)


def _explain(session: Session, error: Exception) -> int:
    if isinstance(error, ClientError):
        status = error.status if isinstance(error, ApiError) else 0
        field = error.field if isinstance(error, ApiError) else ""
        write_error(session, error.message, hint=error.hint, code=error.code, status=status, field=field)
        return exits.exit_code(error)
    if isinstance(error, click.ClickException):
        return _explain_usage(session, error)
    write_error(
        session,
        f"pvc itself has failed: {type(error).__name__}: {error}",
        hint="this is a fault in PVC; PVC_DEBUG=1 shows where, please report it",
        code="cli.internal",
    )
    return exits.REJECTED


def _explain_usage(session: Session, error: click.ClickException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return exits.USAGE
    ctx = getattr(error, "ctx", None)
    hint = getattr(error, "hint", "") or (f"{ctx.command_path} -h shows how it is used" if ctx else "")
    write_error(session, error.format_message().rstrip("."), hint=hint, code="cli.usage")
    return exits.USAGE if error.exit_code == 2 else exits.REJECTED


def _reader_gone() -> int:
    """What reads our output has seen enough (`pvc vm list | head`): no failure. Keep Python from flushing into it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.OK


if __name__ == "__main__":
    sys.exit(main())
