"""From a command to its effect: a start asked for through the API, until the client is told that the VM runs."""

from __future__ import annotations

import itertools

from tests.bench.daemon import Api, daemon, prepare
from tests.bench.measure import Bench, Row, compare, percentile, stopwatch
from tests.bench.records import Chain, a_cluster, vm_name

VMS = 8
"""As many as have room on the simulated node at once."""


async def measure(bench: Bench) -> list[Row]:
    home = bench.home / "daemon"
    await prepare(home, a_cluster(Chain(), VMS))
    starts: list[list[float]] = []
    tags: list[list[float]] = []
    with daemon(home) as api:
        client = Client(api)
        for _ in range(bench.rounds + 1):
            starts.append([])
            tags.append([])
            for number in itertools.islice(itertools.cycle(range(VMS)), bench.size(12, 24)):
                starts[-1].append(client.start(vm_name(number)))
                tags[-1].append(client.set_autostart(vm_name(number)))
                client.stop(vm_name(number))
    starts, tags = starts[1:], tags[1:]  # the first round warms up
    p50, command_p50 = ([percentile(round_, 50) for round_ in side] for side in (starts, tags))
    p99 = percentile([value for round_ in starts for value in round_], 99)
    note = f"p50; p99 is {p99:.1f} ms; it is two commits, a reconcile and a told event, one after the other"
    return [compare("`vm start` until its VmStarted is told", "ms", p50, command_p50, "command, no effect", note=note)]


class Client:
    """Asks and waits, as `pvc --wait` does."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def start(self, name: str) -> float:
        """Milliseconds from before the request until the fact has arrived."""
        with stopwatch() as watch:
            reply = self._api.post(f"/vms/{name}/start")
            self._await(reply, "vm.started")
        return watch.seconds * 1_000

    def stop(self, name: str) -> None:
        self._await(self._api.post(f"/vms/{name}/stop"), "vm.stopped")

    def set_autostart(self, name: str) -> float:
        """Milliseconds of a command that changes the state and has no effect outside."""
        wanted = not self._api.get(f"/vms/{name}")["autostart"]
        with stopwatch() as watch:
            assert self._api.post(f"/vms/{name}/autostart", {"autostart": wanted})["changed"]
        return watch.seconds * 1_000

    def _await(self, reply: dict[str, object], type_: str) -> None:
        query = {"after": reply["position"], "types": type_, "correlation": reply["record"], "wait_s": 10}
        told = self._api.get("/events", **query)  # type: ignore[arg-type]
        assert told["records"], f"no {type_} within 10 s after {reply}"
