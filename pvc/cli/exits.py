"""What the exit code of `pvc` says to a script."""

from __future__ import annotations

from pvc.client.errors import ApiError, ClientError, ConfigError, Unreachable, WaitTimedOut

OK = 0
REJECTED = 1
USAGE = 2
NOT_FOUND = 3
DENIED = 4
UNAVAILABLE = 5
OUTCOME_FAILED = 6
WAIT_TIMED_OUT = 7
INTERRUPTED = 130

TEXT = """\
0 done; 1 refused or failed; 2 wrong option or argument;
3 not found; 4 not allowed; 5 cluster not available;
6 accepted, but its outcome was a failure (--wait);
7 outcome did not come in time (--wait); 130 interrupted."""

_BY_STATUS = {
    400: USAGE,
    401: DENIED,
    403: DENIED,
    404: NOT_FOUND,
    413: USAGE,
    415: USAGE,
    422: USAGE,
    429: UNAVAILABLE,
    502: REJECTED,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
    507: UNAVAILABLE,
}


def exit_code(error: ClientError) -> int:
    """The exit code that an error of the client ends in."""
    if isinstance(error, ApiError):
        return _BY_STATUS.get(error.status, REJECTED)
    if isinstance(error, WaitTimedOut):
        return WAIT_TIMED_OUT
    if isinstance(error, Unreachable):
        return DENIED if error.code == "client.socket_forbidden" else UNAVAILABLE
    if isinstance(error, ConfigError):
        return UNAVAILABLE if error.code == "client.no_connection" else USAGE
    return REJECTED
