"""Signs what is sent, and posts it: for deliveries, pings, and the tests that an admin asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from pvc.clock import Clock, Rng, new_ulid
from pvc.errors import PvcError
from pvc.events.webhook import Ownership
from pvc.projections.webhook_state import Webhook
from pvc.webhooks.course import Answer
from pvc.webhooks.cursor import Try
from pvc.webhooks.message import MANY, ONE, PING, ping_body
from pvc.webhooks.post import Outgoing, Post
from pvc.webhooks.signing import headers_of
from pvc.webhooks.store import WebhookStore

CHALLENGE_BYTES = 16
EXCERPT_CHARS = 200


class Sender:
    """Sends for one daemon."""

    def __init__(
        self,
        store: WebhookStore,
        post: Post,
        readable: Callable[[bytes], Awaitable[bytes]],
        clock: Clock,
        rng: Rng,
    ) -> None:
        self._store = store
        self._post = post
        self._readable = readable
        self._clock = clock
        self._rng = rng

    async def send(self, hook: Webhook, message: str, body: bytes) -> Answer:
        """Sign and post. Raises Unavailable where the key or the newest secret cannot be had."""
        if hook.settings.reveal_names:
            body = await self._readable(body)
        signed = headers_of(hook, message, body, await self._store.key(), self._clock.wall_us())
        kind = MANY if hook.settings.batch > 1 else ONE
        return await self._post(
            Outgoing(
                hook=hook.id,
                url=hook.settings.url,
                allow_private=hook.settings.allow_private,
                headers={"Content-Type": f"{kind}; charset=utf-8", **signed},
                body=body,
            )
        )

    async def ping(self, hook: Webhook, cluster: str, number: int = 1) -> tuple[Answer, Try]:
        """Ask the receiver to prove itself. A good answer is one that does. Never raises PvcError."""
        now_us = self._clock.wall_us()
        challenge = self._rng.randbytes(CHALLENGE_BYTES).hex()
        ping_id = f"ping-{new_ulid(self._clock, self._rng)}"
        body = ping_body(cluster, hook.name, ping_id, challenge, now_us, batched=hook.settings.batch > 1)
        try:
            answer = await self.send(hook, ping_id, body)
        except PvcError as error:
            answer = Answer(error=error.message)
        if answer.good and hook.settings.ownership is Ownership.CHALLENGE and challenge not in answer.body:
            why = f"it answered {answer.status} without the ping's challenge in the body"
            answer = replace(answer, status=0, error=why)
        one = Try(
            id=ping_id,
            first=0,
            events=1,
            type=PING,
            time_us=now_us,
            number=number,
            status=answer.status,
            latency_ms=answer.latency_ms,
            error=answer.error,
            body=answer.body[:EXCERPT_CHARS],
            outcome="delivered" if answer.good else "failed",
        )
        return answer, one

    async def forget(self, hook_id: str) -> None:
        """Let go of what is open to an endpoint."""
        await self._post.forget(hook_id)
