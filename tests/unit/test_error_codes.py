"""docs/errors.md and the code agree: every stable code is in both, with the HTTP status and exit code it really has."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pvc.cli.exits import exit_code
from pvc.client.errors import ApiError, ClientError, ConfigError, Unreachable, WaitTimedOut
from pvc.projections.vm_machine import VmState

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
CODE = re.compile(r"[a-z_]+(\.[a-z_]+)?")


INTERNAL = {"Lost", "NoSession", "NoNode", "NodeExists"}
"""Classes of `pvc.zookeeper.bridge` that the callers catch; no HTTP status comes of them."""


class Use(NamedTuple):
    """A code that a line of the source gives to an error; `*` stands for what is filled in at run time."""

    code: str
    kind: str
    """The class of the error."""
    where: str


class Row(NamedTuple):
    """A line of the page's tables."""

    code: str
    cells: dict[str, str]


def test_every_code_of_the_source_is_on_the_page() -> None:
    written = {row.code for row in rows()}
    missing = {f"{use.code} ({use.where})" for use in uses() if not any(matches(use.code, code) for code in written)}
    assert missing == set(), "add them to docs/errors.md"


def test_every_code_on_the_page_is_in_the_source() -> None:
    used = {use.code for use in uses()}
    stale = {row.code for row in rows() if not any(matches(pattern, row.code) for pattern in used)}
    assert stale == set(), "take them out of docs/errors.md"


def test_no_code_is_on_the_page_twice() -> None:
    written = [row.code for row in rows()]
    assert {code for code in written if written.count(code) > 1} == set()


def test_the_page_tells_each_state_that_a_command_may_be_refused_for() -> None:
    elsewhere = {"vm.is_there", "vm.is_home"}  # of a place, not of a state
    written = {row.code for row in rows() if row.code.startswith("vm.is_")} - elsewhere
    assert written == {f"vm.is_{state.value.replace('-', '_')}" for state in VmState}


def test_the_page_tells_the_true_http_status() -> None:
    status = statuses()
    for row in rows():
        if "HTTP" in row.cells:
            kinds = {use.kind for use in uses() if matches(use.code, row.code)} - INTERNAL
            true = {status[kind] for kind in kinds if kind in status}
            told = {int(number) for number in row.cells["HTTP"].split(", ")}
            assert told == true, f"{row.code}: the page says {told}, the source {true} ({kinds})"


def test_the_page_tells_the_true_exit_code() -> None:
    for row in rows():
        if "HTTP" in row.cells:
            true = {exit_code(ApiError(int(number), "")) for number in row.cells["HTTP"].split(", ")}
            assert {int(number) for number in row.cells["exit"].split(", ")} == true, row.code


def test_the_page_tells_the_true_exit_code_of_the_clients_own_errors() -> None:
    kinds = {kind.__name__: kind for kind in (ClientError, ConfigError, Unreachable, WaitTimedOut)}
    checked = 0
    for row in rows():
        for use in uses():
            kind = kinds.get(use.kind)
            if use.code == row.code and kind is not None:
                assert int(row.cells["exit"]) == exit_code(kind("", code=row.code)), row.code
                checked += 1
    assert checked > 5


def rows() -> list[Row]:
    """The rows of all tables whose first column is `code`."""
    found, header = [], list[str]()
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = cells
        elif header[0] == "code" and not set(line) <= set("|- "):
            found.append(Row(cells[0].strip("`"), dict(zip(header, cells, strict=True))))
    assert len(found) > 50, "the page's tables are not understood"
    return found


def matches(pattern: str, code: str) -> bool:
    if "*" not in pattern:
        return pattern == code
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[a-z_]+"), code) is not None


@functools.cache
def uses() -> list[Use]:
    """Every code in pvc/: a class's default, an argument `code` by name or by place, or that argument's default."""
    found = []
    everywhere = {function.name: function for module in modules() for function in module.makers}
    for module in modules():
        makers = everywhere | {function.name: function for function in module.makers}
        for node in ast.walk(module.tree):
            for kind, value in given_codes(node, makers):
                for code in codes_of(value, module.constants):
                    found.append(Use(code, kind, f"{module.path.relative_to(ROOT)}:{value.lineno}"))
    assert len(found) > 100, "the source is not understood"
    return found


def given_codes(node: ast.AST, makers: dict[str, ast.FunctionDef]) -> Iterator[tuple[str, ast.expr]]:
    """Class of the error, and the expression that gives its code."""
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "default_code":
                yield node.name, part.value
    elif isinstance(node, ast.FunctionDef) and node in makers.values():
        names = [argument.arg for argument in node.args.args]
        defaults = [*[None] * (len(names) - len(node.args.defaults)), *node.args.defaults]
        default = defaults[names.index("code")]
        if default is not None:
            yield made_by(node), default
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        maker = makers.get(name)
        kind = made_by(maker) if maker else name
        for keyword in node.keywords:
            if keyword.arg == "code":
                yield kind, keyword.value
        if maker and len(node.args) > code_place(maker):
            yield kind, node.args[code_place(maker)]


def codes_of(value: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """The codes that an expression can come to."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and CODE.fullmatch(value.value):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from codes_of(value.body, constants)
        yield from codes_of(value.orelse, constants)
    elif isinstance(value, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in value.values)
    elif isinstance(value, ast.Name) and not isinstance(named := constants.get(value.id), ast.Name | None):
        yield from codes_of(named, constants)


def made_by(maker: ast.FunctionDef) -> str:
    return ast.unparse(maker.returns) if maker.returns else ""


def code_place(maker: ast.FunctionDef) -> int:
    """The place of the code among the arguments of a call."""
    names = [argument.arg for argument in maker.args.args]
    return names.index("code") - (names[0] == "self")


class Module(NamedTuple):
    """A module of pvc/, read."""

    path: Path
    tree: ast.Module
    makers: list[ast.FunctionDef]
    """Functions that take a code by place."""
    constants: dict[str, ast.expr]
    """Names and what they are set to."""


@functools.cache
def modules() -> list[Module]:
    found = []
    for path in sorted((ROOT / "pvc").rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        makers = [one for one in functions if any(argument.arg == "code" for argument in one.args.args)]
        sets = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        found.append(Module(path, tree, makers, {ast.unparse(node.targets[0]): node.value for node in sets}))
    return found


@functools.cache
def statuses() -> dict[str, int]:
    """Classes of errors -> HTTP status, their own or that of the class they come from."""
    classes = {
        node.name: node for module in modules() for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)
    }
    return {name: status for name in classes if (status := status_of(name, classes))}


def status_of(name: str, classes: dict[str, ast.ClassDef]) -> int:
    if name not in classes:
        return 0
    for part in classes[name].body:
        if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "status":
            return int(ast.unparse(part.value))
    return max((status_of(ast.unparse(base), classes) for base in classes[name].bases), default=0)
