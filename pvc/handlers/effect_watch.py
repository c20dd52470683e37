"""What a node's effects took: for the meters always, and as spans of the command that they carry out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pvc.about import RECORD, about
from pvc.clock import Clock
from pvc.errors import PvcError
from pvc.meters import Meters
from pvc.spans import Span, Tracer


class EffectWatch:
    """Watches one node's effects."""

    def __init__(
        self,
        node: str,
        clock: Clock,
        meters: Meters | None = None,
        tracer: Tracer | None = None,
        chain_of: Callable[[str], str] = str,
    ) -> None:
        """`chain_of`: what the chain of causes of a record began with."""
        self.meters = meters or Meters()
        self._node = node
        self._clock = clock
        self._tracer = tracer
        self._chain_of = chain_of

    @contextlib.contextmanager
    def doing(self, name: str, vm_id: str, cause: str) -> Iterator[None]:
        """Measure an effect on a VM; `cause` is the record of the request that it carries out, if it does."""
        began_s, began_us, error = self._clock.monotonic(), self._clock.wall_us(), ""
        try:
            with about(RECORD, cause):
                yield
        except Exception as failure:
            error = failure.code if isinstance(failure, PvcError) else "internal"
            self.meters.effect_failures.add(name)
            raise
        finally:
            self.meters.effect_seconds.observe(self._clock.monotonic() - began_s, name)
            if self._tracer is not None and cause:
                span = Span(
                    name=f"vm.{name}",
                    trace=self._chain_of(cause),
                    parent=cause,
                    began_us=began_us,
                    ended_us=self._clock.wall_us(),
                    error=error,
                    attributes={"pvc.node": self._node, "pvc.vm": vm_id},
                )
                self._tracer.tell(span)
