"""How long a session surely lives, worked out from when its requests were sent and what their replies prove.

The law: when a client's lease is not over, no server lets anyone see that client's session gone. A server expires a
session no earlier than the session's time-out after the leader last heard of it, so the client must know a moment that
is no later than that. With ZooKeeper the plain answer, "I sent something at t0 and it was answered", is not enough:

1. A follower answers reads and pings by itself, even while it has already lost the leader. So only *writes* count
   here (`Bridge.check`, a transaction that changes nothing): a write is answered by the leader.
2. A leader that was deposed without noticing answers too, except that a write needs a majority. A majority that agreed
   to a write sent at t was not following a later leader yet; a later leader begins by giving all sessions their full
   time-out. So a write sent at t and answered proves that no other leader expires us before t + time-out.
3. A leader does not take a follower's forwarded write for a sign of life: followers tell it whom they heard of when it
   pings them, at every half tick. Now let A, C and D be writes in one connection. A was answered at least half a tick
   before C was sent: so a ping that followed A at the follower was sent before C's reply, and, as messages keep their
   order, the follower had answered that ping before the client saw C's reply. D was sent after that; it
   followed the ping's answer to the leader. So D's reply proves that the leader has heard of A: not before A was sent.
4. A new connection (the handshake) goes to the leader itself, at once: with the first write D answered in it, it counts
   from when it was begun, with no A and C.

Half a tick is at most a quarter of the time-out, as servers grant no less than two ticks. What a clock may be off
against another in its rate is taken off. Times are those of sending, read before; the clock goes on while the machine
sleeps. The time-out is the granted one. What is proven stays so for as long as the session lives, connected or not.
"""

from __future__ import annotations

from collections import deque

from pvc.clock import Clock

RELAY_PART = 1 / 4
"""Of the time-out: the longest that a follower keeps to itself whom it heard of, see 3."""

RENEWAL_PART = 1 / 12
"""Of the time-out: the pause between writes, so that the lease swings between a half and 0.6 of the time-out.

A third of RELAY_PART: then A comes four writes before D.
"""

DRIFT_PART = 0.05
"""Of the time-out: two clocks are not that far apart in rate, even while one is being corrected."""


class Lease:
    """The lease of one client's session after session."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timeout_s = 0.0
        self._heard: float | None = None
        """The leader has surely heard of the session at this time or later."""
        self._handshake = 0.0
        self._answered: deque[tuple[float, float]] = deque()
        """Writes of this connection: when sent, when answered."""

    def connected(self, began: float, timeout_s: float, *, same_session: bool) -> None:
        """There is a new connection, whose handshake was begun at `began`, and which grants `timeout_s`."""
        if not same_session:
            self._heard = None
        self._timeout_s = timeout_s
        self._handshake = began
        self._answered.clear()

    def answered(self, sent: float) -> None:
        """A write was sent at `sent` and has just been answered. Never two in flight at once."""
        if sent < self._handshake:
            return  # begun in an earlier connection
        now = self._clock.monotonic()
        proven = self._handshake
        if self._answered:
            # C is the last one; A the last that was answered early enough before C was sent.
            early = self._answered[-1][0] - RELAY_PART * self._timeout_s
            while len(self._answered) > 1 and self._answered[1][1] <= early:
                self._answered.popleft()
            if self._answered[0][1] <= early:
                proven = max(proven, self._answered[0][0])
        self._answered.append((sent, now))
        self._heard = proven if self._heard is None else max(self._heard, proven)

    def lost(self) -> None:
        """The session is over."""
        self._heard = None
        self._answered.clear()

    def left_s(self) -> float:
        """What is left of the lease, 0.0 if nothing."""
        if self._heard is None:
            return 0.0
        return max(0.0, self._heard + self._timeout_s * (1 - DRIFT_PART) - self._clock.monotonic())
