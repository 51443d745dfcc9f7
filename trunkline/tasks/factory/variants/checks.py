"""Test files in parts: functions cut out, and each check of a function alone, as text. Owns no run and no words for people.

A check is a statement of a test's body that asserts something: an assert, self.assertEqual(...), with raises(...), a loop over them.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trunkline.tasks.factory.variants.edits import Edit, SourceBytes
from trunkline.tasks.swe.syntax import parse

Function = ast.FunctionDef | ast.AsyncFunctionDef
_MARK = "_check_"


@dataclass(frozen=True)
class Check:
    """One check of a test."""

    name: str
    """Of the function that makes no other check, alone in its file: 'test_b_check_1'."""
    text: str
    """Its lines with what they need before them, not indented."""
    parameters: tuple[str, ...] = ()
    """What the test is given: fixtures, or columns of a table."""


def function_of(test: str) -> str:
    """'TestA::test_b' of 'tests/test_a.py::TestA::test_b[1]'."""
    return test.partition("::")[2].partition("[")[0]


def without_functions(source: str, functions: Collection[str]) -> str | None:
    """The file without these test functions, 'TestA::test_b'; None if one of them is not there, or nothing would be left to test.

    What a class has from another one of the file is cut out there, and so for all that have it.
    """
    content, found, cut = _read(source, functions)
    if "" in cut or not found.keys() - cut:
        return None
    for name in sorted(cut, key=lambda one: -found[one].lineno):
        node = found[name]
        first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
        owner = name.rpartition("::")[0]
        is_last = not any(other.rpartition("::")[0] == owner and other not in cut for other in found) and owner
        indent = " " * node.col_offset
        last = content.at((node.end_lineno or node.lineno) + 1)
        content = SourceBytes(content.edited(Edit("", content.at(first), last, f"{indent}pass\n" if is_last else "")).encode())
    text = content.content.decode()
    return text if _parses(text) else None


def split_checks(source: str, functions: Collection[str]) -> tuple[str, list[Check]]:
    """The file with copies of these functions that make one check each, and what they check; they are all that pytest finds there."""
    content, found, wanted = _read(source, functions)
    checks: list[Check] = []
    for name, node in sorted(found.items(), key=lambda one: -one[1].lineno):
        first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
        start, end = content.at(first), content.at((node.end_lineno or node.lineno) + 1)
        text = content.content[start:end].decode()
        copies = "" if text.endswith("\n") else "\n"
        mine: list[Check] = []
        arguments = tuple(one.arg for one in [*node.args.args, *node.args.kwonlyargs] if one.arg != "self")
        for copied, body in _copies(content, node, first) if name in wanted else ():
            label = f"{node.name}{_MARK}{len(checks) + len(mine) + 1}"
            copies += "\n" + copied.replace(f"def {node.name}", f"def {label}", 1)
            mine.append(Check(label, body, arguments))
        aside = text.replace(f"def {node.name}", f"def _{node.name}", 1)
        content = SourceBytes(content.edited(Edit("", start, end, aside + copies)).encode())
        checks = [*mine, *checks]
    return content.content.decode(), checks


def _copies(content: SourceBytes, node: Function, first: int) -> Iterator[tuple[str, str]]:
    """For each check the function without the others, with what it seems to need and with all else; and its lines up to the check."""
    start, last = content.at(first), content.at((node.end_lineno or node.lineno) + 1)
    checking = [one for one in node.body if _asserts(one)]
    body = [one for one in node.body if not _is_text(one)]
    if not body or body[0].lineno == node.lineno:
        return
    for check in checking:
        others = [one for one in body[: body.index(check)] if one not in checking]
        needed = _needed(check, others)
        for kept in ([*needed, check], [*others, check]) if len(needed) < len(others) else ([*others, check],):
            edits = [content.without_lines("", one) for one in body if one not in kept]
            if None in edits:
                continue
            cuts = [edit for edit in edits if edit]
            copy = _with(content, start, last, cuts)
            lines = _with(content, content.at(body[0].lineno), content.at((check.end_lineno or check.lineno) + 1), cuts)
            yield copy if copy.endswith("\n") else f"{copy}\n", textwrap.dedent(lines).strip("\n")


def _needed(check: ast.stmt, earlier: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Of the statements before a check those that give a value to what it uses, or do something with that."""
    names = _names(check, ast.Load)
    found: list[ast.stmt] = []
    for one in reversed(earlier):
        is_done_with = isinstance(one, ast.Expr) and _names(one, ast.Load) & names
        if is_done_with or _names(one, ast.Store) & names:
            found.insert(0, one)
            names = (names - _given_anew(one)) | _names(one, ast.Load)
    return found


def _given_anew(node: ast.stmt) -> set[str]:
    """Variables that have another value after a statement, whatever they had before."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def _names(node: ast.AST, context: type[ast.expr_context]) -> set[str]:
    """Variables that are read, or that get a value, anywhere in a statement."""
    found = {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, context)}
    if context is ast.Store:
        for one in ast.walk(node):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(one.name)
            elif isinstance(one, ast.alias):
                found.add((one.asname or one.name).partition(".")[0])
            elif isinstance(one, ast.Subscript | ast.Attribute) and isinstance(one.ctx, ast.Store) and isinstance(one.value, ast.Name):
                found.add(one.value.id)
    return found


def _with(content: SourceBytes, start: int, end: int, edits: Collection[Edit]) -> str:
    """A part of the source, changed in several places."""
    parts, at = [], start
    for edit in sorted(edits, key=lambda one: one.start):
        if start <= edit.start and edit.end <= end:
            parts.append(content.content[at : edit.start].decode() + edit.text)
            at = edit.end
    return "".join(parts) + content.content[at:end].decode()


def _read(source: str, wanted: Collection[str]) -> tuple[SourceBytes, dict[str, Function], set[str]]:
    """The file, its tests, and which of them are wanted, where they stand; '' for one that is nowhere."""
    try:
        module = parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return SourceBytes(source.encode()), {}, {""}
    found = dict(_tests(module.body, ""))
    bases = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)] for node in module.body if isinstance(node, ast.ClassDef)
    }
    return SourceBytes(source.encode()), found, {_resolved(name, found, bases) for name in wanted}


def _resolved(name: str, found: Mapping[str, Function], bases: Mapping[str, list[str]]) -> str:
    """Where a test of this name is defined: in its class or in one that it inherits from."""
    owner, _, last = name.rpartition("::")
    waiting = [owner]
    for one in waiting:
        place = f"{one}::{last}" if one else last
        if place in found:
            return place
        waiting += [base for base in bases.get(one, ()) if base not in waiting]
    return ""


def _tests(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, Function]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield owner + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _tests(node.body, f"{owner}{node.name}::")


def _asserts(node: ast.stmt) -> bool:
    for one in ast.walk(node):
        name = one.func if isinstance(one, ast.Call) else None
        word = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
        if isinstance(one, ast.Assert) or word.startswith("assert") or word == "raises":
            return True
    return False


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _parses(text: str) -> bool:
    try:
        parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True
