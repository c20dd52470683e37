"""What a try to deliver tells the traces: each record that was in it has a span in the trace of its chain of causes."""

from __future__ import annotations

from collections.abc import Sequence

from pvc.spans import Span, Tracer
from pvc.webhooks.course import Answer
from pvc.webhooks.message import Item

__all__ = ["FAILED", "tell_delivery"]

FAILED = "webhook.not_delivered"


def tell_delivery(
    tracer: Tracer, node: str, hook: str, items: Sequence[Item], answer: Answer, began_us: int, ended_us: int
) -> None:
    """Tell of one request to the endpoint `hook`, whatever came of it."""
    for item in {item.record.id: item for item in items}.values():
        tracer.tell(
            Span(
                name="webhook.deliver",
                trace=item.chain or item.record.id,
                parent=item.record.id,
                began_us=began_us,
                ended_us=ended_us,
                error="" if answer.good else FAILED,
                attributes={
                    "pvc.node": node,
                    "pvc.webhook": hook,
                    "pvc.position": item.position,
                    "http.response.status_code": answer.status,
                },
            )
        )
