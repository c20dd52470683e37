"""The command `pvcd`. What it needs is imported when it runs, so that its help and version come at once."""

from __future__ import annotations

import asyncio
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pvc import __version__
from pvc.errors import PvcError

if TYPE_CHECKING:
    from pvc.daemon.config import Config

EXAMPLE = "\b\nExample:\n  pvcd --config /etc/pvc/pvc.toml"


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLE)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/pvc/pvc.toml"),
    show_default=True,
    help="Configuration file (TOML).",
)
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
@click.option("--fingerprint", is_flag=True, help="Show the SHA-256 of the gateway's certificate and exit.")
@click.option("--examine", is_flag=True, help="Print what is found wrong with this node, for pvc doctor, and exit.")
@click.option("--debug", is_flag=True, help="Log more.")
@click.version_option(__version__)
def main(config_path: Path, check: bool, fingerprint: bool, examine: bool, debug: bool) -> None:
    """Run a PVC node: it keeps this machine's VMs as the cluster's log says, and serves the API."""
    from pvc.daemon.config import load_config
    from pvc.daemon.journal import set_up_journal

    set_up_journal(debug=debug)
    if examine:
        click.echo(_findings(config_path))
        return
    try:
        config = load_config(config_path)
        if check:
            click.echo(f"{config_path} is valid")
            return
        if fingerprint:
            click.echo(_fingerprint(config))
            return
        set_up_journal(debug=debug, level=config.logging.level, form=config.logging.format)
        _allow_many_files()
        asyncio.run(_run(config))
    except PvcError as error:
        click.echo(f"pvcd: {error.message}", err=True)
        if error.hint:
            click.echo(f"      {error.hint}", err=True)
        raise SystemExit(1) from None


def _findings(config_path: Path) -> str:
    import msgspec

    from pvc.daemon.examine import examine

    return msgspec.json.encode(asyncio.run(examine(config_path))).decode()


def _fingerprint(config: Config) -> str:
    """Of the certificate that clients see. Raises PvcError."""
    from pvc.daemon.contact import fingerprint
    from pvc.daemon.own_certificate import certificate_path
    from pvc.errors import NotFound

    path = certificate_path(config)
    if path is None:
        raise NotFound(
            "the gateway serves this machine alone, without a certificate",
            code="gateway.no_certificate",
            hint="gateway.listen in the configuration says where it serves",
        )
    if not path.exists():
        raise NotFound(
            f"there is no certificate {path}",
            code="gateway.no_certificate",
            hint="pvcd makes one when it starts, unless gateway.tls_cert names another",
        )
    return fingerprint(path)


MAX_FILES = 65_536
"""Many times what the gateway's streams and requests need; some programs that we start look at each possible file."""


def _allow_many_files() -> None:
    """Each reader of the events holds a file; a process is usually given a thousand, and may take more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(config: Config) -> None:
    from pvc.daemon.compose import run_daemon

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_daemon(config, stop)


if __name__ == "__main__":
    main()
