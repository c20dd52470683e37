"""The one small tree of errors: each has a stable code, a message for a person, and a hint that says what to do.

Raised at the point of knowledge, translated once at the border: the gateway turns an error into an HTTP
status (`status`), the CLI turns the reply into an exit code. The codes are part of the API.
"""

from __future__ import annotations


class PvcError(Exception):
    """Anything PVC refuses or fails to do.

    `code` is stable and dotted (`vm.not_found`), `message` names the thing and the value, `hint` the remedy,
    `field` the input field at fault when there is one.
    """

    status = 500
    default_code = "internal"

    def __init__(self, message: str, *, code: str | None = None, hint: str = "", field: str = "") -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.message = message
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Rejected(PvcError):
    """A well-formed command that the present state does not allow. Nothing was changed."""

    status = 409
    default_code = "rejected"


class InvalidInput(Rejected):
    """A field's value cannot be accepted, whatever the state. Nothing was changed."""

    status = 422
    default_code = "input.invalid"


class NotFound(Rejected):
    """A command or query names something that does not exist. Nothing was changed."""

    status = 404
    default_code = "not_found"


class ChangedMeanwhile(Rejected):
    """What the command is about is not any more as its sender has seen it. Nothing was changed."""

    status = 412
    default_code = "precondition.changed"


class Unauthenticated(PvcError):
    """No valid credentials came with the request."""

    status = 401
    default_code = "access.unauthenticated"


class Forbidden(PvcError):
    """The principal is known, but its role does not allow this."""

    status = 403
    default_code = "access.forbidden"


class TooLarge(PvcError):
    """A record or a request body is over its cap. Nothing was changed."""

    status = 413
    default_code = "input.too_large"


class Conflict(PvcError):
    """The log's head is not where the append expected it. Nothing was written; fold on and decide again."""

    status = 409
    default_code = "log.conflict"


class Unavailable(PvcError):
    """Something PVC depends on does not answer or has no room. Nothing was written; trying again is safe."""

    status = 503
    default_code = "unavailable"


class OutcomeUnknown(PvcError):
    """The deadline passed before it could be learned whether an append took place. Ask by command id later."""

    status = 504
    default_code = "log.outcome_unknown"


class LogDamaged(PvcError):
    """The log is not the one that was seen before: a broken chain, a rewound head, another incarnation. Writes stop."""

    status = 503
    default_code = "log.damaged"


class DriverError(PvcError):
    """An effect failed for good (bad definition, missing file); the same call would fail again."""

    status = 502
    default_code = "driver.failed"


def internal_error(error: Exception) -> PvcError:
    """What the outside is told of a defect: its kind only. Whoever caught it has written the rest to the node's log."""
    return PvcError(
        f"internal error: {type(error).__name__}",
        hint="this is a defect in PVC; the node's log has the details",
    )
