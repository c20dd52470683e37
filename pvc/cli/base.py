"""What every command of `pvc` has: -h with an example, -o, -c and -v; and near names where a word is wrong.

What only reads can be asked of all clusters (`-c all`), and watched (`--watch`), whichever command it is.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

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
        reads: bool | None = None,
        **attributes: Any,
    ) -> None:
        """`run(session, **values)`; `about` explains arguments by name; `data` gives it -o.

        `reads`: that it may be asked of all clusters, and watched; as every list, if nothing is said.
        """
        self.reads = name == "list" if reads is None else reads
        output = output_option(wide=self.reads)
        watch = [WatchOption()] if self.reads else []
        common = [*watch, *([output] if data else []), connection_option(), verbose_option()]
        super().__init__(
            name,
            callback=_with_session(run, reads=self.reads),
            params=[*params, *common],
            context_settings=CONTEXT,
            epilog=f"Example:\n{_indented(example)}" if example else None,
            **attributes,
        )
        self.about = about or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As in Click, but a bare --watch takes no word after it for its value."""
        if self.reads:
            end = args.index("--") if "--" in args else len(args)
            args = [f"--watch={ON_EVENTS}" if arg in WATCH and i < end else arg for i, arg in enumerate(args)]
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            self._check_text(ctx)
        return rest

    def _check_text(self, ctx: click.Context) -> None:
        """Bytes that are no UTF-8 can be in the name of a local file (FILE), and in nothing that a gateway is told."""
        for param in self.params:
            local = (param.metavar or param.name or "").upper().startswith("FILE")
            for text in () if local else _texts(ctx.params.get(param.name or "")):
                if _NO_UTF8.search(text):
                    shown = _NO_UTF8.sub(lambda byte: f"\\x{ord(byte[0]) & 0xFF:02x}", text)
                    message = f"Invalid value for {param.get_error_hint(ctx)}: '{shown}' is no UTF-8 text"
                    error = UsageError(message, ctx)
                    error.hint = "names and texts are UTF-8: see how your terminal or script encodes them"
                    raise error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Arguments, then options."""
        arguments = [param for param in self.params if isinstance(param, click.Argument)]
        rows = [(param.human_readable_name.strip("[]."), self.about.get(param.name or "", "")) for param in arguments]
        if any(text for _, text in rows):
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The epilog as it was written."""
        _write_epilog(self.epilog, formatter)


_NO_UTF8 = re.compile("[\ud800-\udfff]")
"""What Python has in place of the bytes of an argument that it cannot decode."""


def _texts(value: Any) -> Iterator[str]:
    """All texts in the value of a parameter."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


WATCH = ("-w", "--watch")
ON_EVENTS = "events"


class Watch(NamedTuple):
    """That a screen is to be drawn again: when something happens, and at least so often."""

    every_s: float | None = None


class WatchOption(click.Option):
    """`--watch[=SECONDS]`, whose value is optional."""

    def __init__(self) -> None:
        super().__init__(
            WATCH,
            type=_Seconds(),
            metavar="SECONDS",
            help="Go on showing it, anew whenever something happens, and at least so often. Ctrl-C ends it.",
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """As in Click, but for the sign that a value is optional."""
        return f"{', '.join(WATCH)}[=SECONDS]", self.help or ""


class _Seconds(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.3 only
    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Watch:
        if isinstance(value, Watch):
            return value
        try:
            seconds = None if value == ON_EVENTS else float(value)
        except ValueError:
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        if seconds is not None and not LEAST_WATCH_S <= seconds <= MOST_WATCH_S:
            self.fail(f"{value} is not between {LEAST_WATCH_S:g} and {MOST_WATCH_S:g} seconds", param, ctx)
        return Watch(seconds)


LEAST_WATCH_S, MOST_WATCH_S = 0.5, 86_400.0
"""More often than twice a second nobody reads, and it costs every gateway that is asked."""


class UsageError(click.UsageError):
    """A wrong option or argument, with a hint."""

    hint = ""


def usage_error(message: str, hint: str) -> UsageError:
    """A wrong option or argument, with a hint."""
    error = UsageError(message)
    error.hint = hint
    return error


def output_option(*, wide: bool = False) -> click.Option:
    """`-o`: how the answer is written; `wide` where there may be a table that a screen has no room for."""
    return click.Option(
        ["-o", "--output"],
        type=click.Choice(["table", *(["wide"] if wide else []), "json", "yaml"]),
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
        shell_complete=_connection_names,
        expose_value=False,
        is_eager=True,
        callback=_keep_connection,
    )


def _connection_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    from pvc.cli.complete import connection_names  # which is needed at the Tab key alone

    return connection_names(ctx, param, incomplete)


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


def _with_session(run: Run, *, reads: bool) -> Callable[..., int | None]:
    @click.pass_context
    def call(ctx: click.Context, /, **values: Any) -> int | None:
        session = pass_session(ctx)
        watch: Watch | None = values.pop("watch", None) if reads else None
        if watch is not None and values.get("at"):
            raise usage_error("--watch and --at exclude each other", "the past does not change")

        def ask(session: Session) -> int | None:
            return run(session, **values)

        try:
            if watch is not None:
                from pvc.cli.live import run_watching  # only where something is watched

                return run_watching(session, ask, ctx.command_path, watch.every_s)
            if reads and session.everywhere:
                from pvc.cli.everywhere import run_everywhere  # only where several are asked

                return run_everywhere(session, ask)
            return ask(session)
        except BrokenPipeError:  # here, because Click would end with 1
            raise click.exceptions.Exit(session.ends_with) from None
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
