"""One function cut out of a module, with what it imports and the examples of its docstring. Owns no fault and no task; runs nothing."""

from __future__ import annotations

import ast
import builtins
import doctest
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.swe.syntax import parse

_LONGEST_EXAMPLE = 100


@dataclass(frozen=True)
class Example:
    """A call with its answer. `Example("nth(1, 'ABC')", "'B'")`."""

    call: str
    """An expression that needs the function and what is built in."""
    answer: str
    """A literal."""


@dataclass(frozen=True)
class SingleFunction:
    """A file of its own."""

    name: str
    """Of the function."""
    source: str
    """The file: imports, constants, the function without its docstring; lines as their author wrote them."""
    examples: tuple[Example, ...]
    """Of its docstring."""


def cut_function(module: str, name: str) -> SingleFunction:
    """The function `name` of a module's text. Raises Rejection (select) if there is none, or it needs more than the standard library."""
    tree = parse(module)
    function = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if function is None:
        raise Rejection("select", "no such function", name)
    lines = module.splitlines()
    above = list(_needed(tree, function, lines))
    body = "\n".join(_without_docstring(lines, function))
    source = "\n".join([*above, *(["", ""] if above else []), body]) + "\n"
    return SingleFunction(name, source, tuple(_examples(ast.get_docstring(function) or "", name)))


def _lines(lines: list[str], node: ast.stmt) -> str:
    return "\n".join(lines[node.lineno - 1 : node.end_lineno])


def _without_docstring(lines: list[str], function: ast.FunctionDef) -> list[str]:
    first = min([function.lineno, *(mark.lineno for mark in function.decorator_list)]) - 1
    end = function.end_lineno or function.lineno
    if ast.get_docstring(function) is None or len(function.body) == 1:
        return lines[first:end]
    said = function.body[0]
    rest = lines[said.end_lineno or said.lineno : end]
    while rest and not rest[0].strip():
        rest = rest[1:]
    return lines[first : said.lineno - 1] + rest


def _needed(tree: ast.Module, function: ast.FunctionDef, lines: list[str]) -> Iterator[str]:
    """Imports of the standard library and literals that it names, in the order of the module. Raises Rejection for anything else."""
    loaded = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    own = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)} | {function.name}
    own |= {node.name for node in ast.walk(function) if isinstance(node, ast.FunctionDef)}
    missing = loaded - own - set(dir(builtins))
    for node in tree.body:
        if names := _gives(node) & missing:
            missing -= names
            yield _import_of(node, names) if isinstance(node, ast.ImportFrom) else _lines(lines, node)
    if missing:
        raise Rejection("select", "needs more than itself", ", ".join(sorted(missing)))


def _gives(node: ast.stmt) -> set[str]:
    """Names that a statement of a module defines, if it can stand in a file by itself."""
    if isinstance(node, ast.Import):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names if _is_standard(alias.name)}
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names} if not node.level and _is_standard(node.module or "") else set()
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def _import_of(node: ast.ImportFrom, names: set[str]) -> str:
    wanted = [alias for alias in node.names if (alias.asname or alias.name) in names]
    return ast.unparse(ast.ImportFrom(node.module, wanted, 0))


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _examples(docstring: str, name: str) -> Iterator[Example]:
    """Those that say in one line what a call returns."""
    try:
        found = doctest.DocTestParser().get_examples(docstring)
    except ValueError:
        return
    for example in found:
        call, answer = example.source.strip(), example.want.partition("\n\n")[0].strip()
        if len(call) + len(answer) <= _LONGEST_EXAMPLE and _is_call(call, name) and _is_literal(answer):
            yield Example(call, answer)


def _is_call(text: str, name: str) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    inner = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return name in names and names <= {name} | inner | set(dir(builtins))


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return bool(text)
