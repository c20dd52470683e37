"""The client's generated part: all of the API is in it, both kinds are alike, and the command line stays light."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing

import msgspec
import pytest

from pvc.client import AsyncClient, Client, JsonClient, api_types, other_times
from pvc.client.calls import AsyncGroup, Group
from pvc.client.generated import blocking, models, suspending
from pvc.commands.registry import COMMANDS
from pvc.gateway.app import all_endpoints
from pvc.schemas.client_methods import LEFT_OUT, Method, methods

METHODS = methods(all_endpoints())


def test_every_command_has_its_method() -> None:
    assert {method.endpoint.name for method in METHODS if method.kind == "command"} == {spec.name for spec in COMMANDS}


def test_every_other_endpoint_has_its_method_or_a_reason_to_have_none() -> None:
    found = {method.endpoint.name for method in METHODS}
    missing = [endpoint for endpoint in all_endpoints() if endpoint.name not in found | LEFT_OUT]
    assert [one.name for one in missing if one.reply is not None and not one.peers] == []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.group}.{method.name}")
def test_both_kinds_have_the_same_method_with_the_same_signature(method: Method) -> None:
    class_name = method.group.title().replace("_", "")
    blocks = getattr(getattr(blocking, class_name), method.name)
    suspends = getattr(getattr(suspending, f"Async{class_name}"), method.name)
    assert inspect.iscoroutinefunction(suspends)
    assert not inspect.iscoroutinefunction(blocks)
    assert inspect.signature(blocks).parameters == inspect.signature(suspends).parameters
    assert inspect.getdoc(blocks) == inspect.getdoc(suspends)
    assert (inspect.getdoc(blocks) or "").startswith(method.endpoint.summary.split()[0])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.group}.{method.name}")
def test_every_argument_of_a_method_has_a_type(method: Method) -> None:
    blocks = getattr(getattr(blocking, method.group.title().replace("_", "")), method.name)
    arguments = list(inspect.signature(blocks).parameters.values())[1:]
    assert all(one.annotation is not inspect.Parameter.empty for one in arguments)
    assert inspect.signature(blocks).return_annotation is not inspect.Signature.empty


def test_a_client_has_the_groups() -> None:
    groups = {method.group for method in METHODS}
    assert {"vms", "nodes", "cluster", "faults", "log", "access", "audit", "operations", "webhooks"} <= groups
    client, other = Client("http://hv1:7370"), AsyncClient("http://hv1:7370")
    assert all(isinstance(getattr(client, group), Group) for group in groups)
    assert all(isinstance(getattr(other, group), AsyncGroup) for group in groups)


def test_every_struct_can_be_made_of_nothing() -> None:
    structs = [one for one in vars(models).values() if isinstance(one, type) and issubclass(one, models.Model)]
    assert len(structs) > 50
    assert all(msgspec.json.decode(b"{}", type=struct) == struct() for struct in structs)


def test_what_the_command_line_believes_of_replies_is_what_the_gateway_says() -> None:
    checked = 0
    for module in (api_types, other_times):
        for name, described in vars(module).items():
            struct = getattr(models, "OperationView" if name == "Operation" else name, None)
            if struct is None or not typing.is_typeddict(described):
                continue
            said = {*struct.__struct_fields__, *(["token"] if name.endswith("Reply") else [])}
            assert set(described.__annotations__) <= said, name
            checked += 1
    assert checked > 20


def test_the_command_lines_client_loads_neither_msgspec_nor_asyncio() -> None:
    program = f"import sys; from {JsonClient.__module__} import JsonClient; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "h11" in loaded
    assert not {"msgspec", "asyncio", "ssl", "http.client", "websockets"} & set(loaded)
