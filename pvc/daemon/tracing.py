"""Sends spans to an OTLP receiver, where one is configured; OpenTelemetry is not even imported where none is.

Ids are not the library's to choose here: they are made of record ids (`pvc.spans`), so that what nodes tell apart from
each other meets in one trace. So spans are handed to its exporter as they are, when they are over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from pvc import __version__
from pvc.daemon.config import Config
from pvc.errors import InvalidInput
from pvc.spans import Span, Tracer, span_id_of, trace_id_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

logger = logging.getLogger(__name__)

EXPORT_TIMEOUT_S = 5
"""For one delivery, which a thread makes; what cannot be delivered is dropped, and nobody waits for it."""

END_TIMEOUT_S = 3.0
"""For the last delivery when the daemon stops."""

_SAMPLED = 1


@contextlib.asynccontextmanager
async def tracing(config: Config) -> AsyncIterator[Tracer | None]:
    """A tracer within the block; None where nothing is traced. Raises InvalidInput where a file cannot be read."""
    wanted = config.tracing
    if not wanted.endpoint:
        yield None
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    exporter = OTLPSpanExporter(
        endpoint=wanted.endpoint,
        certificate_file=wanted.ca or None,
        headers=_headers(wanted.token_file),
        timeout=EXPORT_TIMEOUT_S,
    )
    processor = BatchSpanProcessor(exporter)
    try:
        yield OtlpTracer(processor, config.node_name, sample=wanted.sample)
    finally:
        # In a thread that may be left behind: a receiver that does not answer must not keep the daemon from ending.
        ending = threading.Thread(target=processor.shutdown, name="tracing end", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, END_TIMEOUT_S)


def _headers(token_file: str) -> dict[str, str]:
    if not token_file:
        return {}
    try:
        return {"Authorization": f"Bearer {Path(token_file).read_text().strip()}"}
    except OSError as error:
        raise InvalidInput(
            f"tracing.token_file {token_file} cannot be read: {error.strerror}",
            code="config.invalid",
            hint="give a file that pvcd may read, or none",
        ) from error


class OtlpTracer:
    """Hands spans to a processor of OpenTelemetry's."""

    def __init__(self, processor: SpanProcessor, node: str, *, sample: float = 1.0) -> None:
        from opentelemetry.sdk.resources import Resource

        self._processor = processor
        self._resource = Resource.create(
            {"service.name": "pvcd", "service.version": __version__, "service.instance.id": node}
        )
        self._below = int(sample * (1 << 64))

    def tell(self, span: Span) -> None:
        """Hand it on, unless its trace is left out: by its id, so that all nodes leave out the same."""
        trace = trace_id_of(span.trace)
        if trace & ((1 << 64) - 1) >= self._below:  # the random part of a record's id
            return
        try:
            self._processor.on_end(self._made(span, trace))
        except Exception:
            # A defect in what only watches must not end what it watches.
            logger.exception("tracing: a span was lost name=%s", span.name)

    def _made(self, span: Span, trace: int) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(trace_id: int, span_id: int, *, remote: bool = False) -> SpanContext:
            return SpanContext(trace_id, span_id, is_remote=remote, trace_flags=TraceFlags(_SAMPLED))

        own = span_id_of(span.record) if span.record else secrets.randbits(64) or 1
        links = []
        if span.link:
            _, trace_hex, span_hex, _ = span.link.split("-")
            links.append(Link(context(int(trace_hex, 16), int(span_hex, 16), remote=True)))
        return ReadableSpan(
            name=span.name,
            context=context(trace, own),
            parent=context(trace, span_id_of(span.parent), remote=True) if span.parent else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            links=links,
            kind=SpanKind.SERVER if span.server else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.began_us * 1000,
            end_time=max(span.ended_us, span.began_us) * 1000,
        )
