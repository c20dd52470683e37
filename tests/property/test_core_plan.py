"""The plan: total for every pair of state and domain, and it comes to an end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.drivers.hypervisor import Domain, DomainState, OffReason
from pvc.handlers import vm_plan as plan
from pvc.handlers.vm_reconciler import MAX_STEPS
from pvc.projections.vm_machine import AT_REST, VmState
from tests.support.core import TinyCluster, a_cluster_with_vm

PATIENCE = st.builds(
    plan.Patience,
    may_start=st.booleans(),
    transferring=st.booleans(),
    failure=st.sampled_from([None, ("driver.failed", "it cannot be")]),
    waited_s=st.sampled_from([0.0, 1.0, 89.9, 90.0, 1e6]),
    since_asked_s=st.sampled_from([None, 0.0, 4.9, 5.0, 1e6]),
)


def domains(vm: str) -> st.SearchStrategy[Domain | None]:
    """Every domain there can be of a VM in its first or second run, and none."""
    return st.none() | st.builds(
        _domain,
        st.just(vm),
        st.integers(0, 3),
        st.sampled_from([DomainState.RUNNING, DomainState.PAUSED, DomainState.INCOMING, *OffReason]),
        st.sampled_from(["", "other"]),
    )


def _domain(vm: str, epoch: int, state: DomainState | OffReason, reset_mark: str) -> Domain:
    off = isinstance(state, OffReason)
    return Domain(
        vm=vm,
        name="web01",
        epoch=epoch,
        state=DomainState.OFF if isinstance(state, OffReason) else state,
        reason=state if isinstance(state, OffReason) else None,
        reset_mark="" if off else reset_mark,
    )


class Machine:
    """One domain as a hypervisor that obeys would have it, and the steps that were carried out."""

    def __init__(self, cluster: TinyCluster, vm: str, domain: Domain | None) -> None:
        self.cluster = cluster
        self.vm = vm
        self.node = cluster.state.vms[vm].node
        self.domain = domain
        self.waited_s = 0.0
        self.asked: float | None = None
        self.obeys = True

    def step(self) -> plan.Step | None:
        vm = self.cluster.state.vms.get(self.vm)
        patience = plan.Patience(waited_s=self.waited_s, since_asked_s=self.asked)
        step = plan.plan_vm(vm, self.domain, self.node, patience)
        match step:
            case plan.Define(epoch=epoch):
                assert self.domain is None or self.domain.state is DomainState.OFF
                self.domain = _domain(self.vm, epoch, OffReason.NEVER_RAN, "")
            case plan.Start(epoch=epoch):
                assert self.domain is not None and self.domain.epoch == epoch
                assert vm is not None
                arrived = vm.state is VmState.ARRIVING and self.domain.state is DomainState.PAUSED
                assert vm.state is VmState.STARTING or arrived, "only a VM that is to start is started"
                self.domain = _domain(self.vm, epoch, DomainState.RUNNING, "")
            case plan.AskShutdown():
                self.asked = 0.0
                if self.obeys:
                    self._end(OffReason.GUEST)
            case plan.Destroy():
                self._end(OffReason.DESTROYED)
            case plan.Reset(mark=mark):
                assert self.domain is not None
                self.domain = msgspec.structs.replace(self.domain, reset_mark=mark)
            case plan.Forget():
                assert self.domain is not None and self.domain.state is DomainState.OFF
                self.domain = None
            case plan.Report(report=report):
                before = self.cluster.state.head
                self.cluster.report(report)
                assert self.cluster.state.head != before, f"a report that is planned says something: {report}"
            case plan.Wait(delay_s=delay_s):
                assert delay_s > 0
                self.waited_s += delay_s
                self.asked = None if self.asked is None else self.asked + delay_s
        return step

    def _end(self, reason: OffReason) -> None:
        assert self.domain is not None and self.domain.state is not DomainState.OFF
        self.domain = _domain(self.vm, self.domain.epoch, reason, "")


@pytest.mark.parametrize("state", list(VmState))
@given(data=st.data(), patience=PATIENCE)
def test_there_is_a_plan_for_every_state_and_domain(
    state: VmState, data: st.DataObject, patience: plan.Patience
) -> None:
    vm = a_cluster_with_vm(state).vm()
    domain = data.draw(domains(vm.id))
    for node, known in (("hv1", vm), ("hv2", vm), ("hv3", vm), ("hv1", None)):
        step = plan.plan_vm(known, domain, node, patience)
        assert step is None or isinstance(step, plan.Step.__args__)
        elsewhere = known is None or node != vm.node or state in AT_REST
        if not patience.may_start:
            assert not isinstance(step, plan.Define | plan.Start)
        if elsewhere:
            expected = known is not None and state is VmState.MIGRATING and node == "hv2"
            assert ((step is None) == (domain is None)) or (expected and isinstance(step, plan.Prepare))
            assert not isinstance(step, plan.Define | plan.Start | plan.Report), "nothing is begun that is not wanted"


@pytest.mark.parametrize("policy", ["stop", "restart"])
@pytest.mark.parametrize("obeys", [True, False], ids=["obeys", "deaf"])
@pytest.mark.parametrize("state", list(VmState))
@given(data=st.data())
def test_the_plan_comes_to_rest_from_everywhere(state: VmState, obeys: bool, policy: str, data: st.DataObject) -> None:
    cluster = a_cluster_with_vm(state, on_crash=policy, on_poweroff=policy)
    machine = Machine(cluster, cluster.vm().id, data.draw(domains(cluster.vm().id)))
    machine.obeys = obeys
    steps: list[Any] = []
    for _ in range(MAX_STEPS + 200):
        step = machine.step()
        if step is None:
            break
        if not isinstance(step, plan.Wait | plan.AskShutdown):
            steps.append(step)
    else:
        pytest.fail(f"it goes on for ever: {steps[-8:]}")
    assert len(steps) <= MAX_STEPS
    vm = cluster.vm()
    if vm.state in AT_REST:
        assert machine.domain is None
    else:
        assert vm.state is VmState.RUNNING
        assert machine.domain is not None
        assert machine.domain.state is not DomainState.OFF and machine.domain.epoch == vm.epoch


@given(data=st.data())
def test_a_removed_vm_leaves_no_domain(data: st.DataObject) -> None:
    cluster = a_cluster_with_vm("stopped")
    vm_id = cluster.vm().id
    machine = Machine(cluster, vm_id, data.draw(domains(vm_id)))
    cluster.do("vm.remove", vm="web01")
    cluster.do("vm.define", name="web01", memory_mib=64)
    for _ in range(3):
        machine.step()
    assert machine.domain is None and machine.step() is None
    assert cluster.vm().state is VmState.STOPPED
