"""What can go wrong between an admin and a gateway: each with a stable code, a message and a hint for a person."""

from __future__ import annotations


class ClientError(Exception):
    """Anything that keeps a call from succeeding. `code` is stable and dotted, `hint` says the remedy."""

    default_code = "client.failed"

    def __init__(self, message: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ApiError(ClientError):
    """The gateway refused or failed: its problem document, with the HTTP status and the field at fault."""

    default_code = "client.bad_reply"

    def __init__(self, status: int, message: str, *, code: str = "", hint: str = "", field: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
        self.field = field


class Unreachable(ClientError):
    """No gateway answers where the connection points to, or it stopped answering."""

    default_code = "client.unreachable"


class WaitTimedOut(ClientError):
    """The command was accepted, but its outcome did not come in time. It goes on regardless."""

    default_code = "client.wait_timed_out"


class ConfigError(ClientError):
    """The connections on this machine do not say which gateway to talk to, or cannot be used."""

    default_code = "client.config"
