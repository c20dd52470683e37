"""Deliveries in the traces: below the record that they tell of, in its chain of causes, and never with its contents."""

from __future__ import annotations

import asyncio

from pvc.sim.loop import run_virtual
from pvc.spans import Span
from pvc.webhooks.course import Answer
from tests.support.deliveries import World


class Ear:
    """A tracer that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Span] = []

    def tell(self, span: Span) -> None:
        self.heard.append(span)


def delivered(answers: list[Answer], **settings: object) -> tuple[World, list[Span]]:
    """A cluster in which three VMs were defined and told of, and the spans of that."""
    ear = Ear()

    async def run() -> World:
        world = World(lambda ids: answers.pop(0) if len(answers) > 1 else answers[0], types=("vm.*",), **settings)
        world.tracer = ear
        await world.begin()
        world.elect()
        await asyncio.sleep(1)
        world.happen(3)
        await world.until_done()
        return world

    world = run_virtual(run())
    return world, ear.heard


def test_each_try_has_a_span_below_the_record_that_it_tells_of() -> None:
    world, spans = delivered([Answer(status=503), Answer(status=204)], rate=1000)
    told = [entry.record for entry in world.cluster.entries if entry.record.events[0].type.startswith("vm.")]
    assert [span.parent for span in spans] == [told[0].id, *(record.id for record in told)], "the first one twice"
    assert [span.error for span in spans] == ["webhook.not_delivered", "", "", ""]
    assert [span.attributes["http.response.status_code"] for span in spans] == [503, 204, 204, 204]
    for span, record in zip(spans[1:], told, strict=True):
        assert (span.name, span.trace, span.record) == ("webhook.deliver", record.cause or record.id, "")
        assert span.attributes["pvc.webhook"] == world.hook.id
        assert span.ended_us - span.began_us >= 10_000, "as long as the receiver took"


def test_a_request_with_many_events_is_in_the_trace_of_each_record() -> None:
    world, spans = delivered([Answer(status=200)], rate=1000, batch=10)
    assert len(world.posted) < 3
    told = {entry.record.id for entry in world.cluster.entries if entry.record.events[0].type.startswith("vm.")}
    assert {span.parent for span in spans} == told and len(spans) == 3
