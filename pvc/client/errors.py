"""What can go wrong between a program and a gateway: each with a stable code, a message and a hint for a person.

Of what the gateway refuses there is a class for each kind, so that one can write `except NotFound`. What exactly it was
is in `code` (docs/errors.md), and `field` names the field at fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc.client.operations import Begun


class ClientError(Exception):
    """Anything that keeps a call from succeeding. `code` is stable and dotted, `hint` says the remedy."""

    default_code = "client.failed"

    begun: Begun | None = None
    """What the command has begun, where it was accepted and its outcome was waited for (`wait=`): with its id, and the
    secret or token that it made, which is shown nowhere else."""

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

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        hint: str = "",
        field: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
        self.field = field
        self.retry_after_s = retry_after_s
        """Seconds after which to come back, where the gateway says so."""


class InvalidInput(ApiError):
    """A value cannot be accepted (400, 413, 415, 422): `field` says which. Asking again in the same way is no use."""


class Unauthenticated(ApiError):
    """There is no valid token (401)."""


class Forbidden(ApiError):
    """The token's roles do not allow it, or not for this VM (403)."""


class NotFound(ApiError):
    """Something named does not exist, or may not be seen (404)."""


class Conflict(ApiError):
    """The present state does not allow it (409)."""


class PreconditionFailed(ApiError):
    """It has changed since it was read (412)."""


class TooManyRequests(ApiError):
    """More was asked for than one may (429), and `retry_after_s` is longer than the call's deadline."""


class Unavailable(ApiError):
    """The log or the node cannot answer now (503), and has not within the call's deadline. Nothing was changed."""


class OutcomeUnknown(ApiError):
    """The gateway does not know what became of it (504). Ask again with the same key."""


class Unreachable(ClientError):
    """No gateway answers where the connection points to, or it stopped answering."""

    default_code = "client.unreachable"

    other_kind = False
    """Whether something else is there, and says that all is well: it does not become a gateway by asking again."""


class ReplyTooLarge(ClientError):
    """A reply, or one line of a stream, is longer than any that a gateway gives in earnest. It was read no further."""

    default_code = "client.reply_too_large"

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            hint="see whether it is your gateway that answers there (`pvc connection list`), and ask for less at once; "
            "a command may have been carried out all the same",
        )


class WaitTimedOut(ClientError):
    """The command was accepted, but its outcome did not come in time. It goes on regardless."""

    default_code = "client.wait_timed_out"


class OperationFailed(ClientError):
    """The command was accepted, and has failed: `operation` is what is known of it."""

    default_code = "client.operation_failed"

    def __init__(self, message: str, *, code: str = "", hint: str = "", operation: Any = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.operation = operation


class ConfigError(ClientError):
    """The connections on this machine do not say which gateway to talk to, or cannot be used."""

    default_code = "client.config"


_KINDS: dict[int, type[ApiError]] = {
    400: InvalidInput,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: InvalidInput,
    415: InvalidInput,
    422: InvalidInput,
    428: PreconditionFailed,
    429: TooManyRequests,
    503: Unavailable,
    504: OutcomeUnknown,
}


def refusal(status: int, problem: dict[str, Any], retry_after_s: float | None = None) -> ApiError:
    """The error that a problem document tells of. Raises KeyError where it is none."""
    return _KINDS.get(status, ApiError)(
        status,
        problem["detail"],
        code=problem.get("code", ""),
        hint=problem.get("hint", ""),
        field=problem.get("field", ""),
        retry_after_s=retry_after_s,
    )
