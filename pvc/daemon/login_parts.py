"""Reads from the configuration at which issuer people log in, and what its word counts for."""

from __future__ import annotations

from pathlib import Path

from pvc.clock import Clock
from pvc.daemon.config import OidcConfig
from pvc.errors import InvalidInput
from pvc.gateway.login_parts import LoginParts
from pvc.oidc.issuer import Issuer
from pvc.oidc.web import Web


def make_login(config: OidcConfig, clock: Clock) -> LoginParts | None:
    """None where there is no issuer; it is not asked anything yet. Raises InvalidInput."""
    if not config.issuer:
        return None
    issuer = Issuer(
        config.issuer,
        config.client_id,
        client_secret=_secret(config.client_secret_file),
        scopes=config.scopes,
        needed=(config.name_claim, config.groups_claim),
        web=Web(ca_file=_readable("oidc.ca_file", config.ca_file)),
        clock=clock,
    )
    return LoginParts(
        issuer=issuer,
        name_claim=config.name_claim,
        groups_claim=config.groups_claim,
        roles=config.roles,
        lifetime_s=config.lifetime_s,
        device=config.device,
        clock=clock,
    )


def _secret(file: str) -> str:
    secret = _read("oidc.client_secret_file", file).strip() if file else ""
    if file and not secret:
        raise _bad(f"oidc.client_secret_file {file} is empty", "write the secret into it")
    return secret


def _readable(field: str, file: str) -> str:
    if file:
        _read(field, file)
    return file


def _read(field: str, file: str) -> str:
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise _bad(f"{field} {file} cannot be read: {reason}", "mend the path or the file") from error


def _bad(message: str, hint: str) -> InvalidInput:
    return InvalidInput(message, code="config.invalid", hint=hint)
