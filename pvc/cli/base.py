"""What every command of `pvc` has: -h with an example, -o, -c and -v; and near names where a word is wrong."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from pvc.cli.exits import INTERRUPTED
from pvc.cli.session import Session, pass_session

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

Run = Callable[..., int | None]


class PvcGroup(click.Group):
    """A group that knows near words."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(context_settings=CONTEXT, no_args_is_help=True, **attributes)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in Click, but a word that does not exist is answered with those that are near."""
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None and not ctx.resilient_parsing:
            near = difflib.get_close_matches(word, self.list_commands(ctx), n=3, cutoff=0.5)
            error = UsageError(f"{ctx.command_path} has no command {word!r}", ctx)
            error.hint = f"did you mean {' or '.join(near)}?" if near else f"{ctx.command_path} -h lists them"
            raise error
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The epilog as it was written."""
        _write_epilog(self.epilog, formatter)


class PvcCommand(click.Command):
    """A command with explained arguments, the options that all have, and an epilog that is left as it is."""

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        params: Sequence[click.Parameter] = (),
        about: dict[str, str] | None = None,
        example: str = "",
        data: bool = True,
        **attributes: Any,
    ) -> None:
        """`run(session, **values)`; `about` explains arguments by name; `data` gives it -o."""
        common = [*([output_option()] if data else []), connection_option(), verbose_option()]
        super().__init__(
            name,
            callback=_with_session(run),
            params=[*params, *common],
            context_settings=CONTEXT,
            epilog=f"Example:\n{_indented(example)}" if example else None,
            **attributes,
        )
        self._about = about or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Arguments, then options."""
        arguments = [param for param in self.params if isinstance(param, click.Argument)]
        rows = [(param.human_readable_name.strip("[]."), self._about.get(param.name or "", "")) for param in arguments]
        if any(text for _, text in rows):
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The epilog as it was written."""
        _write_epilog(self.epilog, formatter)


class UsageError(click.UsageError):
    """A wrong option or argument, with a hint."""

    hint = ""


def usage_error(message: str, hint: str) -> UsageError:
    """A wrong option or argument, with a hint."""
    error = UsageError(message)
    error.hint = hint
    return error


def output_option() -> click.Option:
    """`-o`: how the answer is written."""
    return click.Option(
        ["-o", "--output"],
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        expose_value=False,
        is_eager=True,
        callback=_keep_output,
        help="How to write the answer.",
    )


def connection_option() -> click.Option:
    """`-c`, which may stand before the command or after it."""
    return click.Option(
        ["-c", "--connection"],
        metavar="NAME",
        hidden=True,
        expose_value=False,
        is_eager=True,
        callback=_keep_connection,
    )


def verbose_option() -> click.Option:
    """`-v`: the codes of errors too."""
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_keep_verbose,
        help="Show codes of errors, and positions.",
    )


def _keep_output(ctx: click.Context, _: click.Parameter, value: str) -> None:
    if (session := ctx.find_object(Session)) is not None:
        session.output = value


def _keep_connection(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value and (session := ctx.find_object(Session)) is not None:
        session.connection = value


def _keep_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and (session := ctx.find_object(Session)) is not None:
        session.verbose = True


def _with_session(run: Run) -> Callable[..., int | None]:
    @click.pass_context
    def call(ctx: click.Context, /, **values: Any) -> int | None:
        try:
            return run(pass_session(ctx), **values)
        except KeyboardInterrupt:  # here, because Click would write an empty line about it
            sys.stderr.write("\n" if sys.stderr.isatty() else "")
            raise click.exceptions.Exit(INTERRUPTED) from None

    return call


def _write_epilog(epilog: str | None, formatter: click.HelpFormatter) -> None:
    if epilog:
        formatter.write_paragraph()
        formatter.write(f"{epilog}\n")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
